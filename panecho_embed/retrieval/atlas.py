"""The collection as a Parquet table that `embedding-atlas` opens: coordinates, neighbours, labels, thumbnails."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.core.errors import MediaError, NotInstalledError
from panecho_embed.core.outputs import refuse_to_replace, written_whole
from panecho_embed.core.progress import Progress, silent
from panecho_embed.retrieval.collection import Collection, Items
from panecho_embed.retrieval.pictures import still
from panecho_embed.retrieval.projection import Maps, Method, map_items
from panecho_embed.retrieval.similarity import cosines, top

NEIGHBOURS = 15
_BLOCK = 512
_THUMBNAIL_SIDE = 128
_DIGEST, _NO_DIGEST = "panecho_embed.sha256", "0" * 64


def write_atlas(
    collection: Collection,
    out: str | Path,
    *,
    method: Method = "umap",
    thumbnails: bool = True,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write one row a video (a study, of a study-level file) as Parquet.

    Columns: every id and label, x and y of the map, neighbors (a structure of ids, row numbers, and distances,
    1 - cosine; the 15 nearest, the form that `embedding-atlas --neighbors` reads), thumbnail (a data: address of a
    JPEG, the form that `--image` reads; null where the video has moved). progress: called with what is
    done, of how much, and of which step.
    Raises ArgumentError where pyarrow or umap-learn is not installed, StoreError if `out` is there already
    (unless `overwrite`), is the embedding file, or can't be written.
    """
    try:
        pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise NotInstalledError("pyarrow", "atlas") from error
    refuse_to_replace(Path(out), overwrite, collection.path)
    items = map_items(collection)
    progress(0, len(items), f"map ({method})")
    points = Maps(collection).points(method)
    columns: dict[str, Any] = {name: _plain(values) for name, values in items.columns.items()}
    near = pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float64())})
    columns |= {"x": points[:, 0], "y": points[:, 1], "neighbors": pa.array(_neighbours(items, progress), near)}
    if thumbnails and collection.has_videos:
        pictures = []
        for done, name in enumerate(items.ids, start=1):
            pictures.append(_thumbnail(collection, str(name)))
            progress(done, len(items), "thumbnails")
        columns["thumbnail"] = pa.array(pictures, pa.string())
    table = pa.table(columns)
    weights = collection.provenance.weights
    facts = {"panecho_embed.fingerprint": collection.file.fingerprint, "panecho_embed.weights": weights.source}
    with written_whole(Path(out), size=table.nbytes // 8) as temporary:
        # Without Arrow's own copy of the schema, which would hold the digest a second time.
        with pq.ParquetWriter(temporary, table.schema.remove_metadata(), store_schema=False) as writer:
            writer.write_table(table.replace_schema_metadata(None))
            writer.add_key_value_metadata(facts | {_DIGEST: _NO_DIGEST})
        _seal(temporary)
    return Path(out)


def atlas_problems(path: Path) -> list[str]:
    """What is wrong with a table that `write_atlas` wrote: its SHA-256 stands in it, and must be that of the rest."""
    content = path.read_bytes()
    found = re.search(_DIGEST.encode() + rb".{0,8}?([0-9a-f]{64})", content, re.DOTALL)
    if found is None:
        return [f"{path}: no SHA-256 is recorded in it: damaged, or not written by `panecho-embed atlas`"]
    rest = content[: found.start(1)] + _NO_DIGEST.encode() + content[found.end(1) :]
    if hashlib.sha256(rest).hexdigest() != found[1].decode():
        return [f"{path} is damaged, or was changed after it was written: its SHA-256 is another one"]
    return []


def _seal(path: Path) -> None:
    """Write the SHA-256 of a file into the place that was kept free for it."""
    content = path.read_bytes()
    place = content.rindex(_NO_DIGEST.encode())
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(hashlib.sha256(content).hexdigest().encode())


def _plain(values: Any) -> Any:
    if values.dtype.kind == "f":
        # A null, not NaN, is what other tools take for missing.
        return [float(value) if np.isfinite(value) else None for value in values]
    return [str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace") or None for value in values]


def _neighbours(items: Items, progress: Progress) -> list[dict[str, list[Any]]]:
    count, units = min(NEIGHBOURS, len(items) - 1), np.asarray(items.units)
    listed: list[dict[str, list[Any]]] = []
    for start in range(0, len(items), _BLOCK):
        progress(start, len(items), "neighbours")
        block = cosines(units[start : start + _BLOCK], units)
        for row, similarity in enumerate(block, start=start):
            similarity[row] = np.nan
            near = top(similarity, count)
            distances = [round(1 - float(similarity[i]), 6) for i in near]
            listed.append({"ids": near.tolist(), "distances": distances})
    return listed


def _thumbnail(collection: Collection, video_id: str) -> str | None:
    try:
        return still(collection, video_id, _THUMBNAIL_SIDE).data_uri
    except MediaError:
        return None
