"""The tables of a comparison, as texts: for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from panecho_embed.comparison.statistics import Comparison, Contrast, Standing
from panecho_embed.evaluation.metrics import higher_is_better
from panecho_embed.evaluation.wording import display_name
from panecho_embed.wording import interval, number, p_value

Rows = list[list[str]]

SIGNIFICANT = 0.05
FEW = 4
"""Comparisons that are told in full, one below the other; of more, the means over targets."""

_SECOND = {"mae": "r2", "auroc": "average_precision"}


def ranked(comparison: Comparison, fraction: float) -> list[Standing]:
    """The candidates of a fraction, best first; the baseline at its place."""
    sign = -1 if higher_is_better(comparison.metric) else 1
    there = [s for s in comparison.standings if s.candidate.fraction == fraction]
    return sorted(there, key=lambda s: sign * s.scores[comparison.metric].value)


def score_rows(comparison: Comparison, fraction: float) -> tuple[list[str], Rows]:
    """Columns and rows: each candidate's value, its interval over patients, and what seeds do, best first."""
    metric, second = comparison.metric, _SECOND.get(comparison.metric, "")
    standings = ranked(comparison, fraction)
    has_second = all(second in standing.scores for standing in standings)
    columns = ["Start", "Runs", display_name(metric), "95 % interval", "SD over patients", "SD over seeds"]
    rows = []
    for standing in standings:
        score = standing.scores[metric]
        row = [standing.candidate.name, _runs(standing), number(score.value), interval(score)]
        row += [number(standing.sampling_sd[metric]), _seed_sd(standing, metric)]
        rows.append(row + ([number(standing.scores[second].value)] if has_second else []))
    return columns + ([display_name(second)] if has_second else []), rows


def overview_rows(comparisons: Sequence[Comparison], fraction: float) -> tuple[list[str], Rows]:
    """Columns and rows: the primary metric of every candidate, a target a row; the best of the first one first."""
    names = [standing.candidate.name for standing in ranked(comparisons[0], fraction)]
    rows = []
    for comparison in comparisons:
        values = {s.candidate.name: number(s.scores[comparison.metric].value) for s in ranked(comparison, fraction)}
        rows.append([comparison.name, display_name(comparison.metric), *(values[name] for name in names)])
    return ["Target", "Metric", *names], rows


def contrast_rows(comparison: Comparison, fraction: float) -> tuple[list[str], Rows]:
    """Columns and rows: the paired differences to the reference, in the order of the ranking."""
    place = {standing.candidate.name: i for i, standing in enumerate(ranked(comparison, fraction))}
    of_fraction = sorted((c for c in comparison.contrasts if c.fraction == fraction), key=lambda c: place[c.first])
    rows = [
        [
            f"{contrast.first} - {contrast.second}",
            number(contrast.difference.value),
            interval(contrast.difference),
            p_value(contrast.difference.p_value),
            p_value(contrast.p_holm),
            number(contrast.seed_se),
        ]
        for contrast in of_fraction
    ]
    return ["Difference", display_name(comparison.metric), "95 % interval", "p", "p, corrected", "SE of seeds"], rows


def efficiency_rows(comparison: Comparison, fractions: Sequence[float]) -> tuple[list[str], Rows]:
    """Columns and rows: the primary metric of each candidate at each fraction."""
    names = list(dict.fromkeys(s.candidate.name for s in comparison.standings if s.candidate.contrasted))
    columns = ["Start", *(f"{fraction:.3g}" for fraction in fractions)]
    rows = []
    for name in names:
        cells = []
        for fraction in fractions:
            found = [s for s in comparison.standings if (s.candidate.name, s.candidate.fraction) == (name, fraction)]
            score = found[0].scores[comparison.metric] if found else None
            cells.append(f"{number(score.value)} ({interval(score)})" if score else "-")
        rows.append([name, *cells])
    return columns, rows


def verdict(comparison: Comparison, fraction: float, reference: str | None) -> str:
    """In a few sentences: which start is best, and which ones can be told apart from the reference."""
    best = next(s for s in ranked(comparison, fraction) if s.candidate.contrasted)
    score = best.scores[comparison.metric]
    text = (
        f"{comparison.name}: {best.candidate.name} has the best {display_name(comparison.metric)}, "
        f"{number(score.value)} ({interval(score)})."
    )
    contrasts = [c for c in comparison.contrasts if c.fraction == fraction]
    told: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    for contrast in contrasts:
        better = (contrast.difference.value > 0) == higher_is_better(comparison.metric)
        kind = ("better" if better else "worse") if contrast.p_holm < SIGNIFICANT else "not told apart"
        told[kind].append(contrast.first)
    lists = [f"{kind}: {', '.join(names)}" for kind, names in told.items() if names]
    if lists:
        text += f" Set against {reference} at a corrected p of {SIGNIFICANT}, {'; '.join(lists)}."
    return text + _seed_note(contrasts)


def aligned(columns: Sequence[str], rows: Rows) -> str:
    """The table as lines of text: the first column to the left, the others to the right."""
    cells = [list(columns), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        others = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join([row[0].ljust(widths[0]), *others]).rstrip()

    return "\n".join(map(line, cells))


def _runs(standing: Standing) -> str:
    return str(len(standing.by_run[next(iter(standing.by_run))])) if standing.candidate.contrasted else "-"


def _seed_sd(standing: Standing, metric: str) -> str:
    return number(standing.seed_sd(metric)) if standing.candidate.random else "no seed"


def _seed_note(contrasts: Sequence[Contrast]) -> str:
    """What the p-values do not know: that other seeds could turn a small difference around."""
    within = [c.first for c in contrasts if c.p_holm < SIGNIFICANT and abs(c.difference.value) < 2 * c.seed_se]
    if within:
        return (
            f" With other seeds it might be otherwise for {', '.join(within)}: the difference is less than twice the "
            "standard error that these seeds leave."
        )
    if any(math.isnan(c.seed_se) for c in contrasts):
        return " With one seed, it is not known what other seeds would give."
    return ""
