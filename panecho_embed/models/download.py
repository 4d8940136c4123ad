"""Fetch a weights file over HTTP with pooch: tried several times, checked, and in place as a whole or not at all."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from panecho_embed._version import __version__
from panecho_embed.core.digests import checked_sha256, record_sha256
from panecho_embed.core.errors import ArgumentError, WeightsError

ATTEMPTS = 6
TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


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
        If the file can't be had, after 6 attempts where another one may help.
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
        raise WeightsError(
            f"{path}: can't be written: {error.strerror or error}. Choose another folder: "
            "`panecho-embed weights fetch NAME --to DIR`, or set TORCH_HOME"
        ) from error


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
    fetch = pooch.HTTPDownloader(bar, _CHUNK_BYTES, timeout=TIMEOUT_SECONDS, headers=headers, hooks=hooks)
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
