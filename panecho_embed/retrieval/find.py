"""The nearest videos or studies to a study, a video, a vector or a new file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Bools, FloatArray, Floats32, Ints, Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import counted
from panecho_embed.retrieval.collection import Collection, Items, SearchLevel
from panecho_embed.retrieval.filters import matches
from panecho_embed.retrieval.similarity import (
    Measure,
    NothingToCompareError,
    best_match,
    closest,
    mean_similarity,
    pointing,
    query_unit,
    top,
    view_similarity,
)

if TYPE_CHECKING:
    import pandas as pd

    from panecho_embed.retrieval.index import VideoIndex


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is looked for: a bag of one or more videos.

    units: (Q, D) float32, rows of length 1. views: (Q,), "" where not known. level: what is natural to look for.
    patients, studies, videos: whose it is and what it shows, their ids; () for something that is not in the file. note:
    what a person should know of it, or "".
    """

    label: str
    units: Floats32
    views: Texts
    level: SearchLevel
    patients: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search found, best first.

    positions: (n,) in `items`. similarity: (n,), -1 to 1. candidates: how many items were compared; n is below the k
    that was asked for when there are fewer. found_by: the kind of index that proposed them, which can miss some,
    or "exact". note: what a person should know besides, or "".
    """

    query: Query
    items: Items
    positions: Ints
    similarity: Floats32
    candidates: int
    note: str = ""
    found_by: str = "exact"

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
    """A study of the file, its videos of zeros left out.

    Raises ArgumentError, with the nearest ids, if there is none, and NothingToCompareError if it holds only zeros.
    """
    position = collection.position("study", study_id)
    studies = collection.studies
    if not collection.has_videos:
        units, views = studies.units[[position]], studies.columns["view"][[position]]
    else:
        members = collection.groups.members(position)
        units, views = collection.videos.units[members], collection.videos.columns["view"][members]
    label = f"study {study_id}"
    units, views, note = _without_zeros(units, views, label)
    return Query(label, units, views, "study", (str(studies.patients[position]),), (study_id,), note=note)


def video_query(collection: Collection, video_id: str) -> Query:
    """A video of the file.

    Raises ArgumentError, with the nearest ids, if there is none, and NothingToCompareError if it is zeros.
    """
    videos = collection.videos
    position = collection.position("video", video_id)
    label = f"video {video_id}"
    units, views, _ = _without_zeros(videos.units[[position]], videos.columns["view"][[position]], label)
    patient, study = str(videos.patients[position]), str(videos.studies[position])
    return Query(label, units, views, "video", (patient,), (study,), (video_id,))


def vector_query(collection: Collection, vectors: FloatArray, label: str, views: Sequence[str] | None = None) -> Query:
    """Embeddings from elsewhere, (D,) for a video or (Q, D) for the videos of a study, those of zeros left out.

    Raises ArgumentError for what is not an embedding of this kind, and NothingToCompareError for only zeros.
    """
    units = query_unit(vectors, collection.dim, label)
    level: SearchLevel = "video" if len(units) == 1 else "study"
    known = np.array([""] * len(units) if views is None else list(views), dtype=object)
    units, known, note = _without_zeros(units, known, label)
    return Query(label, units, known, level, note=note)


def _without_zeros(units: Floats32, views: Texts, label: str) -> tuple[Floats32, Texts, str]:
    there = pointing(units)
    if there is None:
        return units, views, ""
    if not there.any():
        raise NothingToCompareError(f"{label} has an embedding of zeros, which is similar to nothing")
    note = f"left out of {label}: {int((~there).sum())} of {len(there)} videos, for their embeddings are zeros"
    return units[there], views[there], note


def search(
    collection: Collection,
    query: Query,
    k: int = 10,
    *,
    level: SearchLevel | None = None,
    similarity: Measure | None = None,
    where: str | None = None,
    include_same_patient: bool = False,
    index: VideoIndex | None = None,
) -> Found:
    """The k items nearest to a query, the query itself and its patient's other items left out.

    level: "video", "study" or "clip"; None: the query's own. similarity: how studies are compared, see `Measure`; None:
    by "mean". Videos are compared by the cosine with the nearest of the query's. where: a filter over the columns of
    videos, see `matches`; a study is a candidate if one of its videos is picked. include_same_patient: keep the
    patient's other items in. index: find videos with it; their similarity is exact all the same. Studies are found
    without it, for none may be missed: their likeness depends on videos that are far from the query, too.
    Fewer than k come back when there are fewer. Raises ArgumentError.
    """
    if k < 1:
        raise ArgumentError(f"k is {k}; it must be 1 or more (-k)")
    wanted = level or query.level
    measure = measure_of(wanted, similarity)
    items = collection.items(wanted)
    allowed = _allowed(collection, items, query, where, include_same_patient)
    candidates = int(np.count_nonzero(allowed))
    found_by = "exact"
    if index is not None and wanted == "video":
        found_by = index.kind
        near, likeness = index.nearest(query.units, k, allowed)
        best = top(likeness, k)
        positions, scores = near[best], likeness[best]
    else:
        all_scores = _scores(collection, query, wanted, measure)
        positions = top(all_scores, k, allowed)
        scores = all_scores[positions]
    note = ""
    if len(positions) < k:
        note = f"{len(positions)} instead of {k}: there are no more" + (" that match" if where else "")
        if wanted == "study" and measure == "view" and len(positions) < candidates:
            note = f"{counted(candidates - len(positions), 'study')} without a view in common with the query"
    note = "; ".join(filter(None, (query.note, note)))
    return Found(query, items, positions, np.asarray(scores, dtype=np.float32), candidates, note, found_by)


def measure_of(level: SearchLevel, similarity: Measure | None) -> Measure:
    """The measure of a level: what was asked for, else "mean". Raises ArgumentError for one that the level has not."""
    if similarity is None:
        return "mean"
    if similarity not in get_args(Measure):
        raise ArgumentError(f"similarity is {similarity!r}; allowed are {', '.join(get_args(Measure))} (--similarity)")
    if level != "study":
        raise ArgumentError(
            f"similarity {similarity!r} compares studies; {level}s are compared by their cosine: "
            "leave --similarity out, or take studies (--level study)"
        )
    return similarity


def _allowed(
    collection: Collection, items: Items, query: Query, where: str | None, include_same_patient: bool
) -> Bools:
    allowed = np.ones(len(items), dtype=np.bool_)
    if where:
        allowed &= filtered(collection, items, where)
    if query.patients and not include_same_patient:
        allowed[collection.members(items.level, "patient_id", query.patients)] = False
    # Itself: the study, or its videos if the query knows them.
    if query.videos and items.level != "study":
        allowed[collection.members(items.level, "video_id", query.videos)] = False
    elif query.studies:
        allowed[collection.members(items.level, "study_id", query.studies)] = False
    return allowed


def filtered(collection: Collection, items: Items, where: str) -> Bools:
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
        return mean_similarity(np.asarray(collection.studies.units), query.units)
    if not collection.has_videos:
        raise ArgumentError(f"{collection.path} stands at study level; it can be compared by --similarity mean alone")
    if similarity == "best":
        return best_match(collection.videos.units, collection.groups, query.units, collection.pointing)
    return view_similarity(collection.view_means, len(collection.studies), query.units, query.views)


def study_scores(collection: Collection, query: Query, similarity: Measure) -> Floats32:
    """Similarity of every study with the query, (S,), in the order of `collection.studies`."""
    return _scores(collection, query, "study", similarity)
