"""The same predictions, scored in parts: by view, sex, scanner, or thirds of a number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.intervals import scores
from panecho_embed.records import Score
from probes.evaluation import Evaluation

Ints = npt.NDArray[np.int64]

MAX_TEXTS = 12
MAX_NUMBERS = 6


def subgroup_scores(evaluation: Evaluation, column: str) -> dict[str, dict[str, Score]]:
    """Scores by subgroup of the tested units, each with its own n and interval.

    column, errors: as in `subgroup_units`. A metric that a group does not allow (AUROC of one class) is NaN.
    """
    return {
        name: scores(evaluation.metrics(units), draws=evaluation.draws, seed=evaluation.seed)
        for name, units in subgroup_units(evaluation, column).items()
    }


def subgroup_units(evaluation: Evaluation, column: str) -> dict[str, Ints]:
    """The tested units of each subgroup.

    column: "view" or any label. Texts (at most 12) and numbers of at most 6 different values are groups; other
    numbers are cut into thirds of the tested units; units without a value are the group "missing". Raises ArgumentError
    for a column that isn't there or has too many texts.
    """
    columns = evaluation.problem.columns
    if column not in columns:
        raise ArgumentError(f"no column {column!r} for subgroups; there are {', '.join(columns)} (--subgroups)")
    tested = evaluation.tested
    return {name: tested[rows] for name, rows in _groups(columns[column][tested], column).items()}


def _groups(values: npt.NDArray[np.generic], column: str) -> dict[str, Ints]:
    if values.dtype.kind in "fiu":
        return _number_groups(values.astype(np.float64))
    names = sorted({str(value) for value in values})
    if len(names) > MAX_TEXTS:
        raise ArgumentError(
            f"{column} has {len(names)} different texts; a subgroup column has at most {MAX_TEXTS} (--subgroups)"
        )
    missing = "missing" if "missing" not in names else "(missing)"
    return {name or missing: np.flatnonzero(values == name) for name in names}


def _number_groups(values: npt.NDArray[np.float64]) -> dict[str, Ints]:
    there = np.isfinite(values)
    different = np.unique(values[there])
    groups: dict[str, Ints]
    if len(different) <= MAX_NUMBERS:
        groups = {f"{value:.15g}": np.flatnonzero(values == value) for value in different}
    else:
        low, high = np.quantile(values[there], [1 / 3, 2 / 3])
        groups = {
            f"below {low:.4g}": np.flatnonzero(values < low),
            f"{low:.4g} to {high:.4g}": np.flatnonzero((values >= low) & (values < high)),
            f"{high:.4g} and above": np.flatnonzero(values >= high),
        }
    if not there.all():
        groups["missing"] = np.flatnonzero(~there)
    return {name: rows for name, rows in groups.items() if len(rows)}
