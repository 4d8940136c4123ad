"""95 % intervals of metrics from bootstraps over patients; paired differences; p-values, and Holm's correction.

The intervals are percentile intervals of the cluster bootstrap (Field and Welsh, J R Stat Soc B 2007; 69: 369-390).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.metrics import Draws, Floats, Metrics, point_values
from panecho_embed.records import Score

DEFAULT_DRAWS = 10_000
_BLOCK = 131_072  # numbers, 1 MB: larger blocks leave the cache and cost a fifth more


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of one model minus that of another, on the same patients; p_value is two-sided, from the bootstrap."""

    metric: str
    value: float
    low: float
    high: float
    p_value: float
    n: int
    n_patients: int


def scores(metrics: Metrics, *, draws: int = DEFAULT_DRAWS, seed: int = 0) -> dict[str, Score]:
    """Every metric with its 95 % interval from `draws` bootstraps over patients; the same seed, the same interval.

    Bootstraps in which a metric is not defined (no positive was drawn) are left out of its interval; when they are more
    than half, or there is one patient only, the interval is NaN.
    """
    return scores_of(metrics, bootstrap([metrics], draws=draws, seed=seed)[0])


def scores_of(metrics: Metrics, sampled: Draws) -> dict[str, Score]:
    """The scores of a model whose metrics were bootstrapped already; sampled: its part of `bootstrap`."""
    n_patients = len(metrics.patients)
    return {
        name: Score(name, value, *percentile_interval(sampled[name], n_patients), metrics.n, n_patients)
        for name, value in point_values(metrics).items()
    }


def paired_differences(a: Metrics, b: Metrics, *, draws: int = DEFAULT_DRAWS, seed: int = 0) -> dict[str, Difference]:
    """a minus b for every metric both have, each bootstrap drawing the same patients for both.

    Raises ArgumentError when the two were not made on the same patients.
    """
    if a.n != b.n or not np.array_equal(a.patients, b.patients):
        raise ArgumentError(
            f"a paired comparison needs the same patients and rows; one has {a.n} rows of {len(a.patients)} patients, "
            f"the other {b.n} rows of {len(b.patients)}"
        )
    return differences_of(a, b, *bootstrap([a, b], draws=draws, seed=seed))


def differences_of(a: Metrics, b: Metrics, sampled_a: Draws, sampled_b: Draws) -> dict[str, Difference]:
    """The differences of two models that were bootstrapped together already; sampled: their parts of `bootstrap`."""
    point_a, point_b, n_patients = point_values(a), point_values(b), len(a.patients)
    return {
        name: difference_of(name, value - point_b[name], sampled_a[name] - sampled_b[name], a.n, n_patients)
        for name, value in point_a.items()
        if name in point_b
    }


def difference_of(metric: str, value: float, sampled: Floats, n: int, n_patients: int) -> Difference:
    """The difference of one metric; sampled: (draws,) its bootstraps, each of the same patients in both models."""
    interval = percentile_interval(sampled, n_patients)
    return Difference(metric, value, *interval, two_sided_p(sampled, n_patients), n, n_patients)


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


def two_sided_p(sampled: Floats, n_patients: int) -> float:
    """P-value of bootstrapped differences (draws,) being on both sides of 0; at least 2 / (draws + 1).

    NaN where `percentile_interval` is.
    """
    defined = sampled[np.isfinite(sampled)]
    if n_patients < 2 or len(defined) * 2 < len(sampled):
        return float("nan")
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(defined) + 1)))


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
