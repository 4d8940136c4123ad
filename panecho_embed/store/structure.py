"""Whether an HDF5 file is built as an embedding file is, looked at before anything in it is read.

An embedding file may come from anybody. HDF5 can hold links into other files, data sets whose bytes lie in another
file, filters that load code, and shapes that no memory holds; none of these has a place in an embedding file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from panecho_embed.store.heaps import ENTRY, check_heaps, heaps_of_attributes
from panecho_embed.store.layout import FACT_TYPES, FAILURE_COLUMNS, FORMAT, ID_COLUMNS, ROW_TYPES, SCHEMA_VERSION

Kind = Literal["i", "f", "text", "label"]

_COLUMNS: dict[str, dict[str, Kind]] = {
    "rows": {name: "f" if dtype.kind == "f" else "i" for name, dtype in ROW_TYPES.items()},
    "videos": {**dict.fromkeys(ID_COLUMNS, "text"), **FACT_TYPES},
    "failures": dict.fromkeys(FAILURE_COLUMNS, "text"),
}
_TEXT_ATTRIBUTES = ("level", "provenance", "fingerprint", "created_utc")

_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_MOST_CHUNK_BYTES = 64 * 1024 * 1024
_MOST_DEFLATED = 1032
"""How many times its size a deflated byte can unfold to (RFC 1951)."""


def problems_of_structure(file: h5py.File, path: Path) -> list[str]:
    """What keeps an open file, which lies at `path`, from being read as an embedding file, one sentence each.

    Nothing is read but headers. Raises what h5py raises where not even those can be read.
    """
    check_heaps(path, heaps_of_attributes(path, h5py.h5o.get_info(file.id).addr))
    attributes = attributes_of(file)
    if attributes.get("format") != FORMAT:
        return [f"an HDF5 file, but no {FORMAT} file (format: {attributes.get('format')!r})"]
    if attributes.get("schema_version") != SCHEMA_VERSION:
        version = attributes.get("schema_version")
        return [f"schema version {version}; this release reads version {SCHEMA_VERSION}"]
    problems = [f"its attribute {name} is no text" for name in _TEXT_ATTRIBUTES if not _is_text(attributes.get(name))]
    missing = [name for name, _ in _expected() if name not in file] + [n for n in ("labels",) if n not in file]
    if missing:
        return [*problems, f"not whole, {', '.join(missing)} missing"]
    return problems or list(_problems_of_tables(file, path))


def attributes_of(file: h5py.File) -> Mapping[str, Any]:
    """The attributes of the root that are whole numbers or texts."""
    found: dict[str, Any] = {}
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        # The library crashes on some other types when it reads them.
        kind = attribute.get_type()
        text = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
        if attribute.shape == () and (text or isinstance(kind, h5py.h5t.TypeIntegerID)):
            value = file.attrs[name]
            found[name] = int(value) if isinstance(value, np.integer) else value
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def _expected() -> Iterator[tuple[str, Kind]]:
    yield "embeddings", "f"
    for table, columns in _COLUMNS.items():
        for name, kind in columns.items():
            yield f"{table}/{name}", kind


def _problems_of_tables(file: h5py.File, path: Path) -> Iterator[str]:
    for table in (*_COLUMNS, "labels"):
        if not _is_own(file, table, h5py.Group):
            yield f"/{table} is no table of this file"
            return
    lengths: dict[str, int] = {}
    labels: list[tuple[str, Kind]] = [(f"labels/{name}", "label") for name in file["labels"]]
    for place, kind in (*_expected(), *labels):
        table, _, name = place.rpartition("/")
        if not _is_own(file[table] if table else file, name, h5py.Dataset):
            yield f"/{place} is no data set of this file"
            continue
        dataset = file[place]
        if problem := _problem_of_dataset(dataset, kind, 2 if place == "embeddings" else 1, path):
            yield f"/{place} {problem}"
            continue
        length = len(dataset)
        expected = lengths.setdefault({"embeddings": "rows", "labels": "videos"}.get(table or name, table), length)
        if length != expected:
            yield f"/{place} has {length} entries, not {expected}"


def _is_own(group: h5py.Group, name: str, kind: type) -> bool:
    """Whether a name leads to a thing of that kind in the same file, and not through a link elsewhere."""
    return group.get(name, getlink=True, getclass=True) is h5py.HardLink and group.get(name, getclass=True) is kind


def _problem_of_dataset(dataset: h5py.Dataset, kind: Kind, dimensions: int, path: Path) -> str:
    """What is wrong with a data set of the file at `path`, "" for nothing."""
    if dataset.is_virtual or dataset.external:
        return "keeps its values in another file"
    if dataset.shape is None or len(dataset.shape) != dimensions or not all(dataset.shape[1:]):
        return f"has shape {dataset.shape}"
    if not _is_of_kind(dataset, kind):
        return f"holds {dataset.dtype}"
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if unknown := filters - _FILTERS:
        return f"is packed with filters that embedding files don't use ({sorted(unknown)})"
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > _MOST_CHUNK_BYTES:
        return f"has chunks of {dataset.chunks}"
    stored, file_bytes = dataset.id.get_storage_size(), path.stat().st_size
    claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
    most = stored * _MOST_DEFLATED if h5py.h5z.FILTER_DEFLATE in filters else stored
    if claimed > most or stored > file_bytes:
        return f"claims {claimed} bytes, of which the file holds {min(stored, file_bytes)}"
    if h5py.check_string_dtype(dataset.dtype) is not None:
        count = int(text_entries(dataset, path)["length"].sum(dtype=np.int64))
        # Several can point to one text, so that a little unfolds to more than any memory holds.
        if count > file_bytes:
            return f"claims {count} bytes of text, the whole file has {file_bytes}"
    return ""


def _is_of_kind(dataset: h5py.Dataset, kind: Kind) -> bool:
    text = h5py.check_string_dtype(dataset.dtype)
    if text is not None:
        # Other layouts than the writer's would hide how much text there is.
        return kind in ("text", "label") and text.length is None and dataset.chunks is None
    return bool(dataset.dtype.kind == ("f" if kind == "label" else kind) and dataset.dtype.itemsize <= 8)


def text_entries(dataset: h5py.Dataset, path: Path) -> npt.NDArray[Any]:
    """Where the texts of a column stand in the file at `path`, by their entries alone: (N,) of `ENTRY`."""
    if not len(dataset):
        return np.zeros(0, ENTRY)
    offset = dataset.id.get_offset()
    if offset is None or dataset.id.get_storage_size() != ENTRY.itemsize * len(dataset):
        raise ValueError(f"{dataset.name} is not stored in one piece")
    return np.fromfile(path, dtype=ENTRY, count=len(dataset), offset=offset)


def check_texts(dataset: h5py.Dataset, path: Path) -> None:
    """Raise ValueError where reading a column of texts would not come to an end; numbers always do."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        check_heaps(path, text_entries(dataset, path)["heap"])
