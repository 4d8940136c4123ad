"""SHA-256 of a weights file, and the record of it that lies beside the file as FILE.sha256."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from panecho_embed.errors import WeightsError


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits. Raises WeightsError if it can't be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error} (--weights)") from error


def record_sha256(path: Path, digest: str) -> None:
    """Write FILE.sha256 as the `sha256sum` command does, so that `sha256sum -c` checks it too."""
    _record(path).write_text(f"{digest}  {path.name}\n", encoding="utf-8")


def recorded_sha256(path: Path) -> str | None:
    """The SHA-256 that was recorded when the file was fetched; None if none was."""
    try:
        text = _record(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    digits = re.match(r"[0-9a-fA-F]{64}\b", text)
    return digits[0].lower() if digits else None


def checked_sha256(path: Path, known: str = "") -> str:
    """SHA-256 of a file, which must be the recorded one, where one is, and begin with the `known` digits.

    Raises WeightsError if it is neither.
    """
    digest = file_sha256(path)
    recorded = recorded_sha256(path)
    if recorded is not None and recorded != digest:
        raise WeightsError(
            f"{path}: the file has changed since it was fetched: its sha256 is {digest}, {_record(path).name} says "
            f"{recorded}. Delete both and fetch it again, or the latter alone if you changed the file on purpose"
        )
    if not digest.startswith(known):
        raise WeightsError(
            f"{path}: {path.stat().st_size:,} bytes with the sha256 {digest}; the published file's begins with "
            f"{known}. The file is damaged or another one; delete it and fetch it again"
        )
    return digest


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
