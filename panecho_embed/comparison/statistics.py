"""Which start is better, and how sure is that: metrics averaged over seeds, patients drawn jointly for all starts.

A start was trained with several seeds, and every run tested on the same patients. Its value is the mean of the metric
over the seeds: what one training run is worth on average. Each bootstrap draws patients once, for every run of every
start, so that differences are paired by patient. What seeds do is told apart from that, as their standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.intervals import (
    DEFAULT_DRAWS,
    Difference,
    bootstrap,
    holm,
    percentile_interval,
    two_sided_p,
)
from panecho_embed.evaluation.metrics import PRIMARY, Draws, Floats, Metrics, point_values, task_metrics
from panecho_embed.records import Score
from panecho_embed.tasks import TaskType

_MEANS = {"auroc": "Mean over {} class tasks", "r2": "Mean over {} regressions"}


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One target of N videos or studies, which every candidate predicted.

    truth: (N,) value or class index. patients: (N,) ids. classes: () for regression. unit: of a regression.
    """

    name: str
    task: TaskType
    classes: tuple[str, ...]
    truth: Floats
    patients: npt.NDArray[Any]
    unit: str = ""

    def metrics(self, prediction: Floats) -> Metrics:
        """The task's metrics of one run; prediction: (N,) value or probability of class 1, or (N, K) probabilities."""
        return task_metrics(self.task, self.truth, prediction, self.patients, self.classes)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One line of the tables. predictions: by target, one array a run, see `Target.metrics`.

    fraction: of the training patients. random: whether its runs depend on a seed; what does not has one run, and no
    spread over seeds. contrasted: whether it is set against the reference. start: the starting point it belongs to.
    """

    name: str
    predictions: Mapping[str, tuple[Floats, ...]]
    fraction: float = 1.0
    random: bool = True
    contrasted: bool = True
    start: str = ""


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
    """One target, or the mean over those of a kind (`over_targets`). metric: the one that the contrasts are of.

    standings: in the order of the candidates.
    """

    name: str
    metric: str
    unit: str
    standings: tuple[Standing, ...]
    contrasts: tuple[Contrast, ...]
    over_targets: bool = False


def averaged(runs: Sequence[Metrics]) -> Metrics:
    """The mean of the same metrics of several runs on the same rows, as metrics that can be bootstrapped."""
    if any(run.n != runs[0].n or not np.array_equal(run.patients, runs[0].patients) for run in runs):
        raise ArgumentError("runs that are averaged must be tested on the same rows of the same patients")

    def mean(weights: Floats) -> Draws:
        values = [run(weights) for run in runs]
        return {name: np.mean([value[name] for value in values], axis=0) for name in values[0]}

    return Metrics((mean,), runs[0].patients, runs[0].n)


def compare_candidates(
    targets: Sequence[Target],
    candidates: Sequence[Candidate],
    reference: str | None,
    *,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Score every candidate on every target, and set each against the reference trained on the same fraction.

    reference: None for no contrasts.
    With several targets of a kind, their mean comes first: of AUROC over class tasks, of R2 over regressions. Raises
    ArgumentError if no candidate is called `reference`.
    """
    if reference is not None and reference not in [candidate.name for candidate in candidates]:
        names = dict.fromkeys(candidate.name for candidate in candidates)
        raise ArgumentError(f"reference is {reference!r}; compared are {', '.join(names)} (--reference)")
    ids = np.unique(np.concatenate([target.patients for target in targets]))
    runs = [[_runs(target, candidate) for candidate in candidates] for target in targets]
    means = [[averaged(metrics) for metrics in row] for row in runs]
    sampled = bootstrap([_on(ids, mean) for row in means for mean in row], draws=draws, seed=seed)
    by_target = [sampled[i * len(candidates) :][: len(candidates)] for i in range(len(targets))]
    standings = [
        [_standing(*parts) for parts in zip(candidates, *rows, strict=True)]
        for rows in zip(means, runs, by_target, strict=True)
    ]
    found = [
        _comparison(target.name, PRIMARY[target.task], target.unit, row, draw, reference)
        for target, row, draw in zip(targets, standings, by_target, strict=True)
    ]
    return (*_over_targets(targets, standings, by_target, reference, len(ids)), *found)


def _runs(target: Target, candidate: Candidate) -> list[Metrics]:
    return [target.metrics(prediction) for prediction in candidate.predictions[target.name]]


def _on(ids: npt.NDArray[Any], metrics: Metrics) -> Metrics:
    """The same metrics, as a function of the weights of more patients than they were made on."""
    columns = np.searchsorted(ids, metrics.patients)
    return Metrics((lambda weights: metrics(weights[:, columns]),), ids, metrics.n)


def _standing(candidate: Candidate, mean: Metrics, runs: Sequence[Metrics], sampled: Draws) -> Standing:
    points, by_run = point_values(mean), [point_values(run) for run in runs]
    values = {name: np.array([run[name] for run in by_run]) for name in points}
    return _summarised(candidate, values, sampled, mean.n, len(mean.patients))


def _summarised(
    candidate: Candidate, by_run: Mapping[str, Floats], sampled: Draws, n: int, n_patients: int
) -> Standing:
    return Standing(
        candidate,
        scores={
            name: Score(name, float(values.mean()), *percentile_interval(sampled[name], n_patients), n, n_patients)
            for name, values in by_run.items()
        },
        by_run=by_run,
        sampling_sd={name: _sd(sampled[name]) if n_patients > 1 else float("nan") for name in by_run},
    )


def _sd(sampled: Floats) -> float:
    defined = sampled[np.isfinite(sampled)]
    return float(defined.std()) if len(defined) * 2 >= len(sampled) else float("nan")


def _comparison(
    name: str, metric: str, unit: str, standings: Sequence[Standing], sampled: Sequence[Draws], reference: str | None
) -> Comparison:
    contrasts = _contrasts(standings, [draw[metric] for draw in sampled], metric, reference)
    return Comparison(name, metric, unit, tuple(standings), contrasts)


def _over_targets(
    targets: Sequence[Target],
    standings: Sequence[Sequence[Standing]],
    sampled: Sequence[Sequence[Draws]],
    reference: str | None,
    n_patients: int,
) -> list[Comparison]:
    """The mean over the targets of a kind, where there are several."""
    found = []
    for metric, title in _MEANS.items():
        of_kind = [i for i, target in enumerate(targets) if (target.task == "regression") == (metric == "r2")]
        if len(of_kind) < 2:
            continue
        rows, draws = [], []
        for c, standing in enumerate(standings[0]):
            values = {metric: np.mean([standings[i][c].by_run[metric] for i in of_kind], axis=0)}
            draws.append({metric: np.mean([sampled[i][c][metric] for i in of_kind], axis=0)})
            n = max(len(targets[i].truth) for i in of_kind)
            rows.append(_summarised(standing.candidate, values, draws[-1], n, n_patients))
        mean = _comparison(title.format(len(of_kind)), metric, "", rows, draws, reference)
        found.append(replace(mean, over_targets=True))
    return found


def _contrasts(
    standings: Sequence[Standing], sampled: Sequence[Floats], metric: str, reference: str | None
) -> tuple[Contrast, ...]:
    if reference is None:
        return ()
    of_reference = {s.candidate.fraction: i for i, s in enumerate(standings) if s.candidate.name == reference}
    pairs = [
        (i, of_reference[s.candidate.fraction])
        for i, s in enumerate(standings)
        if s.candidate.contrasted and s.candidate.name != reference and s.candidate.fraction in of_reference
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
        p_value=two_sided_p(sampled, first.n_patients),
        n=first.n,
        n_patients=first.n_patients,
    )


def _seed_se(a: Standing, b: Standing, metric: str) -> float:
    variances = [standing.seed_sd(metric) ** 2 / len(standing.by_run[metric]) for standing in (a, b)]
    return float(np.sqrt(sum(variances)))
