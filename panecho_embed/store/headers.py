"""The HDF5 headers around data that lie in one piece each, made in memory.

HDF5 never writes to the disk here: it crashes when it closes a file that the disk has no room for.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import h5py
import numpy as np

from panecho_embed.store.contents import Place

_PAGE = 4096


def make_headers(
    attributes: Mapping[str, str | int], shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
) -> tuple[dict[str, Place], int, Callable[[int, int], bytes]]:
    """Lay out an HDF5 file.

    Parameters
    ----------
    attributes
        Of the root.
    shapes
        Type and shape of every data set by its path; the first lies first.

    Returns
    -------
    places, size, headers
        Where HDF5 will look for every data set; bytes of the file; and a function of two places that returns the bytes
        from the one to the other, where no data set lies.
    """
    image = _Image()
    with h5py.File(image, "w") as file:
        places = {name: _allocated(file, name, *form) for name, form in shapes.items()}
        for group in ("rows", "videos", "labels", "failures"):
            file.require_group(group)
        file.attrs.update(attributes)

    def headers(start: int, end: int) -> bytes:
        image.seek(start)
        return image.read(end - start)

    return places, image.end, headers


@cache
def place_of_rows() -> int:
    """The byte at which the first data set begins, whatever its shape and whatever comes behind it."""
    places, _, _ = make_headers({}, {"embeddings": (np.dtype("<f4"), (1, 1))})
    return places["embeddings"].at


def _allocated(file: h5py.File, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Place:
    """Add a data set whose bytes have their place at once, and are not written."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    link.set_create_intermediate_group(True)
    link.set_char_encoding(h5py.h5t.CSET_UTF8)
    stored = h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype
    kind, space = h5py.h5t.py_create(stored, logical=True), h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, creation, link)
    return Place(dataset.get_offset() or 0, dtype, shape)


class _Image(io.RawIOBase):
    """A file in memory of which only the pages that were written take any. end: its size in bytes."""

    def __init__(self) -> None:
        self.end = 0
        self._at = 0
        self._pages: dict[int, bytearray] = {}

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, first, part in self._parts(view):
            self._pages.setdefault(page, bytearray(_PAGE))[first : first + len(part)] = part
        self._at += len(view)
        self.end = max(self.end, self._at)
        return len(view)

    def readinto(self, into: Any) -> int:
        view = memoryview(into).cast("B")
        for page, first, part in self._parts(view):
            part[:] = self._pages.get(page, bytearray(_PAGE))[first : first + len(part)]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self.end = self._at if size is None else size
        return self.end

    def _parts(self, view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """A view from the current place on, cut at the pages: number of the page, place in it, part of the view."""
        done = 0
        while done < len(view):
            page, first = divmod(self._at + done, _PAGE)
            count = min(_PAGE - first, len(view) - done)
            yield page, first, view[done : done + count]
            done += count
