"""How well retrieval works for a label: leave-one-out, with intervals over patients, and the rate of chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Bools, Floats, Floats32, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.patients import encoder_caution
from panecho_embed.core.progress import Progress, silent
from panecho_embed.core.records import Score
from panecho_embed.core.wording import nearest
from panecho_embed.evaluation.estimates import Draws
from panecho_embed.evaluation.inference import DEFAULT_DRAWS, scores
from panecho_embed.evaluation.metrics import Metrics
from panecho_embed.retrieval.collection import Collection, Items, SearchLevel
from panecho_embed.retrieval.find import measure_of, study_query, study_scores
from panecho_embed.retrieval.similarity import Measure, NothingToCompareError, cosines

LabelKind = Literal["class", "number"]
CLASS_METRICS = ("top1", "top5", "map", "ndcg")
NUMBER_METRICS = ("difference1", "difference5")

MAX_QUERIES = 5000
"""Queries of an evaluation; of a larger collection a seeded sample asks, all of it answers."""

_MAX_CLASSES = 10
_EQUAL = 1e-6
_BLOCK = 256
_BLOCK_VALUES = 2**25


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Leave-one-out retrieval quality for a label column.

    kind, why: as what the column was taken, and what made it that. "class": top1 and top5, the share of queries whose
    nearest item, or one of whose five nearest, has the same label; map, mean average precision, and ndcg, over the
    whole ranking. "number": difference1 and difference5, the mean absolute difference between a query and its nearest,
    or five nearest, in the column's unit. Candidates that are equally alike in six decimals share their places: what
    counts is the expectation over all their orders.
    scores: with 95 % intervals from bootstraps over the queries' patients. chance: what a random ranking would give.
    queries: how many were asked; left_out: items with a label that no other candidate shares, that can't be compared,
    or, for a sample of a large collection, that were not drawn. same_patient: whether items of the query's own patient
    were candidates. note: how many could not be compared, and why, or "".
    caution: that patients of queries trained the encoder, or may have; "" where none did.
    """

    column: str
    kind: LabelKind
    why: str
    level: SearchLevel
    similarity: Measure
    scores: Mapping[str, Score]
    chance: Mapping[str, float]
    queries: int
    left_out: int
    same_patient: bool
    note: str = ""
    caution: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain values: {"top1": {"value": ..., "low": ..., "high": ..., "chance": ...}, ...} and the settings."""
        metrics = {
            name: {"value": s.value, "low": s.low, "high": s.high, "chance": self.chance[name]}
            for name, s in self.scores.items()
        }
        settings = dataclasses.asdict(dataclasses.replace(self, scores={}, chance={}))
        patients = next(iter(self.scores.values())).n_patients
        return metrics | {k: v for k, v in settings.items() if k not in ("scores", "chance")} | {"patients": patients}


def evaluate(
    collection: Collection,
    column: str,
    *,
    level: SearchLevel = "video",
    similarity: Measure | None = None,
    kind: LabelKind | None = None,
    include_same_patient: bool = False,
    progress: Progress = silent,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> Retrieval:
    """Ask with every labelled item of a level in turn, and see how alike the labels of its neighbours are.

    A query's own video (study) is never a candidate, nor are other items of its patient, unless `include_same_patient`,
    which goes without saying for the columns patient_id and study_id. kind: what the column holds; None: classes where
    it holds texts, or at most ten different whole numbers. progress: called with queries done and in all. Items of
    zeros, and with `view` studies whose views are not known, are not asked; a note says how many. Raises ArgumentError
    for an unknown column, one of another kind, or one that no two candidates share.
    """
    measure = measure_of(level, similarity)
    items = collection.items(level)
    labels = _labels(items, column, kind)
    same_patient = include_same_patient or column in ("patient_id", "study_id")
    asked = np.flatnonzero(labels.there)
    rng = np.random.default_rng(seed)
    if len(asked) > MAX_QUERIES:
        asked = np.sort(rng.choice(asked, MAX_QUERIES, replace=False))
    ranker = _Ranker(collection, items, asked, measure)
    ranking = _Ranking(items, labels, same_patient)
    rows, patients, refused = _asked(ranker, ranking, items, asked, progress)
    if refused and len(refused) == len(asked):
        raise NothingToCompareError(f"none of the {len(asked)} {level} items can be compared by {measure}; the "
                                    f"first is {refused[0]}")  # fmt: skip
    if not rows:
        raise _nothing_shared(column, level, labels, same_patient)
    names = CLASS_METRICS if labels.kind == "class" else NUMBER_METRICS
    values = np.array(rows)
    estimates = _scored(values[:, 0], names, patients, draws, seed)
    chance = dict(zip(names, values[:, 1].mean(axis=0).tolist(), strict=True))
    left_out = int(labels.there.sum()) - len(rows)
    note = f"{len(refused)} of {len(asked)} could not be compared; the first is {refused[0]}" if refused else ""
    caution = encoder_caution(collection.provenance.patients, np.array(patients, dtype=object), items.patients)
    kinds, notes = (labels.kind, labels.why), (note, caution)
    return Retrieval(column, *kinds, level, measure, estimates, chance, len(rows), left_out, same_patient, *notes)


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    kind: LabelKind
    why: str
    values: npt.NDArray[Any]
    there: Bools


def _labels(items: Items, column: str, kind: LabelKind | None) -> _Labels:
    if column not in items.columns:
        raise ArgumentError(
            f"there is no column {column!r}{nearest(column, items.columns)}; there are {', '.join(items.columns)} "
            "(--evaluate)"
        )
    if kind is not None and kind not in get_args(LabelKind):
        raise ArgumentError(f"kind is {kind!r}; allowed are {', '.join(get_args(LabelKind))} (--as)")
    values = items.columns[column]
    if values.dtype.kind != "f":
        if kind == "number":
            raise ArgumentError(f"{column!r} holds texts, which are no numbers (--as class)")
        there = np.asarray(values != "", dtype=np.bool_)
        return _Labels("class", "it holds texts", np.unique(values.astype(str), return_inverse=True)[1], there)
    there = ~np.isnan(values)
    distinct = np.unique(values[there])
    whole = bool((distinct == np.round(distinct)).all())
    if kind is not None:
        return _Labels(kind, "--as says so", values, there)
    classes = len(distinct) <= _MAX_CLASSES and whole
    why = f"it holds {len(distinct)} different {'whole ' if whole else ''}numbers"
    return _Labels("class" if classes else "number", why, values, there)


class _Ranker:
    """The similarities of every item with one query after another, made in blocks of the queries that are asked."""

    def __init__(self, collection: Collection, items: Items, asked: Ints, similarity: Measure) -> None:
        self._collection = collection
        self._items, self._units = items, np.asarray(items.units)
        self._asked = asked
        self._similarity = similarity
        self._size = max(1, min(_BLOCK, _BLOCK_VALUES // len(items)))
        self._block = (-1, np.zeros((0, 0), dtype=np.float32))

    def similarities(self, place: int) -> Floats32:
        """Similarity (N,) of every item with the query asked in this place. Raises NothingToCompareError."""
        position = self._asked[place]
        if self._items.level == "study" and self._similarity != "mean":
            query = study_query(self._collection, str(self._items.ids[position]))
            return study_scores(self._collection, query, self._similarity)
        if not self._units[position].any():
            raise NothingToCompareError("an embedding of zeros, which is similar to nothing")
        number, row = divmod(place, self._size)
        if self._block[0] != number:
            some = self._asked[number * self._size : (number + 1) * self._size]
            self._block = (number, cosines(self._units[some], self._units))
        found: Floats32 = self._block[1][row]
        return found


class _Ranking:
    """What the order of the candidates is worth for a query."""

    def __init__(self, items: Items, labels: _Labels, same_patient: bool) -> None:
        self._labels = labels
        own = "study_id" if items.level == "study" else "video_id"
        self._own = np.unique(items.columns[own].astype(str), return_inverse=True)[1]
        self._patients = np.unique(items.patients.astype(str), return_inverse=True)[1]
        self._same_patient = same_patient
        self._metrics: Callable[..., tuple[list[float], list[float]] | None] = (
            _class_values if labels.kind == "class" else _number_values
        )

    def values(self, position: int, similarity: Floats32) -> tuple[list[float], list[float]] | None:
        """The metrics of one query, and what chance gives; None if nothing could be found for it."""
        candidate = self._labels.there & (self._own != self._own[position])
        if not self._same_patient:
            candidate &= self._patients != self._patients[position]
        candidate &= ~np.isnan(similarity)
        among = np.flatnonzero(candidate)
        # Where only rounding differs, the order of the file would decide.
        rounded = np.rint(similarity[among].astype(np.float64) / _EQUAL)
        order = np.argsort(-rounded, kind="stable")
        starts = np.flatnonzero(np.diff(rounded[order], prepend=np.inf))
        return self._metrics(self._labels.values[among[order]], self._labels.values[position], starts)


def _asked(
    ranker: _Ranker, ranking: _Ranking, items: Items, asked: Ints, progress: Progress
) -> tuple[list[tuple[list[float], list[float]]], list[str], list[str]]:
    """The metrics of every query and of chance, the queries' patients, and what could not be compared, with reasons."""
    rows, patients, refused = [], [], []
    for place, position in enumerate(asked):
        progress(place, len(asked))
        try:
            found = ranking.values(int(position), ranker.similarities(place))
        except NothingToCompareError as error:
            refused.append(f"{items.level} {items.ids[position]}: {error}")
            continue
        if found is not None:
            rows.append(found)
            patients.append(str(items.patients[position]))
    progress(len(asked), len(asked))
    return rows, patients, refused


def _nothing_shared(column: str, level: SearchLevel, labels: _Labels, same_patient: bool) -> ArgumentError:
    return ArgumentError(
        f"no two {level} items that may be compared share a value of {column!r}: nothing to evaluate"
        + ("" if same_patient else " (the same patient's are left out; --include-same-patient keeps them in)")
        + ("; --as number compares its numbers" if labels.kind == "class" and labels.values.dtype.kind == "f" else "")
    )


def _class_values(labels: npt.NDArray[Any], own: Any, starts: Ints) -> tuple[list[float], list[float]] | None:
    """Top-1, top-5, average precision and nDCG of a ranking, and their expectation over random rankings.

    labels: (n,) of the candidates, best first. starts: where the runs of equally alike candidates begin; of each metric
    the expectation over all orders within the runs is taken. A random ranking is one run of all.
    """
    relevant = np.asarray(labels == own, dtype=np.bool_)
    if not relevant.any():
        return None
    return _expected(relevant, starts), _expected(relevant, np.zeros(1, dtype=np.int64))


def _expected(relevant: Bools, starts: Ints) -> list[float]:
    total, number = len(relevant), int(relevant.sum())
    sizes = np.diff(starts, append=total)
    found = np.add.reduceat(relevant, starts, dtype=np.int64)
    before = np.cumsum(found) - found
    share = np.repeat(found / sizes, sizes)
    places = np.arange(total)
    # Those of the same run that stand before a relevant one: of the others, evenly.
    inside = (places - np.repeat(starts, sizes)) * np.repeat((found - 1) / np.maximum(sizes - 1, 1), sizes)
    precision = (np.repeat(before, sizes) + 1 + inside) / (places + 1)
    discounts = 1 / np.log2(places + 2)
    return [
        float(share[0]),
        _among_first(5, starts, sizes, found, before),
        float((share * precision).sum() / number),
        float((share * discounts).sum() / discounts[:number].sum()),
    ]


def _among_first(k: int, starts: Ints, sizes: Ints, found: Ints, before: Ints) -> float:
    """The probability that a relevant one is among the first k, where only the last run may be cut."""
    last = int(np.searchsorted(starts, k)) - 1
    if before[last]:
        return 1.0
    drawn = np.arange(min(k - int(starts[last]), int(sizes[last])))
    return float(1 - np.prod(np.maximum(sizes[last] - found[last] - drawn, 0) / (sizes[last] - drawn)))


def _number_values(labels: npt.NDArray[Any], own: Any, starts: Ints) -> tuple[list[float], list[float]] | None:
    """Mean absolute difference to the nearest and the five nearest, as for `_class_values`, and to all candidates."""
    if not len(labels):
        return None
    apart = np.abs(labels - own)
    sizes = np.diff(starts, append=len(labels))
    expected = np.repeat(np.add.reduceat(apart, starts) / sizes, sizes)
    chance = float(apart.mean())
    return [float(expected[0]), float(expected[:5].mean())], [chance, chance]


def _scored(values: Floats, names: tuple[str, ...], patients: list[Any], draws: int, seed: int) -> dict[str, Score]:
    """Means over queries, with intervals from bootstraps over patients."""
    ids, codes = np.unique(np.array(patients, dtype=str), return_inverse=True)
    sums = np.zeros((len(ids), len(names) + 1))
    np.add.at(sums, codes, np.column_stack([values, np.ones(len(values))]))

    def part(weights: Floats) -> Draws:
        total = weights @ sums
        return {name: total[:, i] / total[:, -1] for i, name in enumerate(names)}

    return scores(Metrics((part,), ids, len(values)), draws=draws, seed=seed)
