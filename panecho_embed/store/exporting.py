"""Embeddings for other tools: Parquet, a NumPy archive, AnnData, or a folder as Hugging Face data sets are."""

from __future__ import annotations

import importlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from panecho_embed._version import __version__
from panecho_embed.core.errors import ArgumentError, NotInstalledError, StoreError
from panecho_embed.core.outputs import (
    kind_of_run,
    refuse_to_replace,
    refuse_to_replace_run,
    written_run,
    written_whole,
)
from panecho_embed.core.tasks import all_tasks
from panecho_embed.store.read import EmbeddingFile

EMBEDDING = "embedding"
"""Column of the vectors in a table."""

MADE = "export.json"
"""File of an exported folder that says what the embeddings are."""

CARD, DATA = "README.md", "data"
"""The card, and the folder of the tables, of an exported folder."""

_ROWS = 16_384
_UNITS = {"fps": "1/s", "first_frame": "frame", "frame_step": "frame", "frames_per_clip": "frame"}
_Columns = Mapping[str, npt.NDArray[Any]]


def export(emb: str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the embeddings of a file in the form of another tool, whole or not at all.

    Every row keeps its ids as they are in the file, its view and split, the columns of its clip and the labels of its
    video. Units and provenance are written with them. Paths of videos are not.

    Parameters
    ----------
    emb : str or Path
        Embedding file.
    out : str or Path
        What to write; its extension chooses the form: `.parquet` (a column `embedding`; needs pyarrow), `.npz` (arrays
        `embedding`, (N, D), and one per column), `.h5ad` (AnnData, the embeddings in `X`), or none for
        a folder that `datasets.load_dataset` reads (one Parquet file per split and a card; needs pyarrow).
    overwrite : bool
        Replace an existing file, or the folder of an earlier export. Default: raise an error.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ArgumentError
        For another extension, a column that is called `embedding`, and splits of which two make the same file name.
    NotInstalledError
        If the form needs a package that is not installed; the message names the extra.
    StoreError
        If `emb` can't be read, `out` exists or can't be written, or is a folder that holds another README.md or `data`.
    """
    target = Path(out)
    if target.suffix not in _WRITERS:
        allowed = ", ".join(filter(None, _WRITERS))
        raise ArgumentError(f"{target}: no form is called {target.suffix!r}; allowed are {allowed}, and a folder (-o)")
    if target.suffix:
        refuse_to_replace(target, overwrite, emb)
    else:
        refuse_to_replace_run(target, overwrite, "export")
        _refuse_to_replace_files(target)
    with EmbeddingFile(emb) as file:
        columns = {str(name): column.to_numpy() for name, column in file.rows.items() if name != "path"}
        if EMBEDDING in columns:
            raise ArgumentError(f"{emb} has a label called {EMBEDDING!r}, the name of the vectors' own column")
        _WRITERS[target.suffix](file, columns, target)
    return target


def made_of(file: EmbeddingFile, columns: _Columns) -> dict[str, str]:
    """What the exported embeddings are, as texts by name.

    format, version: of this package. level: of the rows. units: JSON, column -> unit, where known. settings_id: of the
    settings. provenance: JSON, see `Provenance`. created_utc: when the embedding file was made.
    """
    known = {task.name: task.unit for task in all_tasks() if task.unit}
    return {
        "format": "panecho-embed export",
        "version": __version__,
        "level": file.level,
        "created_utc": file.created_utc,
        "settings_id": file.settings_id,
        "units": json.dumps({name: unit for name, unit in (_UNITS | known | file.units).items() if name in columns}),
        "provenance": file.provenance.to_json(),
    }


def _refuse_to_replace_files(folder: Path) -> None:
    """Raise StoreError for a folder that is no export and holds what an export writes: a card, or a folder `data`."""
    if kind_of_run(folder):
        return
    if there := [name for name in (CARD, DATA) if os.path.lexists(folder / name)]:
        raise StoreError(f"{folder} is no export and holds {there[0]}, which would be lost; take another folder (-o)")


def _blocks(file: EmbeddingFile) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    for start in range(0, len(file), _ROWS):
        rows = slice(start, min(start + _ROWS, len(file)))
        yield rows, file.read(rows.start, rows.stop)


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise NotInstalledError("pyarrow", "export") from error


def _readable(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Texts that other tools take: bytes of a name that is no UTF-8 are shown as escapes."""
    texts = [str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for text in column]
    return np.array(texts, dtype=object)


def _write_npz(file: EmbeddingFile, columns: _Columns, target: Path) -> None:
    """As `numpy.savez`, without pickle, a block of rows at a time."""
    arrays = {name: column.astype(str) if column.dtype == object else column for name, column in columns.items()}
    arrays |= {f"made/{name}": np.array(text) for name, text in made_of(file, columns).items()}
    size = len(file) * file.dim * file.dtype.itemsize + sum(array.nbytes for array in arrays.values())
    with written_whole(target, size=size) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(f"{EMBEDDING}.npy", "w", force_zip64=True) as stream:
            header = {"descr": file.dtype.str, "fortran_order": False, "shape": (len(file), file.dim)}
            npy_format.write_array_header_1_0(stream, header)
            for _, values in _blocks(file):
                stream.write(np.ascontiguousarray(values).data.cast("B"))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy_format.write_array(stream, array, allow_pickle=False)


def _write_parquet(file: EmbeddingFile, columns: _Columns, target: Path) -> None:
    with written_whole(target, size=len(file) * file.dim * file.dtype.itemsize) as temporary:
        _write_tables(file, columns, {temporary: np.ones(len(file), dtype=np.bool_)})


def _write_tables(file: EmbeddingFile, columns: _Columns, tables: Mapping[Path, npt.NDArray[np.bool_]]) -> None:
    """Parquet tables of the rows that each mask (N,) picks; the embeddings are read once."""
    pa, pq = _pyarrow()
    fields = [(name, pa.string() if c.dtype == object else pa.from_numpy_dtype(c.dtype)) for name, c in columns.items()]
    vectors = pa.list_(pa.from_numpy_dtype(file.dtype), file.dim)
    schema = pa.schema([*fields, (EMBEDDING, vectors)], made_of(file, columns))
    texts = {name: _readable(column) for name, column in columns.items() if column.dtype == object}
    writers = {path: pq.ParquetWriter(path, schema) for path in tables}
    try:
        for rows, values in _blocks(file):
            for path, mask in tables.items():
                some = mask[rows]
                arrays = [pa.array(texts.get(name, column)[rows][some], type=kind, from_pandas=column.dtype.kind == "f")
                          for (name, kind), column in zip(fields, columns.values(), strict=True)]  # fmt: skip
                flat = pa.array(np.ascontiguousarray(values[some]).reshape(-1))
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, file.dim))
                writers[path].write_table(pa.table(arrays, schema=schema))
    finally:
        for writer in writers.values():
            writer.close()


def _write_h5ad(file: EmbeddingFile, columns: _Columns, target: Path) -> None:
    """AnnData's on-disk format, by h5py: https://anndata.readthedocs.io/en/stable/fileformat-prose.html."""
    if bad := [name for name in columns if "/" in name or name == "_index"]:
        raise ArgumentError(f"AnnData takes no columns called {', '.join(map(repr, bad))}; export to .parquet or .npz")
    size = len(file) * file.dim * file.dtype.itemsize
    with written_whole(target, size=size) as temporary, h5py.File(temporary, "w") as root:
        _encoded(root, "anndata")
        vectors = root.create_dataset("X", (len(file), file.dim), file.dtype)
        _encoded(vectors, "array", "0.2.0")
        for rows, values in _blocks(file):
            vectors[rows] = values
        _write_frame(root.create_group("obs"), np.arange(len(file)).astype(str), columns)
        _write_frame(root.create_group("var"), np.array([f"e{i}" for i in range(file.dim)]), {})
        for name in ("layers", "obsm", "obsp", "varm", "varp", "uns", "uns/panecho_embed"):
            _encoded(root.create_group(name), "dict")
        for name, text in made_of(file, columns).items():
            root[f"uns/panecho_embed/{name}"] = text
            _encoded(root[f"uns/panecho_embed/{name}"], "string", "0.2.0")


def _write_frame(group: Any, index: npt.NDArray[Any], columns: _Columns) -> None:
    _encoded(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs["column-order"] = np.array(list(columns), dtype=h5py.string_dtype())
    for name, column in {"_index": index.astype(object), **columns}.items():
        if column.dtype == object:
            group.create_dataset(name, data=_readable(column), dtype=h5py.string_dtype())
        else:
            group.create_dataset(name, data=column)
        _encoded(group[name], "string-array" if column.dtype == object else "array", "0.2.0")


def _encoded(item: Any, kind: str, version: str = "0.1.0") -> None:
    item.attrs.update({"encoding-type": kind, "encoding-version": version})


def _write_folder(file: EmbeddingFile, columns: _Columns, target: Path) -> None:
    splits = columns["split"].astype(str)
    words = {split: _split_word(split) for split in sorted(set(splits))}
    if len(set(words.values())) < len(words):
        raise ArgumentError(f"{file.path}: two of the splits {', '.join(map(repr, words))} make the same file name")
    made = made_of(file, columns)
    with written_run(target) as folder:
        (folder / DATA).mkdir()
        _write_tables(
            file, columns, {folder / f"{DATA}/{word}.parquet": splits == name for name, word in words.items()}
        )
        (folder / CARD).write_text(_card(file, columns, words), encoding="utf-8")
        documents = {name: json.loads(text) if name in ("units", "provenance") else text for name, text in made.items()}
        (folder / MADE).write_text(json.dumps(documents, indent=2) + "\n", encoding="utf-8")


def _split_word(split: str) -> str:
    """A split's name as `datasets` takes it: a word, and not "all", which means the union there."""
    word = re.sub(r"\W", "_", split) or "unsplit"
    return "all_" if word == "all" else word


def _card(file: EmbeddingFile, columns: _Columns, words: Mapping[str, str]) -> str:
    """The data set's card: what `load_dataset` reads of it, and what a person wants to know."""
    made, provenance = made_of(file, columns), file.provenance
    units = json.loads(made["units"])
    head = ["---", "configs:", "- config_name: default", "  data_files:"]
    for word in words.values():
        head += [f"  - split: {word}", f"    path: {DATA}/{word}.parquet"]
    patients = len(set(columns["patient_id"]))
    listed = [f"| `{name}` | {column.dtype if column.dtype != object else 'text'} | {units.get(name, '')} |"
              for name, column in columns.items()]  # fmt: skip
    return "\n".join([
        *head, "---", "",
        f"# Embeddings of echocardiograms by {provenance.backbone}", "",
        f"{len(file)} {file.level} embeddings of {file.dim} numbers ({file.dtype}), of {patients} patients.", "",
        f"- Weights: {provenance.weights.source} (licence: {provenance.weights.licence or 'not known'}), "
        f"SHA-256 {provenance.weights.sha256}",
        f"- Settings id: {file.settings_id}; everything is in `{MADE}`",
        f"- Made on {file.created_utc} (UTC), exported by panecho-embed {__version__}",
        "- Splits are those of the embedding file; rows without one are in `unsplit`.", "",
        "The licence of the recordings, and whether embeddings of them may be shared, is not known to the embedding "
        "file: state both here before you publish the folder.", "",
        "| column | type | unit |", "| --- | --- | --- |", *listed,
        f"| `{EMBEDDING}` | {file.dim} x {file.dtype} | |", "",
    ])  # fmt: skip


_WRITERS = {".parquet": _write_parquet, ".npz": _write_npz, ".h5ad": _write_h5ad, "": _write_folder}
