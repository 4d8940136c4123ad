"""Clip or frame -> video -> study: fewer, steadier rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.outputs import refuse_to_replace
from panecho_embed.core.provenance import Level, Provenance
from panecho_embed.core.records import EmbeddingTable, Failure, Manifest, PoolBy, PoolHow, VideoFacts, VideoRef
from panecho_embed.datasets import carry_over, local_path
from panecho_embed.store import EmbeddingFile, EmbeddingWriter, RowsOnDisk
from panecho_embed.store.layout import FACT_TYPES, common_type, fact_columns, missing

_ORDER: tuple[Level, ...] = ("frame", "clip", "video", "study")
_BLOCK_ROWS = 16_384


def pool_table(
    table: EmbeddingTable, by: PoolBy, how: PoolHow = "mean", rows: RowsOnDisk | None = None
) -> EmbeddingTable:
    """One row per video or study.

    A study's row is pooled over its videos, each video over its own rows first, so that a long video does not outvote
    a short one. how: "mean"; "mean+std", (N, 2 D), over the rows of the level below; "max". A study's label is its
    videos' common value; where numbers differ it is their mean, but missing for 0 and 1; where texts differ it is "".
    rows: the values, if they are not in the table.
    Raises ArgumentError when the table already is at that level or above.
    """
    if by not in get_args(PoolBy) or how not in get_args(PoolHow):
        raise ArgumentError(f"by={by!r}, how={how!r}; allowed are {get_args(PoolBy)} and {get_args(PoolHow)}")
    if _ORDER.index(table.level) >= _ORDER.index(by):
        raise ArgumentError(f"the embeddings stand at {table.level} level already; they can't be pooled by {by} (--by)")
    if by == "study" and table.level != "video":
        table, rows = pool_table(table, "video", "max" if how == "max" else "mean", rows), None
    ids = table.video_id if by == "video" else table.study_id
    group, first = _groups(ids.tolist())
    values = _folded(table.values if rows is None else rows, group, how)
    nowhere = np.zeros(len(first), dtype=np.int32)
    pooling = "; ".join(filter(None, (table.provenance.pooling, f"{how} by {by}")))
    return EmbeddingTable(
        values=values,
        video_id=ids[first],
        study_id=table.study_id[first],
        patient_id=table.patient_id[first],
        view=_agreed(table.view, group, len(first)),
        split=_agreed(table.split, group, len(first)),
        first_frame=nowhere,
        frame_step=nowhere.astype(np.float64),
        frames_per_clip=nowhere,
        labels={name: _agreed(column, group, len(first)) for name, column in table.labels.items()},
        level=by,
        units=table.units,
        provenance=replace(table.provenance, level=by, dim=values.shape[1], pooling=pooling),
    )


def pooling_steps(provenance: Provenance) -> list[tuple[PoolHow, PoolBy]]:
    """How the rows of a file were pooled, step by step, as (how, by)."""
    pairs = (step.partition(" by ") for step in provenance.pooling.split("; "))
    # What `reclip` says of rounded frames is no step.
    return [(cast(PoolHow, how), cast(PoolBy, by)) for how, _, by in pairs if how in get_args(PoolHow)]


def pool(source: str | Path, by: PoolBy, out: str | Path, how: PoolHow = "mean", *, overwrite: bool = False) -> Path:
    """Pool an embedding file to one row per video or study.

    Videos that failed stay listed. At study level /videos holds one entry per study, under its study_id; a study
    without a single good video is a separate failure. Facts of the recordings and unknown columns are kept where
    everything that is pooled has one value; otherwise they are missing.

    Parameters
    ----------
    source : str or Path
        Embedding file at a lower level.
    by : {"video", "study"}
        What a row becomes. A study is pooled over its videos, each video over its own rows first.
    out : str or Path
        Embedding file to write.
    how : {"mean", "mean+std", "max"}
        How rows are combined; "mean+std" doubles the length of an embedding.
    overwrite : bool
        Replace `out`.

    Returns
    -------
    Path
        The written file.

    Raises
    ------
    ArgumentError
        If the file is at that level already, or above.
    StoreError
        If `out` exists (unless `overwrite`) or is `source`, and if `source` is damaged.
    """
    refuse_to_replace(Path(out), overwrite, source)
    file = EmbeddingFile(source)
    pooled = pool_table(file.table_without_values(), by, how, file.rows_on_disk)
    manifest, facts, failures = (_videos if by == "video" else _studies)(file, pooled)
    video = file.raw_rows["video"]
    group, first = _groups((video if by == "video" else file.video_columns["study_id"][video]).tolist())
    others = {name: _common(column, group, first) for name, column in file.other_rows().items()}
    position = {video.video_id: i for i, video in enumerate(manifest.videos)}
    with EmbeddingWriter(out, pooled.provenance) as writer:
        where = np.array([position[name] for name in pooled.video_id], dtype=np.int64)
        # In blocks: the writer copies what it is given.
        for start in range(0, len(pooled), _BLOCK_ROWS):
            some = slice(start, start + _BLOCK_ROWS)
            columns = (pooled.first_frame[some], pooled.frame_step[some], pooled.frames_per_clip[some])
            more = {name: column[some] for name, column in others.items()}
            writer.add(where[some], pooled.values[some], *columns, **more)
        path = writer.finish(manifest, facts, failures)
    carry_over(file.path, local_path(path), file.video_columns["video_id"])
    return path


_Facts = Mapping[str, npt.NDArray[Any]]


def _videos(file: EmbeddingFile, _pooled: EmbeddingTable) -> tuple[Manifest, _Facts, list[Failure]]:
    return file.manifest(), file.read_facts(), file.failure_records()


def _studies(file: EmbeddingFile, pooled: EmbeddingTable) -> tuple[Manifest, _Facts, list[Failure]]:
    """The studies of a file in order of first appearance, those without a row as failures."""
    videos = file.manifest()
    group, first = _groups(file.video_columns["study_id"].tolist())
    row = {study_id: i for i, study_id in enumerate(pooled.study_id)}
    refs, facts, failures = [], [], []
    for study, position in enumerate(first):
        ref = videos.videos[position]
        i = row.get(ref.study_id)
        done = i is not None
        refs.append(
            VideoRef(
                ref.study_id,
                ref.study_id,
                ref.patient_id,
                path=f"study:{ref.study_id}",
                view=str(pooled.view[i]) if done else "",
                split=str(pooled.split[i]) if done else ref.split,
            )
        )
        facts.append(VideoFacts("done" if done else "failed"))
        if not done:
            count = int((group == study).sum())
            message = f"none of the {count} videos of this study gave an embedding"
            failures.append(Failure(ref.study_id, f"study:{ref.study_id}", "pool", message))
    labels = {name: _agreed(column, group, len(first)) for name, column in videos.labels.items()}
    others = {name: column for name, column in file.read_facts().items() if name not in FACT_TYPES}
    columns = fact_columns(facts) | {name: _common(column, group, first) for name, column in others.items()}
    return Manifest(tuple(refs), labels, units=videos.units), columns, failures


def _groups(ids: Sequence[Hashable]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Group number of every row, in order of first appearance, and the first row of every group."""
    number: dict[Hashable, int] = {}
    group = np.fromiter((number.setdefault(name, len(number)) for name in ids), dtype=np.intp, count=len(ids))
    _, first = np.unique(group, return_index=True)
    return group, first


def _folded(rows: FloatArray | RowsOnDisk, group: npt.NDArray[np.intp], how: PoolHow) -> FloatArray:
    """The rows of each group as one, float32, in blocks of whole groups; every group from 0 up has a row."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    ends = np.cumsum(sizes)
    folded = np.empty((len(sizes), rows.shape[1] * (2 if how == "mean+std" else 1)), dtype=np.float32)
    start = 0
    while start < len(sizes):
        before = ends[start] - sizes[start]
        stop = max(int(np.searchsorted(ends, before + _BLOCK_ROWS, side="right")), start + 1)
        block = np.asarray(rows[order[before : ends[stop - 1]]], dtype=np.float32)
        folded[start:stop] = _FOLD[how](block, sizes[start:stop])
        start = stop
    return folded


def _mean(values: FloatArray, sizes: npt.NDArray[np.intp]) -> FloatArray:
    """Of the first sizes[0] rows, the next sizes[1] and so on."""
    total = np.add.reduceat(values, np.cumsum(sizes) - sizes, axis=0, dtype=np.float64)
    return np.asarray(total / sizes[:, None], dtype=np.float32)


def _mean_and_std(values: FloatArray, sizes: npt.NDArray[np.intp]) -> FloatArray:
    mean = _mean(values, sizes)
    return np.concatenate([mean, np.sqrt(_mean((values - np.repeat(mean, sizes, axis=0)) ** 2, sizes))], axis=1)


def _max(values: FloatArray, sizes: npt.NDArray[np.intp]) -> FloatArray:
    return np.asarray(np.maximum.reduceat(values, np.cumsum(sizes) - sizes, axis=0))


_FOLD: Mapping[PoolHow, Callable[[FloatArray, npt.NDArray[np.intp]], FloatArray]] = {
    "mean": _mean,
    "mean+std": _mean_and_std,
    "max": _max,
}


def _common(column: npt.NDArray[Any], group: npt.NDArray[np.intp], first: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """The value that all of a group share, and a missing one where they differ."""
    values, unlike = column[first], column != column[first][group]
    if column.dtype.kind == "f":
        unlike &= ~(np.isnan(column) & np.isnan(values[group]))
    differ = np.unique(group[unlike])
    values = values.astype(common_type([column.dtype], some_lack=len(differ) > 0))
    values[differ] = missing(1, values.dtype)
    return values


def _agreed(column: npt.NDArray[Any], group: npt.NDArray[np.intp], count: int) -> npt.NDArray[Any]:
    """One value a group: the mean of the numbers that are there, or the yes, no or text that all share."""
    if column.dtype.kind == "f":
        there = ~np.isnan(column)
        total = np.bincount(group[there], weights=column[there], minlength=count)
        number = np.bincount(group[there], minlength=count)
        mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
        # Half a yes is no label.
        return np.where(np.isin(mean, (0, 1)), mean, np.nan) if np.isin(column[there], (0, 1)).all() else mean
    agreed = np.empty(count, dtype=object)
    agreed[:] = None
    for where, text in zip(group, column, strict=True):
        if text:
            agreed[where] = text if agreed[where] in (None, text) else ""
    agreed[agreed == None] = ""  # noqa: E711 - element-wise
    return agreed
