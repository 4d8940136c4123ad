"""How many labels are needed: a probe trained on few patients, drawn again and again, tested on the same patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.metrics import PRIMARY
from panecho_embed.evaluation.splits import Draw, Size, check_fractions, check_no_leakage, check_shots
from probes.base import BaseProbe
from probes.foreign import as_probe
from probes.plans import RunSettings, drawn_plan, make_folds, primary_value
from probes.problem import Problem

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class LabelEfficiency:
    """metric: the task's primary one. unit: "fraction" of training patients, or "shots" (per class, or patients).

    sizes: (S,). values: (S, R) of the metric in each repeat. n_patients: (S,) trained on, mean over folds and repeats.
    """

    target: str
    metric: str
    unit: Size
    sizes: tuple[float, ...]
    values: Floats
    n_patients: Floats
    draws: tuple[Draw, ...]

    @property
    def caption(self) -> str:
        """What is seen in the curve and its table."""
        return f"Label efficiency: mean of {self.values.shape[1]} draws, and the range of 95 % of them."

    def band(self) -> pd.DataFrame:
        """Mean over the repeats, and the range that 95 % of them lie in, one row a size."""
        import pandas as pd

        low, high = np.percentile(self.values, [2.5, 97.5], axis=1)
        columns = {"target": self.target, "metric": self.metric, self.unit: self.sizes, "n_patients": self.n_patients}
        return pd.DataFrame(columns | {"mean": self.values.mean(axis=1), "low": low, "high": high})


def label_efficiency(problem: Problem, probe: BaseProbe | BaseEstimator, settings: RunSettings) -> LabelEfficiency:
    """Train on a part of the training patients, again and again, and test on all test units.

    Sizes are `settings.fractions` of the training patients, or `settings.shots`. In each repeat the smaller draws lie
    inside the larger ones. Settings are chosen on inner grouped folds of the draw, so that no label is used that is not
    counted. A fraction has at least two patients of each class.

    Raises ArgumentError for both or neither kind of size, and sizes out of range.
    """
    probe = as_probe(probe, problem.target.kind)
    check_sizes(settings, probe)
    folds = make_folds(problem, folds=settings.folds, seed=settings.seed)
    if not settings.allow_leakage:
        check_no_leakage(folds, problem.patient)
    sizes = tuple(sorted(set(settings.fractions or settings.shots)))
    unit: Size = "fraction" if settings.fractions else "shots"
    values, counts = np.empty((len(sizes), settings.repeats)), np.zeros(len(sizes))
    draws: list[Draw] = []
    known: dict[tuple[frozenset[str], ...], float] = {}  # all patients are the same patients in every repeat
    for repeat in range(settings.repeats):
        for s, size in enumerate(sizes):
            plan = drawn_plan(problem, folds, size, settings.seed, repeat, unit)
            key = tuple(frozenset(draw.patients) for draw in plan.drawn)
            if key not in known:
                known[key] = primary_value(problem, probe, plan, settings.threshold)
            values[s, repeat] = known[key]
            counts[s] += sum(len(draw.patients) for draw in plan.drawn) / len(folds) / settings.repeats
            draws += plan.drawn
    return LabelEfficiency(problem.target.name, PRIMARY[problem.target.kind], unit, sizes, values, counts, tuple(draws))


def check_sizes(settings: RunSettings, probe: BaseProbe) -> None:
    """Raise ArgumentError unless the settings have fractions or shots, and those can be drawn."""
    if bool(settings.fractions) == bool(settings.shots):
        raise ArgumentError("give either fractions (--fractions 0.1,0.5,1) or shots (--shots 5,10,20)")
    if settings.fractions:
        check_fractions(sorted(set(settings.fractions)))
    else:
        check_shots(settings.shots, chooses=probe.chooses())
