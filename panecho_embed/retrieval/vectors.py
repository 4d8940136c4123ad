"""Query vectors from a file: an array of numpy, or another embedding file of the same making."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from panecho_embed.core.arraytypes import DAMAGED_HEADER
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError
from panecho_embed.core.records import EmbeddingTable, PoolBy, PoolHow
from panecho_embed.extraction.pooling import pool_table, pooling_steps
from panecho_embed.retrieval.collection import Collection
from panecho_embed.retrieval.find import Query, vector_query
from panecho_embed.retrieval.recognition import one_study, recognised
from panecho_embed.store import EmbeddingFile

# How a vector was pooled or stored does not make it another model's.
_MAY_DIFFER = ("level", "pooling", "dtype", "dim", "precision")


def read_query(collection: Collection, path: str | Path, study: str | None = None) -> Query:
    """The vectors of a file as a query: .npy with (D,) or (Q, D) numbers, or an embedding file, one vector per video.

    An embedding file is pooled as the collection is. study: the query, where it holds several.
    Videos and patients of an embedding file that the collection has, too, are recognised, see `recognised`.
    Raises ArgumentError for anything else and for several studies, and SettingsMismatchError for an embedding file of
    another model, other preprocessing or another pooling, naming what differs.
    """
    source = Path(path)
    if source.suffix.lower() != ".npy":
        return _from_embeddings(collection, source, study)
    if study is not None:
        raise ArgumentError(f"{source} is an array, which names no studies; leave --query-study out")
    try:
        vectors = np.load(source, allow_pickle=False)
    except (OSError, EOFError, *DAMAGED_HEADER) as error:
        raise ArgumentError(f"{source} can't be read as an array of numbers: {error} (--vector)") from error
    return vector_query(collection, vectors, str(source))


def _from_embeddings(collection: Collection, source: Path, study: str | None) -> Query:
    file = Collection(source).file
    mine = collection.provenance
    differences = [d for d in mine.differences(file.provenance) if d.partition(":")[0] not in _MAY_DIFFER]
    if differences:
        raise SettingsMismatchError(
            f"{source} was made in another way than {collection.path}, so that vectors can't be compared: "
            + "; ".join(differences)
        )
    table = _pooled_alike(collection, file)
    kept = one_study(str(source), [str(name) for name in table.study_id], study)
    views = [str(view) for view in table.view[kept]]
    query = vector_query(collection, table.values[kept], str(source), views)
    columns, studies = file.video_columns, set(table.study_id[kept])
    videos = set(table.video_id[kept]) if table.level == "video" else None
    there = [
        i
        for i, (name, whose) in enumerate(zip(columns["video_id"], columns["study_id"], strict=True))
        if whose in studies and (videos is None or name in videos)
    ]
    return recognised(
        collection,
        query,
        video_ids=columns["video_id"][there],
        patient_ids=columns["patient_id"][there],
        sha256s=columns["sha256"][there],
    )


def _pooled_alike(collection: Collection, file: EmbeddingFile) -> EmbeddingTable:
    """The rows of a file, pooled on as those of the collection were. Raises SettingsMismatchError."""
    mine, theirs = pooling_steps(collection.provenance), pooling_steps(file.provenance)
    # What is not pooled yet is pooled by the mean when it is searched.
    by_default: list[tuple[PoolHow, PoolBy]] = [
        ("mean", by) for by in get_args(PoolBy) if by not in dict(map(_turned, mine))
    ]
    if theirs != [*mine, *by_default][: len(theirs)]:
        raise SettingsMismatchError(
            f"{file.path} is pooled by {_said(theirs)}, {collection.path} by {_said(mine)}, so that vectors can't be "
            "compared; give the file that it was pooled from, or pool it alike (pool --how)"
        )
    table = file.table()
    for how, by in mine[len(theirs) :]:
        table = pool_table(table, by, how)
    return pool_table(table, "video") if table.level in ("frame", "clip") else table


def _turned(step: tuple[PoolHow, PoolBy]) -> tuple[PoolBy, PoolHow]:
    return step[1], step[0]


def _said(steps: Sequence[tuple[PoolHow, PoolBy]]) -> str:
    return ", ".join(f"{how} by {by}" for how, by in steps) or "mean by video"
