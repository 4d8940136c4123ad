"""How many labels are needed: a probe trained on few patients, drawn again and again, tested on the same patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from panecho_embed.errors import ArgumentError
from panecho_embed.metrics import PRIMARY, point_values
from probes.base import BaseProbe
from probes.evaluation import make_metrics, predict_folds
from probes.folds import Fold
from probes.problem import Problem

if TYPE_CHECKING:
    import pandas as pd

Ints = npt.NDArray[np.int64]

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
MIN_PATIENTS_OF_A_CLASS = 2


@dataclass(frozen=True, slots=True)
class Draw:
    """One training set. size: the fraction or shots asked for. patients: whose labels were used, in the order drawn."""

    fold: str
    size: float
    repeat: int
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelEfficiency:
    """metric: the task's primary one. unit: "fraction" of training patients, or "shots" (per class, or patients).

    sizes: (S,). values: (S, R) of the metric in each repeat. n_patients: (S,) trained on, mean over folds and repeats.
    """

    target: str
    metric: str
    unit: str
    sizes: tuple[float, ...]
    values: npt.NDArray[np.float64]
    n_patients: npt.NDArray[np.float64]
    draws: tuple[Draw, ...]

    def band(self) -> pd.DataFrame:
        """Mean over the repeats, and the range that 95 % of them lie in, one row a size."""
        import pandas as pd

        low, high = np.percentile(self.values, [2.5, 97.5], axis=1)
        columns = {"target": self.target, "metric": self.metric, self.unit: self.sizes, "n_patients": self.n_patients}
        return pd.DataFrame(columns | {"mean": self.values.mean(axis=1), "low": low, "high": high})


def label_efficiency(
    problem: Problem,
    probe: BaseProbe,
    folds: Sequence[Fold],
    *,
    fractions: Sequence[float] = (),
    shots: Sequence[int] = (),
    repeats: int = 10,
    seed: int = 0,
) -> LabelEfficiency:
    """Train on a part of the patients of training and validation set, test on all test units.

    fractions: of these patients, above 0 to 1; or shots: patients a class (in a regression: patients). In each repeat
    the smaller draws lie inside the larger ones. Settings are chosen on inner grouped folds of the draw alone, so that
    no label is used that is not counted. Every draw has at least two patients of each class.
    """
    sizes, unit = _sizes(fractions, shots)
    values = np.empty((len(sizes), repeats))
    counts = np.zeros(len(sizes))
    draws = []
    for repeat in range(repeats):
        orders = [_order(problem, fold, np.random.default_rng([seed, repeat, i])) for i, fold in enumerate(folds)]
        for s, size in enumerate(sizes):
            chosen = [_take(problem, order, size, unit) for order in orders]
            values[s, repeat] = _one_value(problem, probe, folds, chosen)
            counts[s] += sum(map(len, chosen)) / len(folds) / repeats
            draws += [Draw(f.name, size, repeat, tuple(who)) for f, who in zip(folds, chosen, strict=True)]
    return LabelEfficiency(problem.target, PRIMARY[problem.task], unit, sizes, values, counts, tuple(draws))


def _sizes(fractions: Sequence[float], shots: Sequence[int]) -> tuple[tuple[float, ...], str]:
    if bool(fractions) == bool(shots):
        raise ArgumentError("give either fractions (--fractions 0.1,0.5,1) or shots (--shots 5,10,20)")
    if any(not 0 < fraction <= 1 for fraction in fractions):
        raise ArgumentError(f"fractions are {tuple(fractions)}; each must be above 0 and at most 1 (--fractions)")
    if any(shot < MIN_PATIENTS_OF_A_CLASS for shot in shots):
        raise ArgumentError(f"shots are {tuple(shots)}; at least 2 are needed, to choose settings on (--shots)")
    return tuple(sorted(fractions or shots)), "fraction" if fractions else "shots"


def _order(problem: Problem, fold: Fold, rng: np.random.Generator) -> list[str]:
    """The patients that may be trained on, in random order, two of each class first."""
    units = np.concatenate([fold.train, fold.validation])
    patient = problem.patient[units].astype(str)
    order = rng.permutation(np.unique(patient))
    if problem.task == "regression":
        return [str(who) for who in order]
    first: dict[str, None] = {}
    for index in range(len(problem.classes)):
        having = set(patient[problem.truth[units] == index].tolist())
        first |= dict.fromkeys([str(who) for who in order if who in having][:MIN_PATIENTS_OF_A_CLASS])
    return list(dict.fromkeys([*first, *map(str, order)]))


def _take(problem: Problem, order: list[str], size: float, unit: str) -> list[str]:
    if unit == "fraction" or problem.task == "regression":
        wanted = round(size * len(order)) if unit == "fraction" else int(size)
        least = MIN_PATIENTS_OF_A_CLASS * max(1, len(problem.classes))
        if wanted > len(order):
            raise ArgumentError(f"{wanted} patients were asked for; there are {len(order)} to train on (--shots)")
        return order[: max(wanted, least)]
    classes: dict[str, set[int]] = {}
    for who, index in zip(problem.patient.astype(str), problem.truth.astype(int), strict=True):
        classes.setdefault(who, set()).add(int(index))
    taken, have = [], np.zeros(len(problem.classes), dtype=np.int64)
    for who in order:
        if any(have[index] < size for index in classes[who]):
            taken.append(who)
            have[list(classes[who])] += 1
    if (have < size).any():
        rare = problem.classes[int(have.argmin())]
        raise ArgumentError(f"{size:g} patients of class {rare} were asked for; there are {have.min()} (--shots)")
    return taken


def _one_value(problem: Problem, probe: BaseProbe, folds: Sequence[Fold], chosen: Sequence[list[str]]) -> float:
    patient, none = problem.patient.astype(str), np.empty(0, dtype=np.int64)
    small = []
    for fold, who in zip(folds, chosen, strict=True):
        allowed = np.concatenate([fold.train, fold.validation])
        small.append(Fold(fold.name, allowed[np.isin(patient[allowed], who)], none, fold.test))
    fewer = _with_fewer_folds(probe, problem, [fold.train for fold in small])
    predicted = predict_folds(problem, fewer, small)
    tested = np.concatenate([fold.test for fold in folds])
    metrics = make_metrics(problem, tested, predicted.prediction, predicted.threshold)
    return point_values(metrics)[PRIMARY[problem.task]]


def _with_fewer_folds(probe: BaseProbe, problem: Problem, trains: Sequence[Ints]) -> BaseProbe:
    """Inner folds that the rarest class still has a patient for in each."""
    smallest = min(_smallest_stratum(problem, train) for train in trains)
    copy: BaseProbe = clone(probe)
    copy.set_params(folds=max(2, min(probe.folds, smallest)))
    return copy


def _smallest_stratum(problem: Problem, train: Ints) -> int:
    patient, truth = problem.patient[train].astype(str), problem.truth[train]
    strata = [patient] if problem.task == "regression" else [patient[truth == c] for c in np.unique(truth)]
    return min(len(np.unique(stratum)) for stratum in strata)
