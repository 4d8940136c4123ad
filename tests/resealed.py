"""Embedding files that were changed by somebody who knows how: with checksums that fit what is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.store.contents import Contents, SealedFile, checksums, combined, with_tail


def reseal(path: Path, key: str, change: Callable[[np.ndarray], object]) -> None:
    """Change the values of a data set in place, and the checksums with them."""
    file = SealedFile(path)
    contents = file.contents
    values = file.column(key)
    change(values)
    places = dict(contents.places)
    with path.open("r+b") as stream:
        stream.seek(places[key].at)
        stream.write(values.tobytes())
        sums = checksums(values)
        places[key] = replace(places[key], checksum=combined(sums))
        if key == "embeddings":
            table = np.array(sums, dtype="<u4")
            stream.seek(places["checksums"].at)
            stream.write(table.tobytes())
            places["checksums"] = replace(places["checksums"], checksum=combined(checksums(table)))
    write_contents(path, replace(contents, places=places))


def reseal_attributes(path: Path, **attributes: Any) -> None:
    """Change what the table of contents says of the attributes; None takes one away."""
    contents = SealedFile(path).contents
    changed = {name: value for name, value in (contents.attributes | attributes).items() if value is not None}
    write_contents(path, replace(contents, attributes=changed))


def write_contents(path: Path, contents: Contents) -> None:
    """Another table of contents."""
    _write_end(path, contents.size, contents.to_bytes())


def write_table(path: Path, table: bytes) -> None:
    """Any bytes as a table of contents, with a tail that fits them."""
    size = SealedFile(path).contents.size
    _write_end(path, size, with_tail(table, size))


def _write_end(path: Path, size: int, end: bytes) -> None:
    with path.open("r+b") as stream:
        stream.truncate(size)
        stream.seek(size)
        stream.write(end)
