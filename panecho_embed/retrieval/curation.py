"""Items that are too alike, and items that are like nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.progress import Progress, silent
from panecho_embed.retrieval.collection import Items
from panecho_embed.retrieval.find import record
from panecho_embed.retrieval.similarity import cosines, top

NEIGHBOURS = 5
"""An outlier is far from its five nearest: one twin does not make a pair of outliers ordinary."""

_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateGroup:
    """Items that hang together by pairs above a similarity.

    positions: (n,) in the items, n at least 2. lowest: the least similar pair that ties them. patients, splits: how
    many different ones; a group across patients or splits is a leak, or a wrong id.
    """

    positions: Ints
    lowest: float
    patients: int
    splits: int


def duplicates(items: Items, threshold: float, *, progress: Progress = silent) -> list[DuplicateGroup]:
    """Connected groups of items with a cosine of `threshold` or more, largest first. Raises ArgumentError.

    Clips of one video are no pair: they show the same heart beat by beat. progress: called with items done and in all.
    """
    if not -1 <= threshold <= 1:
        raise ArgumentError(f"threshold is {threshold}; a similarity lies between -1 and 1 (--duplicates)")
    units = np.asarray(items.units)
    there = np.asarray(units.any(axis=1))
    video = np.unique(items.columns["video_id"].astype(str), return_inverse=True)[1] if items.level == "clip" else None
    component = np.arange(len(items))
    lowest = np.ones(len(items), dtype=np.float32)
    for start in range(0, len(items), _BLOCK):
        progress(start, len(items))
        block = cosines(units[start : start + _BLOCK], units[start:])
        # Rounding leaves equal vectors a little below 1. An item and itself are no pair, nor are items of zeros.
        near = np.triu(block >= threshold - 1e-6, k=1)
        near &= there[start : start + _BLOCK, None] & there[start:]
        if video is not None:
            near &= video[start : start + _BLOCK, None] != video[start:]
        rows, columns = np.nonzero(near)
        if not len(rows):
            continue
        np.minimum.at(lowest, np.concatenate([rows, columns]) + start, np.tile(block[rows, columns], 2))
        ties = coo_array(
            (np.ones(len(rows), dtype=np.bool_), (component[rows + start], component[columns + start])),
            shape=(len(items), len(items)),
        )
        component = connected_components(ties, directed=False)[1][component]
    progress(len(items), len(items))
    order = np.argsort(component, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    groups = [
        DuplicateGroup(
            np.asarray(positions, dtype=np.int64),
            float(lowest[positions].min()),
            len(set(items.patients[positions])),
            len(set(items.columns["split"][positions])),
        )
        for positions in runs
        if len(positions) > 1
    ]
    return sorted(groups, key=lambda group: (-len(group.positions), int(group.positions[0])))


def outliers(
    items: Items, count: int, *, include_same_patient: bool = False, progress: Progress = silent
) -> list[dict[str, Any]]:
    """The `count` items farthest from their five nearest, farthest first, as records with `distance`.

    distance: 1 minus the mean cosine with the five nearest items of other patients (of any, with
    `include_same_patient`). progress: called with items done and in all.
    Raises ArgumentError where there are no others to compare with.
    """
    if count < 1:
        raise ArgumentError(f"outliers is {count}; it must be 1 or more (--outliers)")
    patients = np.unique(items.patients.astype(str), return_inverse=True)[1]
    if len(items) < 2 or (not include_same_patient and patients.max() == 0):
        raise ArgumentError("there are no items of other patients to compare with (--include-same-patient)")
    units = np.asarray(items.units)
    distance = np.empty(len(items), dtype=np.float32)
    for start in range(0, len(items), _BLOCK):
        progress(start, len(items))
        stop = min(start + _BLOCK, len(items))
        near = cosines(units[start:stop], units)
        rows = np.arange(start, stop)
        near[rows - start, rows] = -np.inf
        if not include_same_patient:
            near[patients[start:stop, None] == patients] = -np.inf
        best = -np.partition(-near, min(NEIGHBOURS, near.shape[1]) - 1, axis=1)[:, :NEIGHBOURS]
        distance[start:stop] = 1 - np.nanmean(np.where(np.isfinite(best), best, np.nan), axis=1)
    progress(len(items), len(items))
    picked = top(distance, count)
    return [
        {"rank": rank, "distance": round(float(distance[i]), 6), **record(items, int(i))}
        for rank, i in enumerate(picked, start=1)
    ]
