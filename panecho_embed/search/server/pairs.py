"""Which of a neighbour's videos are like which of the query's: what a person compares."""

from __future__ import annotations

import numpy as np

from panecho_embed.core.arraytypes import Ints
from panecho_embed.search.collection import Items
from panecho_embed.search.find import Query
from panecho_embed.search.similarity import cosines


def paired(videos: Items, rows: Ints, query: Query) -> tuple[Ints, list[float]]:
    """A study's videos in the order in which they are worth looking at, and each one's cosine with its like.

    rows: (n,) positions in `videos`, n > 0. Its like is the nearest of the query's videos, among those of the same view
    where view and query's views are known. First the best of every view that the query has too, then the second best,
    and so on; then in the same way what has no counterpart.
    """
    near = cosines(np.asarray(videos.units[rows]), query.units)
    views = videos.columns["view"][rows]
    same = (views[:, None] == query.views[None, :]) & (views != "")[:, None]
    has_like = same.any(axis=1)
    match = np.where(same | ~has_like[:, None], near, -np.inf).max(axis=1)
    place = np.empty(len(rows), dtype=np.int64)
    seen: dict[str, int] = {}
    for i in np.argsort(-match, kind="stable"):
        place[i] = seen.get(views[i], 0)
        seen[views[i]] = place[i] + 1
    order = np.lexsort((-match, place, ~has_like))
    return rows[order], [round(float(value), 6) for value in match[order]]
