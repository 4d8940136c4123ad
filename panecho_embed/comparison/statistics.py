"""Which start is better, and how sure is that: metrics averaged over seeds, patients drawn jointly for all starts.

A start was trained with several seeds, and every run tested on the same patients. Its value is the mean of the metric
over the seeds: what one training run is worth on average. Each bootstrap draws patients once, for every run of every
start, so that differences are paired by patient. What seeds do is told apart from that, as their standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.metrics import (
    DEFAULT_DRAWS,
    PRIMARY,
    Difference,
    Draws,
    Floats,
    Metrics,
    binary_metrics,
    bootstrap,
    holm,
    multiclass_metrics,
    percentile_interval,
    point_values,
    regression_metrics,
    two_sided_p,
)
from panecho_embed.records import Score
from panecho_embed.tasks import TaskType


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What every candidate predicted: one target of N videos or studies.

    truth: (N,) value or class index. patients: (N,) ids. classes: () for regression. measure: the target's unit.
    """

    target: str
    task: TaskType
    classes: tuple[str, ...]
    truth: Floats
    patients: npt.NDArray[np.str_]
    measure: str = ""

    def metrics(self, prediction: Floats) -> Metrics:
        """The task's metrics of one run; prediction: (N,) value or probability of class 1, or (N, K) probabilities."""
        if self.task == "regression":
            return regression_metrics(self.truth, prediction, self.patients)
        if self.task == "binary":
            return binary_metrics(self.truth, prediction, self.patients)
        return multiclass_metrics(self.truth, prediction, self.patients, self.classes)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One line of the table. predictions: one array a run, see `Units.metrics`. fraction: of the training patients.

    random: whether its runs depend on a seed; what does not has no seed spread, and one run.
    """

    name: str
    predictions: tuple[Floats, ...]
    fraction: float = 1.0
    random: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """How a candidate did. scores: mean over its runs, with 95 % intervals over patients. by_run: metric -> (R,).

    sampling_sd: metric -> standard deviation of the bootstrapped mean over runs: what drawing other patients does.
    """

    candidate: Candidate
    scores: Mapping[str, Score]
    by_run: Mapping[str, Floats]
    sampling_sd: Mapping[str, float]

    def seed_sd(self, metric: str) -> float:
        """Standard deviation of the metric over runs (n - 1); 0 for what has no seed, NaN for a single run."""
        if not self.candidate.random:
            return 0.0
        values = self.by_run[metric]
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


@dataclass(frozen=True, slots=True)
class Contrast:
    """first minus second, both trained on the same fraction. p_holm: corrected for all contrasts of the target.

    seed_se: standard error of the difference that a few seeds leave, beside the patients' interval.
    """

    first: str
    second: str
    fraction: float
    difference: Difference
    p_holm: float
    seed_se: float


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One target. metric: the task's primary one, which the contrasts are of. standings: in the order given."""

    units: Units
    metric: str
    standings: tuple[Standing, ...]
    contrasts: tuple[Contrast, ...]
    reference: str
    draws: int
    seed: int


def averaged(runs: Sequence[Metrics]) -> Metrics:
    """The mean of the same metrics of several runs on the same rows, as metrics that can be bootstrapped."""
    if any(run.n != runs[0].n or not np.array_equal(run.patients, runs[0].patients) for run in runs):
        raise ArgumentError("runs that are averaged must be tested on the same rows of the same patients")

    def mean(weights: Floats) -> Draws:
        values = [run(weights) for run in runs]
        return {name: np.mean([value[name] for value in values], axis=0) for name in values[0]}

    return Metrics((mean,), runs[0].patients, runs[0].n)


def compare_candidates(
    units: Units,
    candidates: Sequence[Candidate],
    reference: str,
    *,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> Comparison:
    """Score every candidate, and set each against the reference that was trained on the same fraction.

    Raises ArgumentError if no candidate is called `reference`.
    """
    if reference not in [candidate.name for candidate in candidates]:
        names = dict.fromkeys(candidate.name for candidate in candidates)
        raise ArgumentError(f"reference is {reference!r}; compared are {', '.join(names)} (--reference)")
    runs = [[units.metrics(prediction) for prediction in candidate.predictions] for candidate in candidates]
    means = [averaged(metrics) for metrics in runs]
    sampled = bootstrap(means, draws=draws, seed=seed)
    standings = [
        _standing(candidate, mean, metrics, values)
        for candidate, mean, metrics, values in zip(candidates, means, runs, sampled, strict=True)
    ]
    metric = PRIMARY[units.task]
    contrasts = _contrasts(standings, [values[metric] for values in sampled], metric, reference)
    return Comparison(units, metric, tuple(standings), contrasts, reference, draws, seed)


def _standing(candidate: Candidate, mean: Metrics, runs: Sequence[Metrics], sampled: Draws) -> Standing:
    points, n_patients = point_values(mean), len(mean.patients)
    by_run = [point_values(run) for run in runs]
    return Standing(
        candidate,
        scores={
            name: Score(name, value, *percentile_interval(sampled[name], n_patients), mean.n, n_patients)
            for name, value in points.items()
        },
        by_run={name: np.array([run[name] for run in by_run]) for name in points},
        sampling_sd={name: float(np.nanstd(sampled[name])) if n_patients > 1 else float("nan") for name in points},
    )


def _contrasts(
    standings: Sequence[Standing], sampled: Sequence[Floats], metric: str, reference: str
) -> tuple[Contrast, ...]:
    of_reference = {s.candidate.fraction: i for i, s in enumerate(standings) if s.candidate.name == reference}
    pairs = [
        (i, of_reference[s.candidate.fraction])
        for i, s in enumerate(standings)
        if s.candidate.name != reference and s.candidate.fraction in of_reference
    ]
    differences = [_difference(standings[i], standings[j], sampled[i] - sampled[j], metric) for i, j in pairs]
    corrected = holm([difference.p_value for difference in differences])
    return tuple(
        Contrast(
            standings[i].candidate.name,
            reference,
            standings[i].candidate.fraction,
            difference,
            float(p),
            seed_se=_seed_se(standings[i], standings[j], metric),
        )
        for (i, j), difference, p in zip(pairs, differences, corrected, strict=True)
    )


def _difference(a: Standing, b: Standing, sampled: Floats, metric: str) -> Difference:
    first, second = a.scores[metric], b.scores[metric]
    return Difference(
        metric,
        first.value - second.value,
        *percentile_interval(sampled, first.n_patients),
        p_value=two_sided_p(sampled),
        n=first.n,
        n_patients=first.n_patients,
    )


def _seed_se(a: Standing, b: Standing, metric: str) -> float:
    variances = [standing.seed_sd(metric) ** 2 / len(standing.by_run[metric]) for standing in (a, b)]
    return float(np.sqrt(sum(variances)))
