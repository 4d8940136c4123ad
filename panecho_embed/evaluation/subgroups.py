"""The same predictions, scored in parts: by view, sex, scanner, or thirds of a number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import interval, number
from panecho_embed.evaluation.intervals import bootstrap, scores_of
from panecho_embed.evaluation.metrics import SHORT, display_name, point_values
from panecho_embed.evaluation.page import Block, Table, figure
from panecho_embed.evaluation.scores import TOO_NARROW, Scored, Scores, averaged, few_tested, with_runs

_MAX_TEXTS = 12
_MAX_NUMBERS = 6


def subgroup_scores(scored: Scored, column: str, values: npt.NDArray[np.generic]) -> dict[str, Scores]:
    """Scores by subgroup of the tested rows, each with its own n and interval.

    Parameters
    ----------
    scored : Scored
    column : str
        Name of the column, for messages.
    values : (N,) array
        Of the rows of `scored.predictions`. Texts (at most 12) and numbers of at most 6 different values are groups;
        other numbers are cut into thirds; rows without a value are the group "missing".

    Returns
    -------
    dict
        Group -> metric -> score. A metric that a group does not allow (AUROC of one class) is NaN.

    Raises
    ------
    ArgumentError
        For a column with too many different texts.
    """
    found: dict[str, Scores] = {}
    for name, rows in subgroup_rows(values, column).items():
        runs = [part.metrics(scored.cutoffs) for part in scored.predictions.take(rows).replicates().values()]
        mean, points = averaged(runs), [point_values(run) for run in runs]
        (sampled,) = bootstrap([mean], draws=scored.draws, seed=scored.seed)
        by_run = {metric: np.array([point[metric] for point in points]) for metric in points[0]}
        found[name] = with_runs(scores_of(mean, sampled), by_run, sampled)
    return found


def subgroup_rows(values: npt.NDArray[np.generic], column: str) -> dict[str, Ints]:
    """Row numbers of each subgroup, as `subgroup_scores` makes them."""
    if values.dtype.kind in "fiu":
        return _number_groups(values.astype(np.float64))
    names = sorted({str(value) for value in values})
    if len(names) > _MAX_TEXTS:
        raise ArgumentError(
            f"{column} has {len(names)} different texts; a subgroup column has at most {_MAX_TEXTS} (--subgroups)"
        )
    missing = "missing" if "missing" not in names else "(missing)"
    return {name or missing: np.flatnonzero(values == name) for name in names}


def subgroup_blocks(
    scored: Scored, column: str, groups: dict[str, Scores], values: npt.NDArray[np.generic]
) -> list[Block]:
    """A table and a figure of subgroups for a report."""
    from panecho_embed.evaluation.plots import intervals

    metrics, target = SHORT[scored.target.kind], scored.target
    rows = []
    for name, found in groups.items():
        cells = [f"{number(found[m].value)} ({interval(found[m])})" if m in found else "-" for m in metrics]
        first = found[metrics[0]]
        rows.append([name, str(first.n), str(first.n_patients), *cells])
    few = []
    for name, places in subgroup_rows(values, column).items():
        part = scored.predictions.take(places)
        if count := few_tested(part.patient, part.truth, target.classes):
            few.append(f"{name}: {count}")
    caption = f"Subgroups by {column}." + (f" Few tested ({'; '.join(few)}): {TOO_NARROW}." if few else "")
    primary = metrics[0]
    lines = [(name, found[primary].value, found[primary].low, found[primary].high) for name, found in groups.items()]
    label = display_name(primary, target.unit)
    drawing = intervals(lines, label, reference=scored.primary.value)
    table = Table([column, "n", "Patients", *(display_name(m, target.unit) for m in metrics)], rows, caption)
    return [table, figure(drawing, f"{target.name}: {label} by {column}; dashed: all.")]


def _number_groups(values: Floats) -> dict[str, Ints]:
    there = np.isfinite(values)
    different = np.unique(values[there])
    groups: dict[str, Ints]
    if len(different) <= _MAX_NUMBERS:
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
