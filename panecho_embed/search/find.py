"""The nearest videos or studies to a study, a video, a vector or a new file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.records import BoolArray, FloatArray
from panecho_embed.search.collection import Collection, Items, SearchLevel
from panecho_embed.search.filters import matches
from panecho_embed.search.similarity import (
    Floats32,
    Ints,
    Measure,
    best_match,
    closest,
    mean_similarity,
    query_unit,
    top,
    view_similarity,
)

if TYPE_CHECKING:
    import pandas as pd

    from panecho_embed.search.index import VideoIndex


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is looked for: a bag of one or more videos.

    units: (Q, D) float32, rows of length 1. views: (Q,), "" where not known. level: what is natural to look for.
    patient_id, study_id, video_id: whose it is, "" for something that is not in the file.
    """

    label: str
    units: Floats32
    views: npt.NDArray[np.object_]
    level: SearchLevel
    patient_id: str = ""
    study_id: str = ""
    video_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search found, best first.

    positions: (n,) in `items`. similarity: (n,), -1 to 1. candidates: how many items were compared; n is below the k
    that was asked for when there are not so many. note: what a person should know besides, or "".
    """

    query: Query
    items: Items
    positions: Ints
    similarity: Floats32
    candidates: int
    note: str = ""

    def __len__(self) -> int:
        return len(self.positions)

    def records(self) -> list[dict[str, Any]]:
        """One dict a hit: rank, similarity, ids and labels; None where a value is missing."""
        return [
            {"rank": rank, "similarity": round(float(similarity), 6), **record(self.items, position)}
            for rank, (position, similarity) in enumerate(zip(self.positions, self.similarity, strict=True), start=1)
        ]

    def table(self) -> pd.DataFrame:
        """One row a hit, as `records`."""
        import pandas as pd

        return pd.DataFrame(self.records(), columns=["rank", "similarity", *self.items.columns])


def record(items: Items, position: int) -> dict[str, Any]:
    """An item's columns as plain values; None where one is missing, whole numbers as int."""
    return {name: _plain(column[position]) for name, column in items.columns.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value or None
    number = float(value)
    return None if not math.isfinite(number) else int(number) if number.is_integer() else number


def study_query(collection: Collection, study_id: str) -> Query:
    """A study of the file. Raises ArgumentError, with the nearest ids, if there is none."""
    position = collection.position("study", study_id)
    studies = collection.studies
    if not collection.has_videos:
        units, views = studies.units[[position]], studies.columns["view"][[position]]
    else:
        members = collection.groups.members(position)
        units, views = collection.videos.units[members], collection.videos.columns["view"][members]
    label = f"study {study_id}"
    _refuse_zeros(units, label)
    return Query(label, units, views, "study", str(studies.patients[position]), study_id)


def video_query(collection: Collection, video_id: str) -> Query:
    """A video of the file. Raises ArgumentError, with the nearest ids, if there is none."""
    videos = collection.videos
    position = collection.position("video", video_id)
    units = videos.units[[position]]
    _refuse_zeros(units, f"video {video_id}")
    ids = {name: str(videos.columns[name][position]) for name in ("patient_id", "study_id", "video_id")}
    return Query(f"video {video_id}", units, videos.columns["view"][[position]], "video", **ids)


def vector_query(collection: Collection, vectors: FloatArray, label: str, views: Sequence[str] | None = None) -> Query:
    """Embeddings from elsewhere, (D,) for a video or (Q, D) for the videos of a study. Raises ArgumentError."""
    units = query_unit(vectors, collection.dim, label)
    known = np.array([""] * len(units) if views is None else list(views), dtype=object)
    return Query(label, units, known, "video" if len(units) == 1 else "study")


def _refuse_zeros(units: Floats32, label: str) -> None:
    if not units.any(axis=1).all():
        raise ArgumentError(f"{label} has an embedding of zeros, which is similar to nothing")


def search(
    collection: Collection,
    query: Query,
    k: int = 10,
    *,
    level: SearchLevel | None = None,
    similarity: Measure = "mean",
    where: str | None = None,
    include_same_patient: bool = False,
    index: VideoIndex | None = None,
) -> Found:
    """The k items nearest to a query, the query itself and its patient's other items left out.

    level: "video", "study" or "clip"; None: the query's own. similarity: how studies are compared, see `Measure`; for
    videos it is the cosine with the nearest of the query's videos. where: a filter over the columns of videos, see
    `matches`; a study is a candidate if one of its videos is picked. include_same_patient: keep the patient's other
    items in. index: find videos with it; their similarity is exact all the same. Studies are found without it, for none
    may be missed: their likeness depends on videos that are far from the query, too.
    Fewer than k come back when there are not so many. Raises ArgumentError.
    """
    if k < 1:
        raise ArgumentError(f"k is {k}; it must be 1 or more (-k)")
    if similarity not in get_args(Measure):
        raise ArgumentError(f"similarity is {similarity!r}; allowed are {', '.join(get_args(Measure))} (--similarity)")
    wanted = level or query.level
    items = collection.items(wanted)
    allowed = _allowed(collection, items, query, where, include_same_patient)
    candidates = int(allowed.sum())
    if index is not None and wanted == "video":
        positions, scores = _by_index(collection.videos, index, query, k, allowed)
    elif wanted == "study" and similarity != "mean" and collection.sketch is not None:
        positions, scores = collection.sketch.search(query.units, query.views, similarity, k, allowed)
    else:
        all_scores = _scores(collection, query, wanted, similarity)
        positions = top(all_scores, k, allowed)
        scores = all_scores[positions]
    note = ""
    if len(positions) < k:
        note = f"{len(positions)} instead of {k}: there are no more" + (" that match" if where else "")
        if wanted == "study" and similarity == "view" and len(positions) < candidates:
            note = f"{candidates - len(positions)} studies have no view in common with the query"
    return Found(query, items, positions, np.asarray(scores, dtype=np.float32), candidates, note)


def _allowed(
    collection: Collection, items: Items, query: Query, where: str | None, include_same_patient: bool
) -> BoolArray:
    allowed = np.ones(len(items), dtype=np.bool_)
    if where:
        allowed &= filtered(collection, items, where)
    if query.patient_id and not include_same_patient:
        allowed &= items.patients != query.patient_id
    # Itself: the study, or the video if the query is one.
    if query.video_id and items.level != "study":
        allowed &= items.columns["video_id"] != query.video_id
    elif query.study_id:
        allowed &= items.studies != query.study_id
    return allowed


def filtered(collection: Collection, items: Items, where: str) -> BoolArray:
    """Which items a filter picks, (N,); a study if one of its videos is picked, or it is by its own columns."""
    if items.level != "study" or not collection.has_videos:
        return matches(where, items.columns)
    videos = matches(where, _with_study_columns(collection))
    return np.bincount(collection.groups.codes, weights=videos, minlength=len(items)) > 0


def picked(collection: Collection, items: Items, where: str) -> Items:
    """The items that a filter picks, see `filtered`."""
    keep = filtered(collection, items, where)
    columns = {name: column[keep] for name, column in items.columns.items()}
    return Items(items.level, items.ids[keep], items.units[keep], columns)


def _with_study_columns(collection: Collection) -> dict[str, npt.NDArray[Any]]:
    count = collection.studies.columns["videos"][collection.groups.codes]
    return {**collection.videos.columns, "videos": count}


def _scores(collection: Collection, query: Query, level: SearchLevel, similarity: Measure) -> Floats32:
    """Similarity of every item of a level with the query, (N,)."""
    if level != "study":
        return closest(collection.items(level).units, query.units)
    if similarity == "mean":
        return mean_similarity(collection.studies.units, query.units)
    if not collection.has_videos:
        raise ArgumentError(f"{collection.path} stands at study level; it can be compared by --similarity mean alone")
    if similarity == "best":
        return best_match(collection.videos.units, collection.groups, query.units)
    return view_similarity(collection.view_means, len(collection.studies), query.units, query.views)


def study_scores(collection: Collection, query: Query, similarity: Measure) -> Floats32:
    """Similarity of every study with the query, (S,), in the order of `collection.studies`."""
    return _scores(collection, query, "study", similarity)


def _by_index(videos: Items, index: VideoIndex, query: Query, k: int, allowed: BoolArray) -> tuple[Ints, Floats32]:
    """Candidates from an index over videos, compared exactly."""
    near = index.nearest(query.units, k, allowed)
    scores = closest(np.asarray(videos.units[near]), query.units)
    best = top(scores, k)
    return near[best], scores[best]
