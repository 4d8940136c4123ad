"""Fetch one file from the Hugging Face hub, gated ones too."""

from __future__ import annotations

from pathlib import Path

from panecho_embed.core.digests import checked_sha256, record_sha256
from panecho_embed.core.errors import WeightsError


def download_from_hub(repo: str, path: Path) -> None:
    """Fetch the file named `path.name` of a gated repository as `path`, and record its SHA-256 beside it.

    The token is the one in $HF_TOKEN, or the one that `hf auth login` stored. Raises ConnectionError if there is
    none, if it gives no access, or if the file is not to be had; WeightsError if the file can't be written.
    """
    from huggingface_hub import get_token, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    page = f"https://huggingface.co/{repo}"
    get_access = (
        f"accept the terms on {page} with a Hugging Face account, make a token with read access at "
        "https://huggingface.co/settings/tokens, and set HF_TOKEN to it (or run `hf auth login`)"
    )
    token = get_token()
    if token is None:
        raise ConnectionError(f"{page} is gated and there is no token: {get_access}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hf_hub_download(repo, path.name, local_dir=path.parent, token=token)
        record_sha256(path, checked_sha256(path))
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        advice = f"the token gives no access: {get_access}" if status in (401, 403, 404) else str(error)
        raise ConnectionError(f"{page}: HTTP {status}: {advice}") from error
    except (EntryNotFoundError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise ConnectionError(f"{page}: {error}") from error
    except OSError as error:
        raise WeightsError(
            f"{path}: can't be written: {error.strerror or error}. Choose another folder: "
            "`panecho-embed weights fetch NAME --to DIR`, or set TORCH_HOME"
        ) from error
