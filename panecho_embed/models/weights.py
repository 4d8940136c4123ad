"""Where weights are found and fetched, under which licence they are, and what to say when they are not available."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panecho_embed._version import __version__
from panecho_embed.core.digests import checked_sha256, record_sha256
from panecho_embed.core.errors import ArgumentError, WeightsError, WeightsNotFoundError
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.core.wording import nearest

if TYPE_CHECKING:
    import pandas as pd

PLACE_VARIABLE = "PANECHO_EMBED_WEIGHTS"
"""Environment variable: a folder that holds weights files under their published names, or one weights file.

The one file is PanEcho's, unless it bears another model's published name.
"""

MIRROR_VARIABLE = "PANECHO_EMBED_WEIGHTS_URL"
"""Environment variable: an http(s) address that has the files by name; it is asked instead of the publishers'."""

ATTEMPTS = 6
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}

_TORCHVISION = "BSD-3-Clause (torchvision)"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A published weights file.

    url: where it can be fetched; "" if only as part of an archive (`notes` says which) or, with `hub_repo`, from
    the Hugging Face hub. sha256: its first digits, "" if the publisher names none.
    """

    name: str
    file_name: str
    url: str
    licence: str
    sha256: str = ""
    hub_repo: str = ""
    notes: str = ""


KNOWN: tuple[WeightsFile, ...] = (
    WeightsFile(
        "panecho",
        "panecho.pt",
        "https://github.com/CarDS-Yale/PanEcho/releases/download/v1.0/panecho.pt",
        "CC BY-NC-SA 4.0",
        notes="also serves panecho-image",
    ),
    WeightsFile(
        "imagenet",
        "convnext_tiny-983f1562.pth",
        "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
        f"{_TORCHVISION}; trained on ImageNet-1K, whose terms are non-commercial",
        sha256="983f1562",
    ),
    WeightsFile(
        "echoclip",
        "open_clip_pytorch_model.bin",
        "",
        "academic, non-commercial use only (terms on the model's page)",
        hub_repo="mkaichristensen/echo-clip",
        notes="gated: needs a Hugging Face token",
    ),
    WeightsFile(
        "kinetics",
        "r3d_18-b3b3357e.pth",
        "https://download.pytorch.org/models/r3d_18-b3b3357e.pth",
        f"{_TORCHVISION}; trained on Kinetics-400",
        sha256="b3b3357e",
    ),
    WeightsFile(
        "echoprime",
        "echo_prime_encoder.pt",
        "",
        "academic, non-commercial use only (terms in the release)",
        notes="inside model_data.zip of https://github.com/echonet/EchoPrime/releases",
    ),
)

_SERVES = {"panecho-image": "panecho"}

NOT_STATED = "not stated"
"""The licence of weights that say nothing of it and are no published file."""


def weights() -> pd.DataFrame:
    """List the published weights, and which of them are on this computer.

    Returns
    -------
    DataFrame
        One row per file: name, path (None where it is not here), megabytes, licence, file_name, notes. `fetch_weights`
        downloads one by name, `verify_weights` loads it strictly.
    """
    import pandas as pd

    rows = []
    for file in KNOWN:
        path = locate(file.name)
        size = None if path is None else path.stat().st_size / 1e6
        rows.append([file.name, path and str(path), size, file.licence, file.file_name, file.notes])
    # An object column keeps None; pandas's own text column makes NaN of it.
    table = pd.DataFrame(rows, columns=["name", "path", "megabytes", "licence", "file_name", "notes"], dtype=object)
    return table.astype({"megabytes": "float64"})


def known(name: str) -> WeightsFile:
    """The published file behind a model's name. Raises ArgumentError, with the nearest names, if there is none."""
    table = {file.name: file for file in KNOWN}
    file = table.get(_SERVES.get(name, name))
    if file is None:
        raise ArgumentError(
            f"no published weights are called {name!r}{nearest(name, table)}; known: {', '.join(table)}"
        )
    return file


def cache_folder() -> Path:
    """The torch hub cache for weights: `$TORCH_HOME`/hub/checkpoints, by default below ~/.cache/torch."""
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(name: str, weights: str | Path | None = None) -> Path:
    """The weights file of a model: `weights`, $PANECHO_EMBED_WEIGHTS, the caches, or fetched now.

    Raises WeightsNotFoundError, which names the places searched and what to do, and never falls back to anything else.
    """
    return locate(name, weights) or fetch(name)


def locate(name: str, weights: str | Path | None = None) -> Path | None:
    """As `find_weights`, without the network: None if the file is nowhere.

    Raises WeightsNotFoundError if `weights` or $PANECHO_EMBED_WEIGHTS names something that is not there.
    """
    file = known(name)
    if weights is not None:
        return _named(Path(weights).expanduser(), file)
    return next((path for _, path in _places(file) if path.is_file()), None)


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Download a model's weights; a file that is there already is checked against its recorded SHA-256 and kept.

    Parameters
    ----------
    name : str
        One of the names of `weights()`.
    folder : str or Path, optional
        Where to put the file. Default: the torch hub cache. $PANECHO_EMBED_WEIGHTS_URL may name a mirror to fetch from.

    Returns
    -------
    Path
        The file; its SHA-256 is written beside it, as FILE.sha256.

    Raises
    ------
    WeightsNotFoundError
        If the weights are not available.
    WeightsError
        If they can't be written or are damaged.
    """
    file = known(name)
    path = Path(folder or cache_folder()) / file.file_name
    if path.is_file():
        checked_sha256(path, file.sha256)
        return path
    mirror = os.environ.get(MIRROR_VARIABLE, "")
    url = f"{mirror.rstrip('/')}/{file.file_name}" if mirror else file.url
    try:
        if url:
            download(url, path, file.sha256)
        elif file.hub_repo:
            _download_from_hub(file.hub_repo, path)
        else:
            raise ConnectionError(f"no address: it is {file.notes}")
    except (ConnectionError, TimeoutError) as error:
        raise WeightsNotFoundError(_how_to_get(file, str(error))) from error
    return path


def weights_info(name: str, path: Path, stated: str = "") -> WeightsInfo:
    """What goes into every file and report about these weights. Reads the whole file once, for its SHA-256.

    stated: the licence that the file itself states. Without one, a published file has its publisher's, and is told by
    its SHA-256 where the publisher names it, else by its name; any other file's is not stated. Raises WeightsError if a
    SHA-256 was recorded when it was fetched and is now another one.
    """
    file, digest = known(name), checked_sha256(path)
    published = digest.startswith(file.sha256) if file.sha256 else path.name == file.file_name
    licence = stated or (file.licence if published else NOT_STATED)
    return WeightsInfo(source=path.name, sha256=digest, licence=licence, pretrained=True)


def _places(file: WeightsFile) -> Iterator[tuple[str, Path]]:
    """Where a file may lie, in the order of looking, each with what to call the place."""
    set_to = os.environ.get(PLACE_VARIABLE, "")
    if set_to:
        path = Path(set_to).expanduser()
        if path.is_dir():
            yield f"${PLACE_VARIABLE}", path / file.file_name
        elif not path.is_file():
            raise WeightsNotFoundError(f"{path}, given as ${PLACE_VARIABLE}, is not there")
        elif file.name == next((other.name for other in KNOWN if other.file_name == path.name), "panecho"):
            yield f"${PLACE_VARIABLE}", path
    yield "torch hub cache", cache_folder() / file.file_name
    if file.hub_repo:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(file.hub_repo, file.file_name)
        if isinstance(cached, str):
            yield "Hugging Face cache", Path(cached)


def _named(path: Path, file: WeightsFile) -> Path:
    """A file that the user named: it is taken, or it is an error."""
    if path.is_dir():
        raise WeightsNotFoundError(f"{path} is a folder; give the file in it, such as {file.file_name} (--weights)")
    if not path.is_file():
        raise WeightsNotFoundError(f"{path} is not there; it should be the weights file of {file.name} (--weights)")
    return path


def _how_to_get(file: WeightsFile, reason: str) -> str:
    places = "\n".join(f"  {place}: {path}" for place, path in _places(file))
    unset = "" if os.environ.get(PLACE_VARIABLE) else f"\n  ${PLACE_VARIABLE}: not set"
    page = f"https://huggingface.co/{file.hub_repo}" if file.hub_repo else ""
    source = file.url or (f"{file.file_name} from {page}" if page else f"{file.file_name}, {file.notes},")
    return (
        f"the weights of {file.name} ({file.file_name}) are not here and could not be fetched: {reason}\n"
        f"Looked in:\n{places}{unset}\n"
        f"To bring them: get {source} on a computer that can, copy it here, and give it with --weights FILE, or set "
        f"${PLACE_VARIABLE} to it or to its folder, or put it into {cache_folder()}.\n"
        "To try things out without them: --backbone random, or --init random where a start is asked for (random "
        "weights; named so in every file)."
    )


def _download_from_hub(repo: str, path: Path) -> None:
    """Fetch the file named `path.name` of a gated repository as `path`, and record its SHA-256 beside it.

    The token is the one in $HF_TOKEN, or the one that `hf auth login` stored. Raises ConnectionError if there is
    none, if it gives no access, or if the file is not available; WeightsError if the file can't be written.
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
        raise _unwritable(path, error) from error


def download(url: str, path: Path, known_sha256: str = "") -> None:
    """Fetch a file and record its SHA-256 beside it.

    Shows a progress bar on a terminal. A second process that wants the same file waits for the first. A transfer that
    breaks off starts again, since pooch does not resume.

    Parameters
    ----------
    url : str
        Address, http:// or https://.
    path : Path
        The file to write. If it exists already, nothing is fetched.
    known_sha256 : str
        First digits of the published SHA-256; "" if not known.

    Raises
    ------
    ConnectionError
        If the file can't be downloaded, after 6 attempts where another one may help.
    WeightsError
        If the file can't be written or has another SHA-256.
    """
    # Imported here: both take a while, and most commands fetch nothing.
    from filelock import FileLock
    from requests import RequestException

    if not url.startswith(("http://", "https://")):
        raise ArgumentError(f"the address {url!r} is none that can be fetched; it must begin with http:// or https://")
    lock, part = (path.with_name(f".{path.name}.{suffix}") for suffix in ("lock", "part"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not path.is_file():
                try:
                    # What a killed process has left.
                    shutil.rmtree(part, ignore_errors=True)
                    _fetch(url, part / path.name)
                    digest = checked_sha256(part / path.name, known_sha256)
                    # Before the file: a kill in between leaves none that nothing can be compared with.
                    record_sha256(path, digest)
                    (part / path.name).replace(path)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
            # Those who wait for it find the file.
            lock.unlink(missing_ok=True)
    except RequestException as error:
        raise ConnectionError(f"{url}: {error} (after {ATTEMPTS} attempts)") from error
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _fetch(url: str, target: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    name = target.name
    place = pooch.create(target.parent, base_url="", registry={name: None}, urls={name: url})
    place.retry_if_failed = ATTEMPTS - 1
    place.fetch(name, downloader=_transfer)


def _transfer(url: str, output_file: Any, pooch_: Any) -> None:
    """One attempt. What pooch would try again in vain is a ConnectionError."""
    import pooch
    from requests import ConnectionError as NotConnectedError
    from requests import HTTPError
    from requests.exceptions import SSLError

    headers = {"User-Agent": f"panecho-embed/{__version__}", "Accept-Encoding": "identity"}
    responses: list[Any] = []
    hooks = {"response": lambda response, **_: responses.append(response)}
    bar = sys.stderr.isatty()
    fetch = pooch.HTTPDownloader(bar, 1 << 20, timeout=30.0, headers=headers, hooks=hooks)
    try:
        fetch(url, output_file, pooch_)
    except HTTPError as error:
        refused = responses[-1]
        if refused.status_code in _WORTH_ANOTHER_TRY:
            raise
        raise ConnectionError(f"{url}: HTTP {refused.status_code} {refused.reason}") from error
    except SSLError as error:
        raise ConnectionError(f"{url}: {error}") from error
    except NotConnectedError as error:
        # Nobody listens, or the name is unknown: urllib3 wraps the reason.
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if type(reason).__name__ not in ("NewConnectionError", "NameResolutionError"):
            raise
        raise ConnectionError(f"{url}: {reason}") from error
    finally:
        for response in responses:
            response.close()


def _unwritable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{path}: can't be written: {error.strerror or error}. Choose another folder: "
        "`panecho-embed weights fetch NAME --to DIR`, or set TORCH_HOME"
    )
