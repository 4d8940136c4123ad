"""Parquet tables that hold the SHA-256 of everything else in them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

DIGEST, NO_DIGEST = "panecho_embed.sha256", "0" * 64
"""Name of the entry in a table's metadata, and the value that keeps its place free until the table is written."""


def seal(path: Path) -> None:
    """Write the SHA-256 of a file into the place that was kept free for it."""
    content = path.read_bytes()
    place = content.rindex(NO_DIGEST.encode())
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(hashlib.sha256(content).hexdigest().encode())


def table_problems(path: Path) -> list[str]:
    """What is wrong with a sealed table: its SHA-256 must be that of the rest."""
    content = path.read_bytes()
    found = re.search(DIGEST.encode() + rb".{0,8}?([0-9a-f]{64})", content, re.DOTALL)
    if found is None:
        return [f"{path}: no SHA-256 is recorded in it: damaged, or not written by `panecho-embed atlas`"]
    rest = content[: found.start(1)] + NO_DIGEST.encode() + content[found.end(1) :]
    if hashlib.sha256(rest).hexdigest() != found[1].decode():
        return [f"{path} is damaged, or was changed after it was written: its SHA-256 is another one"]
    return []
