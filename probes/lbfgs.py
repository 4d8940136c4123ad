"""Minimise a smooth convex function that is already well scaled: L-BFGS with a first step of one.

For a few hundred variables scipy's solver spends its time in threaded BLAS calls on short vectors; this one does not.
Nocedal and Wright, Numerical Optimization, 2006, algorithms 7.4 and 3.1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import PanEchoEmbedError

Floats = npt.NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]

MEMORY = 20
MAX_STEPS = 2000


def minimise(objective: Objective, start: Floats, tolerance: float) -> Floats:
    """The minimum (V,), found when no element of the gradient is above `tolerance`, or when rounding hides any descent.

    objective: gives the value and the gradient (V,). Raises PanEchoEmbedError after 2,000 steps.
    """
    point = start
    value, gradient = objective(point)
    history: list[tuple[Floats, Floats, float]] = []
    for _ in range(MAX_STEPS):
        if np.abs(gradient).max() <= tolerance:
            return point
        direction = -_times_inverse_hessian(gradient, history)
        found = _step(objective, point, value, direction, float(gradient @ direction))
        if found is None:
            return point
        new_point, value, new_gradient = found
        moved, turned = new_point - point, new_gradient - gradient
        curvature = float(moved @ turned)
        if curvature > 0:
            history = [*history[-(MEMORY - 1) :], (moved, turned, curvature)]
        point, gradient = new_point, new_gradient
    raise PanEchoEmbedError(f"no minimum after {MAX_STEPS} steps; the largest gradient is {np.abs(gradient).max():g}")


def _times_inverse_hessian(vector: Floats, history: list[tuple[Floats, Floats, float]]) -> Floats:
    result = vector.copy()
    shares = []
    for moved, turned, curvature in reversed(history):
        share = float(moved @ result) / curvature
        shares.append(share)
        result -= share * turned
    if history:
        _, turned, curvature = history[-1]
        result *= curvature / float(turned @ turned)
    for (moved, turned, curvature), share in zip(history, reversed(shares), strict=True):
        result += moved * (share - float(turned @ result) / curvature)
    return result


def _step(
    objective: Objective, point: Floats, value: float, direction: Floats, slope: float
) -> tuple[Floats, float, Floats] | None:
    """Go along a direction as far as the value falls enough; None where rounding hides that it falls."""
    length, slack = 1.0, 1e-15 * abs(value)
    while length * -slope > slack:
        new_point = point + length * direction
        new_value, gradient = objective(new_point)
        if new_value <= value + 1e-4 * length * slope + slack:
            return new_point, new_value, gradient
        length /= 2
    return None
