"""Fetch one large file over HTTP: resumed where it broke off, checked, and in place as a whole or not at all."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from panecho_embed._version import __version__
from panecho_embed.errors import ArgumentError, WeightsError
from panecho_embed.models.digests import checked_sha256, record_sha256

if sys.platform != "win32":
    import fcntl

ATTEMPTS = 6
TIMEOUT_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 1.0
_CHUNK_BYTES = 1 << 20
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


class _BrokenOffError(Exception):
    """The transfer ended early, for a reason that may pass."""


def download(url: str, path: Path, known_sha256: str = "") -> None:
    """Fetch `url` as the file `path` and record its SHA-256 beside it.

    Bytes collect in `path` + ".part"; a later call goes on from there (HTTP Range) if the server's file is still the
    same one, else from the start. Up to 6 attempts with growing pauses; a second process that wants the same file
    waits for the first. A progress bar shows on a terminal. known_sha256: its first digits, "" if not known.
    Raises ConnectionError if the file is not to be had, WeightsError if it can't be written or has another SHA-256.
    """
    if not url.startswith(("http://", "https://")):
        raise ArgumentError(f"the address {url!r} is none that can be fetched; it must begin with http:// or https://")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            if path.is_file():
                return
            _receive_patiently(url, part)
            try:
                digest = checked_sha256(part, known_sha256)
            except WeightsError:
                _forget(part)
                raise
            part.replace(path)
            _note(part).unlink(missing_ok=True)
            record_sha256(path, digest)
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise WeightsError(
            f"{path}: can't be written: {error.strerror or error}. Choose another folder: "
            "`panecho-embed weights fetch NAME --to DIR`, or set TORCH_HOME"
        ) from error


def _receive_patiently(url: str, part: Path) -> None:
    pause = FIRST_PAUSE_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(url, part)
            return
        except _BrokenOffError as error:
            if attempt == ATTEMPTS:
                raise ConnectionError(
                    f"{url}: {error} (after {ATTEMPTS} attempts; "
                    f"{_size(part):,} bytes are kept in {part} and the next attempt goes on from there)"
                ) from error
            time.sleep(pause)
            pause *= 2


def _receive(url: str, part: Path) -> None:
    """One attempt: append to `part` what is missing from it."""
    have, note = _size(part), _read_note(part)
    if have and have == note.get("total"):
        return
    with _open(url, part, have, note) as response:
        total = _total_bytes(response)
        if response.status == 206:
            if not _continues(response, have, total, note):
                _forget(part)
                raise _BrokenOffError("the server's file is another one than before; starting anew")
        else:
            have = 0
        _note(part).write_text(json.dumps({"validator": _validator(response), "total": total}), encoding="utf-8")
        free = shutil.disk_usage(part.parent).free
        if total is not None and free < total - have:
            raise OSError(f"{total - have:,} bytes are missing and the disk has {free:,} left")
        bar = tqdm(
            total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, unit_divisor=1024, disable=None
        )
        with part.open("ab" if have else "wb") as stream, bar:
            _copy(response, stream, bar)
    if total is not None and _size(part) != total:
        raise _BrokenOffError(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _open(url: str, part: Path, have: int, note: dict[str, Any]) -> Any:
    headers = {"User-Agent": f"panecho-embed/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if note.get("validator"):
            headers["If-Range"] = note["validator"]
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            # Nothing lies beyond what we have, and what we have was not the whole: the server's file has changed.
            _forget(part)
            raise _BrokenOffError("the server's file is shorter than before; starting anew") from error
        if error.code in _WORTH_ANOTHER_TRY:
            raise _BrokenOffError(f"HTTP {error.code} {error.reason}") from error
        raise ConnectionError(f"{url}: HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        hopeless = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
        if isinstance(error.reason, hopeless):
            raise ConnectionError(f"{url}: {error.reason}") from error
        raise _BrokenOffError(str(error.reason)) from error
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOffError(str(error) or type(error).__name__) from error


def _copy(response: Any, stream: BinaryIO, bar: Any) -> None:
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except (http.client.HTTPException, OSError) as error:
            raise _BrokenOffError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        stream.write(chunk)
        bar.update(len(chunk))


def _continues(response: Any, have: int, total: int | None, note: dict[str, Any]) -> bool:
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if begins is None or int(begins[1]) != have:
        return False
    return note.get("total") in (None, total) and note.get("validator") in (None, _validator(response))


def _total_bytes(response: Any) -> int | None:
    if response.status == 206:
        whole = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return int(whole[1]) if whole else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _validator(response: Any) -> str | None:
    """What names this version of the server's file; a weak ETag may not (RFC 9110, 13.1.5)."""
    etag: str | None = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("Last-Modified")
    return modified


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Let one process at a time work on `part`, which exists on entry; the others wait. An empty one is not left."""
    while True:
        with part.open("ab") as handle:
            if sys.platform != "win32":
                # Some network file systems have no locks; there, two processes at once are the user's to avoid.
                with suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_EX)
            # The process waited for may have moved this very file into place, or removed it.
            if not part.exists() or part.stat().st_ino != os.fstat(handle.fileno()).st_ino:
                continue
            try:
                yield
            finally:
                if not _size(part):
                    part.unlink(missing_ok=True)
                    _note(part).unlink(missing_ok=True)
            return


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_note(part: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _forget(part: Path) -> None:
    """Start over. The file itself stays, because others wait for a lock on it."""
    os.truncate(part, 0)
    _note(part).unlink(missing_ok=True)
