"""The collection as a Parquet table that `embedding-atlas` opens: coordinates, neighbours, labels, thumbnails."""

from __future__ import annotations

import importlib
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
from panecho_embed.store.sealed_tables import DIGEST, NO_DIGEST, seal

NEIGHBOURS = 15
_BLOCK = 512
_THUMBNAIL_SIDE = 128


def write_atlas(
    emb: str | Path | Collection,
    out: str | Path,
    *,
    method: Method = "umap",
    thumbnails: bool = True,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write a table for embedding-atlas: ids, labels, a 2-D map, neighbours and thumbnails.

    Parameters
    ----------
    emb : str, Path or Collection
        Embedding file.
    out : str or Path
        Table to write (Parquet), one row per video (per study for a file at study level). Columns: every id and label,
        x and y of the map, neighbors (a structure of row numbers and distances, 1 - cosine, of the 15 nearest, the form
        that `embedding-atlas --neighbors` reads), thumbnail (a data: address of a JPEG, the form that `--image` reads;
        null where the video has moved).
    method : {"umap", "pca"}
        How the map is computed.
    thumbnails : bool
        Read the videos for pictures.
    overwrite : bool
        Replace `out`.
    progress : callable
        Called with what is done, of how much, and of which step.

    Returns
    -------
    Path
        The table.

    Raises
    ------
    ArgumentError
        Where pyarrow or umap-learn is not installed.
    StoreError
        If `out` exists (unless `overwrite`), is the embedding file, or can't be written.
    """
    try:
        pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise NotInstalledError("pyarrow", "atlas") from error
    collection = emb if isinstance(emb, Collection) else Collection(emb)
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
    facts = {"panecho_embed.settings_id": collection.file.settings_id, "panecho_embed.weights": weights.source}
    with written_whole(Path(out), size=table.nbytes // 8) as temporary:
        # Without Arrow's own copy of the schema, which would hold the digest a second time.
        with pq.ParquetWriter(temporary, table.schema.remove_metadata(), store_schema=False) as writer:
            writer.write_table(table.replace_schema_metadata(None))
            writer.add_key_value_metadata(facts | {DIGEST: NO_DIGEST})
        seal(temporary)
    return Path(out)


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
