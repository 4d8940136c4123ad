"""Estimates with intervals that need no bootstrap, and parts of `Metrics` that carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Values = dict[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A metric's value with its 95 % interval.

    influence: (P,) the change of the value per unit of each patient's weight, for the correlation of two estimates.
    """

    value: float
    low: float
    high: float
    influence: Floats


Estimates = dict[str, Estimate]


@dataclass(frozen=True, slots=True, eq=False)
class EstimatedPart:
    """Metrics as a function of patient weights (B, P), with intervals of some of them.

    estimate: gives the estimates by the metric's name, without the metrics that are not defined.
    """

    part: Callable[[Floats], Values]
    estimate: Callable[[], Estimates]

    def __call__(self, weights: Floats) -> Values:
        """Value of every metric for each row of `weights`."""
        return self.part(weights)


def estimates_of(parts: Iterable[Callable[[Floats], Values]]) -> Estimates:
    """The estimates of all parts that have some, by the metric's name."""
    found: Estimates = {}
    for part in parts:
        if isinstance(part, EstimatedPart):
            found |= part.estimate()
    return found


def mean_estimates(runs: Sequence[Iterable[Callable[[Floats], Values]]]) -> Estimates:
    """The means of several trainings' estimates and of their limits, of metrics that all of them have.

    Trainings tested on the same patients err together; where they do not, the mean is surer than its limits say.
    """
    each = [estimates_of(parts) for parts in runs]
    return {
        name: Estimate(
            value=float(np.mean([found[name].value for found in each])),
            low=float(np.mean([found[name].low for found in each])),
            high=float(np.mean([found[name].high for found in each])),
            influence=np.mean([found[name].influence for found in each], axis=0),
        )
        for name in each[0]
        if all(name in found for found in each)
    }


def renamed(part: EstimatedPart, old: str, new: str) -> EstimatedPart:
    """One metric of a part, under another name."""

    def estimate() -> Estimates:
        found = part.estimate()
        return {new: found[old]} if old in found else {}

    return EstimatedPart(lambda weights: {new: part(weights)[old]}, estimate)


def macro_estimates(per_class: Mapping[str, Estimates]) -> Estimates:
    """The estimates of each class as "<metric>:<class>", and "<metric>", their mean, where every class has one."""
    found: Estimates = {}
    for name in dict.fromkeys(name for estimates in per_class.values() for name in estimates):
        having = {label: estimates[name] for label, estimates in per_class.items() if name in estimates}
        if len(having) == len(per_class):
            found[name] = mean_estimate(list(having.values()))
        found |= {f"{name}:{label}": one for label, one in having.items()}
    return found


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several estimates on the same patients; its interval is recovered from those of the estimates.

    MOVER, the method of variance estimates recovery, with correlated estimates (Zou and Donner, Stat Med 2008; 27:
    1693-1702; Zou, Psychol Methods 2007; 12: 399-413). The correlation is that of the influences of the patients.
    """
    values = np.array([one.value for one in estimates])
    influences = np.array([one.influence for one in estimates])
    norms = np.sqrt((influences**2).sum(axis=1))
    norms[norms == 0] = np.inf  # nothing varies, so nothing correlates
    correlation = (influences / norms[:, None]) @ (influences / norms[:, None]).T
    np.fill_diagonal(correlation, 1)
    below = values - np.array([one.low for one in estimates])
    above = np.array([one.high for one in estimates]) - values
    half = [float(np.sqrt(max(side @ correlation @ side, 0))) / len(estimates) for side in (below, above)]
    value = float(values.mean())
    return Estimate(value, max(0.0, value - half[0]), min(1.0, value + half[1]), influences.mean(axis=0))
