"""95 % intervals of metrics with patients as clusters, and Holm's correction of p-values.

Percentile intervals of a bootstrap are too narrow for high values of AUROC, average precision and proportions, so these
metrics have others (`ranking`, `estimates`). The intervals of all other metrics, and of differences, are
percentile intervals of the cluster bootstrap (Field and Welsh, J R Stat Soc B 2007; 69: 369-390).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Score
from panecho_embed.evaluation.estimates import estimates_of
from panecho_embed.evaluation.metrics import Draws, Metrics, base_name, point_values

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
    interval. Bootstraps in which a metric is not defined are left out; when they are more than half, the interval is
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
