"""How many labels are needed: a probe trained on few patients, drawn again and again, tested on the same patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.metrics import PRIMARY, point_values
from probes.base import BaseProbe
from probes.draws import Draw, Unit, check_shots, order, take, with_patients
from probes.evaluation import predict_folds
from probes.folds import Fold, check_no_leakage
from probes.problem import Problem
from probes.scoring import make_metrics

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class LabelEfficiency:
    """metric: the task's primary one. unit: "fraction" of training patients, or "shots" (per class, or patients).

    sizes: (S,). values: (S, R) of the metric in each repeat. n_patients: (S,) trained on, mean over folds and repeats.
    """

    target: str
    metric: str
    unit: Unit
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
    allow_leakage: bool = False,
) -> LabelEfficiency:
    """Train on a part of the patients of training and validation set, test on all test units.

    fractions: of these patients, above 0 to 1; or shots: patients a class (in a regression: patients). In each repeat
    the smaller draws lie inside the larger ones. Settings are chosen on inner grouped folds of the draw alone, so that
    no label is used that is not counted. A fraction has at least two patients of each class. Raises ArgumentError
    naming the patients that are on both sides of a fold, unless `allow_leakage`.
    """
    if not allow_leakage:
        check_no_leakage(folds, problem.patient)
    sizes, unit = _sizes(fractions, shots, probe)
    values = np.empty((len(sizes), repeats))
    counts = np.zeros(len(sizes))
    draws = []
    known: dict[tuple[frozenset[str], ...], float] = {}  # all patients are the same patients in every repeat
    for repeat in range(repeats):
        orders = [order(problem, fold, seed, repeat, i) for i, fold in enumerate(folds)]
        for s, size in enumerate(sizes):
            chosen = [take(problem, fold, who, size, unit) for fold, who in zip(folds, orders, strict=True)]
            key = tuple(frozenset(who) for who in chosen)
            if key not in known:
                small = [with_patients(problem, *pair) for pair in zip(folds, chosen, strict=True)]
                known[key] = _value(problem, probe, small)
            values[s, repeat] = known[key]
            counts[s] += sum(map(len, chosen)) / len(folds) / repeats
            draws += [Draw(f.name, size, repeat, tuple(who)) for f, who in zip(folds, chosen, strict=True)]
    return LabelEfficiency(problem.target, PRIMARY[problem.task], unit, sizes, values, counts, tuple(draws))


def _sizes(fractions: Sequence[float], shots: Sequence[int], probe: BaseProbe) -> tuple[tuple[float, ...], Unit]:
    if bool(fractions) == bool(shots):
        raise ArgumentError("give either fractions (--fractions 0.1,0.5,1) or shots (--shots 5,10,20)")
    if any(not 0 < fraction <= 1 for fraction in fractions):
        raise ArgumentError(f"fractions are {tuple(fractions)}; each must be above 0 and at most 1 (--fractions)")
    if shots:
        check_shots(shots, probe)
    return tuple(sorted(set(fractions or shots))), "fraction" if fractions else "shots"


def _value(problem: Problem, probe: BaseProbe, folds: Sequence[Fold]) -> float:
    predicted = predict_folds(problem, probe, folds)
    tested = np.concatenate([fold.test for fold in folds])
    metrics = make_metrics(problem, tested, predicted.prediction, predicted.threshold)
    return point_values(metrics)[PRIMARY[problem.task]]
