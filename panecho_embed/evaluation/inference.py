"""95 % intervals of metrics, and the difference between two candidates with all of its chance.

Percentile intervals of a bootstrap are too narrow for high values of AUROC, average precision and proportions, so these
metrics have others (`estimates`). The intervals of all other metrics are percentile intervals of the cluster bootstrap
over patients (Field and Welsh, J R Stat Soc B 2007; 69: 369-390).

A bootstrap over tested patients holds the fitted models fixed. Other training patients, another partition into folds or
another seed would have given other models, and two candidates that are equally good would then be "different" far too
often. So a candidate is run several times ("replicates"), and the variance of the difference is a sum:

- patients: the variance of the mean difference over bootstraps of the tested patients, the models held fixed;
- replicates: the variance between replicates, divided by their number;
- training: what the replicates have in common, because they were drawn from the same patients (`shared_factor`).

P-value and interval are those of Student's t with Satterthwaite's degrees of freedom (Biometrics Bulletin 1946; 2:
110-114), which are few where there are few replicates. Replicates are to patients what readers are to cases in
radiology (Obuchowski and Rockette, Commun Stat Simul Comput 1995; 24: 285-308). `benchmarks/null_bench.py` measures how
often two equally good candidates are "different".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Score
from panecho_embed.evaluation.estimates import Draws, estimates_of
from panecho_embed.evaluation.metrics import Metrics, base_name, point_values

DEFAULT_DRAWS = 10_000
_RANKED = (
    "95% confidence intervals of AUROC are score intervals (Newcombe, Stat Med 2006, method 5) with effective numbers "
    "of positives and negatives, and with the variance over patients (Obuchowski, Biometrics 1997) where it is larger; "
    "those of average precision are Wilson's (J Am Stat Assoc 1927) with an effective number of positives (Boyd et "
    "al., ECML PKDD 2013). With perfect separation, their lower limit is exact."
)
_PROPORTION = (
    "Intervals of sensitivity, specificity and predictive values are exact (Clopper and Pearson, Biometrika 1934) with "
    "an effective number of rows, as the rows of a patient are correlated (Korn and Graubard, Surv Methodol 1998)."
)
_BUILT = (
    "Intervals of sensitivity at a fixed specificity, balanced accuracy and F1 are built from exact ones (Clopper and "
    "Pearson) by the method of Zou and Donner (Stat Med 2008)."
)
_INTERVAL_METHODS = {
    **dict.fromkeys(("auroc", "average_precision"), _RANKED),
    **dict.fromkeys(("sensitivity", "specificity", "ppv", "npv"), _PROPORTION),
    **dict.fromkeys(("sensitivity_at_specificity", "balanced_accuracy", "f1"), _BUILT),
}
_OTHER_INTERVALS = (
    "95% confidence intervals of other metrics are percentile intervals of a bootstrap over patients (Field and Welsh, "
    "J R Stat Soc B 2007)."
)
_BLOCK = 131_072  # numbers, 1 MB: larger blocks leave the cache and cost a fifth more


def scores(metrics: Metrics, *, draws: int = DEFAULT_DRAWS, seed: int = 0) -> dict[str, Score]:
    """Every metric with its 95 % interval (`interval_method`).

    draws: bootstraps over patients, for the metrics whose interval is a percentile interval; the same seed, the same
    interval. Bootstraps in which a metric is not defined are skipped; when they are more than half, the interval is
    NaN. With one patient only, every interval is NaN.
    """
    return scores_of(metrics, bootstrap([metrics], draws=draws, seed=seed)[0])


def scores_of(metrics: Metrics, sampled: Draws) -> dict[str, Score]:
    """The scores of a model whose metrics were bootstrapped already; sampled: its part of `bootstrap`."""
    n_patients = len(metrics.patients)
    found = estimates_of(metrics.parts) if n_patients > 1 else {}
    return {
        name: Score(
            name,
            value,
            *((found[name].low, found[name].high) if name in found else percentile_interval(sampled[name], n_patients)),
            metrics.n,
            n_patients,
        )
        for name, value in point_values(metrics).items()
    }


def interval_method(metric: str) -> str:
    """How the 95 % interval of a metric is made, as a sentence for a methods section."""
    return _INTERVAL_METHODS.get(base_name(metric), _OTHER_INTERVALS)


def holm(p_values: npt.ArrayLike) -> Floats:
    """P-values corrected for their number, in the given order (Holm, Scand J Stat 1979; 6: 65-70); NaN stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def bootstrap(models: Sequence[Metrics], *, draws: int = DEFAULT_DRAWS, seed: int = 0) -> list[Draws]:
    """Values (draws,) of every metric of every model; draw i takes the same patients in all of them."""
    if draws < 1:
        raise ArgumentError(f"draws is {draws}; it must be 1 or more (--draws)")
    width = max(model.n for model in models)
    chunks = [[model(w) for model in models] for w in patient_weights(len(models[0].patients), draws, seed, width)]
    return [
        {name: np.concatenate([chunk[i][name] for chunk in chunks]) for name in chunks[0][i]}
        for i in range(len(models))
    ]


def percentile_interval(sampled: Floats, n_patients: int) -> tuple[float, float]:
    """The 95 % interval of bootstrapped values (draws,); NaN for one patient, or if most draws are not defined."""
    defined = sampled[np.isfinite(sampled)]
    if n_patients < 2 or len(defined) * 2 < len(sampled):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def patient_weights(n_patients: int, draws: int, seed: int, width: int = 0) -> Iterator[Floats]:
    """How often each patient is drawn, (B, P) float64, in blocks that fit a core's cache for `width` rows."""
    rng = np.random.default_rng(seed)
    block = int(np.clip(_BLOCK // max(n_patients, width), 1, draws))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = rng.integers(0, n_patients, size=(size, n_patients))
        drawn += np.arange(size)[:, None] * n_patients
        counts = np.bincount(drawn.ravel(), minlength=size * n_patients)
        yield counts.reshape(size, n_patients).astype(np.float64)


Replicates = Literal["draws", "folds", "seeds", "none"]
Verdict = Literal["better", "worse", "equivalent", "undecided"]

_Variances = list[tuple[dict[str, float], int]]  # by source, with degrees of freedom

_ROUNDING = 1e-9  # of a metric: runs that differ by less are the same
_BOOTSTRAPS = 2_000  # of a standard error, which needs fewer than a percentile does


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of the first candidate minus that of the second, with an interval that holds all known chance.

    metric: its name.
    value: mean over the replicates (of the full training set when there are none).
    low, high: 95 % interval. p_value: two-sided. Both from Student's t.
    se, df: standard error, and its degrees of freedom.
    variances: parts of se squared, by source: "patients"; "draws", "folds" or "seeds"; "training".
    unknown: sources of chance that these runs can't show, so that the interval leaves them out.
    n, n_patients: tested rows and patients.
    """

    metric: str
    value: float
    low: float
    high: float
    p_value: float
    se: float
    df: float
    variances: Mapping[str, float]
    unknown: tuple[str, ...]
    n: int
    n_patients: int

    def p_equivalent(self, margin: float) -> float:
        """P-value of two one-sided tests that the difference is `margin` or more in size; NaN where se is unknown.

        Schuirmann, J Pharmacokinet Biopharm 1987; 15: 657-680.
        """
        from scipy.special import stdtr

        room = margin - abs(self.value)
        if not self.se > 0:
            return float("nan") if np.isnan(self.se) else float(room <= 0)
        return float(stdtr(self.df, -room / self.se))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One metric of a candidate's R runs, bootstrapped once and used in every difference with other candidates.

    points: (R,) the metric of each run. sampled: (R, B) its bootstraps. patients: (P,) ids. n: tested rows.
    """

    metric: str
    points: Floats
    sampled: Floats
    patients: npt.NDArray[Any]
    n: int


def sample(runs: Sequence[Metrics], metric: str, *, draws: int = _BOOTSTRAPS, seed: int = 0) -> Sample:
    """Bootstrap one metric of a candidate's runs over the tested patients.

    runs: one or more, all tested on the same rows. draws: bootstraps. seed: the same seed draws the same patients, so
    that samples of several candidates are paired.

    Raises ArgumentError for no runs, for runs on different patients, and for a metric that they don't have.
    """
    if not runs:
        raise ArgumentError(f"a candidate has no runs; one or more are needed for {metric}")
    if any(run.n != runs[0].n or not np.array_equal(run.patients, runs[0].patients) for run in runs):
        raise ArgumentError("the runs of a candidate must be tested on the same rows of the same patients")
    chosen = [_only(run, metric) for run in runs]
    ones = np.ones((1, len(runs[0].patients)))
    points = np.array([run(ones)[metric][0] for run in chosen])
    sampled = np.array([values[metric] for values in bootstrap(chosen, draws=draws, seed=seed)])
    return Sample(metric, points, sampled, runs[0].patients, runs[0].n)


def difference(
    first: Sample,
    second: Sample,
    *,
    replicates: Replicates,
    share: float | None = None,
    sets: int = 1,
    refits: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    seeded: tuple[bool, bool] = (True, True),
) -> Difference:
    """First minus second, tested on the same patients.

    replicates:
        "draws": run r of both candidates was trained on the same random draw of patients (k-shot).
        "folds": run r of both candidates used the same partition; its predictions are pooled over all folds.
        "seeds": the same training set and other seeds; runs of the two candidates are not paired, and their numbers
        may differ.
        "none": one run each, of a procedure without randomness, on one training set.
    share:
        Fraction of the training pool that one training set holds: patients drawn divided by patients in the pool (of
        the class in which this is largest) for draws, (K - 1) / K for K folds, and the fraction that each of `refits`
        was trained on. None: the training pool's chance is unknown.
    sets:
        With "draws", the number of separately drawn training sets in one replicate: K where patients are drawn in each
        of K folds, else 1.
    refits:
        With "none", the metric of both candidates, (R,) each, after training on R random subsets of the training
        patients, tested on the same patients as `first` and `second`. Subset r is the same for both.
    seeded:
        With "seeds", whether each candidate depends on a seed. One that does not has one run, and no variance.

    Returns a difference with NaN for interval, p-value and standard error when there is only one patient, or when most
    bootstraps are not defined (no positive was drawn).

    Raises ArgumentError when the candidates were tested on different patients or bootstrapped with different seeds, or
    when paired runs differ in number.
    """
    _check(first, second, replicates, share)
    n_patients = len(first.patients)
    value = float(first.points.mean() - second.points.mean())
    defined = np.isfinite(np.vstack([first.sampled, second.sampled])).all(axis=0)
    if n_patients < 2 or np.count_nonzero(defined) < max(2, first.sampled.shape[1] / 2) or not np.isfinite(value):
        return _undefined(first, value, n_patients)
    # Some of each run's own noise is in both this variance and that between runs, which errs on the safe side.
    means = first.sampled[:, defined].mean(axis=0) - second.sampled[:, defined].mean(axis=0)
    patients = float(means.var(ddof=1)) * n_patients / (n_patients - 1)
    parts: _Variances = [({"patients": patients}, n_patients - 1)]
    if replicates == "seeds":
        further, unknown = _seed_variances(first.points, second.points, seeded)
    elif replicates == "none":
        further, unknown = _refit_variance(refits, share)
    else:
        further, unknown = _paired_variance(first.points - second.points, replicates, share, sets)
    return _student(first, value, [*parts, *further], tuple(unknown))


def shared_factor(share: float) -> float:
    """Variance that replicates have in common, as a multiple of the variance between them: s^2 / (1 - s^2).

    share: fraction s of the training pool that each replicate was trained on, 0 <= s < 1.

    Two equally good candidates differ in what is left of the estimation error of both, and an error's square is made of
    pairs of training patients. Two replicates have a pair in common with probability s^2, so this is the correlation of
    their differences. Then the variance between replicates is (1 - s^2) of that of one, and the pool's is s^2 of it.
    The more usual correlation s (Nadeau and Bengio, Mach Learn 2003; 52: 239-281; the delete-d jackknife of Shao and
    Wu, Ann Stat 1989; 17: 1176-1197) holds for what is linear in the training patients, and is far too large here.
    """
    if not 0 <= share < 1:
        raise ArgumentError(f"share is {share}; a replicate is trained on a fraction of the pool, from 0 to below 1")
    return share**2 / (1 - share**2)


def verdict(
    found: Difference, *, higher_is_better: bool, p: float, p_equivalent: float = float("nan"), level: float = 0.05
) -> Verdict:
    """What a difference says about the first candidate: "better", "worse", "equivalent" or "undecided".

    higher_is_better: of the metric. p: p-value of the difference, p_equivalent: that of `Difference.p_equivalent` (NaN
    without a margin), both corrected for several comparisons (Holm). level: of the tests.

    "equivalent" goes before "better" and "worse": a difference that is surely there and surely smaller than what
    matters is no reason to prefer a candidate. "undecided" whenever the chance of draws, folds or seeds is unknown,
    because one run of each candidate can't tell them apart.
    """
    if not np.isfinite(p) or set(found.unknown) & {"draws", "folds", "seeds", "training set"}:
        return "undecided"
    if p_equivalent < level:
        return "equivalent"
    if p >= level:
        return "undecided"
    return "better" if (found.value > 0) == higher_is_better else "worse"


def mean_over_targets(targets: Sequence[Metrics], metric: str) -> Metrics:
    """The mean of one metric over several targets, as metrics that `sample` takes.

    targets: the same run's metrics, one per target; their patients may differ, and a bootstrap draws from all of them.
    """
    if not targets:
        raise ArgumentError(f"the mean of {metric} needs one target or more")
    ids = np.unique(np.concatenate([target.patients for target in targets]))
    columns = [np.searchsorted(ids, target.patients) for target in targets]
    chosen = [_only(target, metric) for target in targets]

    def mean(weights: Floats) -> Draws:
        values = [one(weights[:, where])[metric] for one, where in zip(chosen, columns, strict=True)]
        return {metric: np.mean(values, axis=0)}

    return Metrics((mean,), ids, max(target.n for target in targets))


def _only(metrics: Metrics, metric: str) -> Metrics:
    """The parts that compute one metric."""
    ones = np.ones((1, len(metrics.patients)))
    with np.errstate(divide="ignore", invalid="ignore"):
        names = [set(part(ones)) for part in metrics.parts]
    # A later part replaces the values of an earlier one.
    parts = tuple(part for part, known in zip(metrics.parts, names, strict=True) if metric in known)[-1:]
    if not parts:
        raise ArgumentError(f"metric is {metric!r}; there are {', '.join(sorted(set().union(*names)))}")
    return Metrics(parts, metrics.patients, metrics.n)


def _check(first: Sample, second: Sample, replicates: Replicates, share: float | None) -> None:
    if first.metric != second.metric:
        raise ArgumentError(f"the candidates' metrics are {first.metric} and {second.metric}; they must be the same")
    if first.n != second.n or not np.array_equal(first.patients, second.patients):
        raise ArgumentError(
            f"a difference needs the same patients and rows; one candidate has {first.n} rows of "
            f"{len(first.patients)} patients, the other {second.n} rows of {len(second.patients)}"
        )
    if first.sampled.shape[1] != second.sampled.shape[1]:
        raise ArgumentError(
            f"the candidates have {first.sampled.shape[1]} and {second.sampled.shape[1]} bootstraps; they must be the "
            "same, of the same seed"
        )
    runs = (len(first.points), len(second.points))
    if replicates != "seeds" and runs[0] != runs[1]:
        raise ArgumentError(f"the candidates have {runs[0]} and {runs[1]} runs; paired {replicates} need as many each")
    if replicates == "none" and runs[0] > 1:
        raise ArgumentError(f"there are {runs[0]} runs of each candidate; say what differs between them (replicates)")
    if replicates == "seeds" and share is not None:
        raise ArgumentError("share is of draws, folds and refits; seeds are all trained on the whole training set")


def _paired_variance(
    points: Floats, replicates: Replicates, share: float | None, sets: int
) -> tuple[_Variances, list[str]]:
    """Variances of the mean of paired replicates (R,), and what is unknown."""
    if len(points) < 2:
        return [], [replicates, "training"]
    between = float(points.var(ddof=1))
    found: dict[str, float] = {replicates: between / len(points)}
    if share is not None:
        found["training"] = between * sets * shared_factor(share)
    return [(found, len(points) - 1)], [] if share is not None else ["training"]


def _refit_variance(
    refits: tuple[npt.ArrayLike, npt.ArrayLike] | None, share: float | None
) -> tuple[_Variances, list[str]]:
    if refits is None or share is None:
        return [], ["training"]
    a, b = (np.asarray(values, dtype=np.float64) for values in refits)
    return [({"training": float((a - b).var(ddof=1)) * shared_factor(share)}, len(a) - 1)], []


def _seed_variances(first: Floats, second: Floats, seeded: tuple[bool, bool]) -> tuple[_Variances, list[str]]:
    """Variance of each candidate's mean over its seeds, with degrees of freedom; and what is unknown."""
    depending = [points for points, depends in zip((first, second), seeded, strict=True) if depends]
    known = [points for points in depending if len(points) > 1]
    unknown = ["seeds"] if len(known) < len(depending) else []
    return [({"seeds": float(p.var(ddof=1)) / len(p)}, len(p) - 1) for p in known], [*unknown, "training"]


def _student(
    first: Sample, value: float, parts: Sequence[tuple[Mapping[str, float], int]], unknown: tuple[str, ...]
) -> Difference:
    """Student's t of independent variances, each with its degrees of freedom (Satterthwaite)."""
    from scipy.special import stdtr, stdtrit

    variances: dict[str, float] = {}
    for named, _ in parts:
        for name, variance in named.items():
            variances[name] = variances.get(name, 0.0) + variance
    size = float(np.abs(np.concatenate([first.points, [value]])).max())
    if abs(value) <= _ROUNDING * size:
        value = 0.0
    total = sum(variances.values())
    total = 0.0 if total <= (_ROUNDING * size) ** 2 else total
    spread = sum(sum(named.values()) ** 2 / df for named, df in parts)
    se, df = float(np.sqrt(total)), total**2 / spread if spread > 0 and total > 0 else float(parts[0][1])
    p = float(2 * stdtr(df, -abs(value) / se)) if se > 0 else float(value == 0)
    reach = float(stdtrit(df, 0.975)) * se if se > 0 else 0.0
    ends = (value - reach, value + reach)
    return Difference(first.metric, value, *ends, p, se, df, variances, unknown, first.n, len(first.patients))


def _undefined(first: Sample, value: float, n_patients: int) -> Difference:
    nan = float("nan")
    return Difference(first.metric, value, nan, nan, nan, nan, nan, {}, ("patients",), first.n, n_patients)
