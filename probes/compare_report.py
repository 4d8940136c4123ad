"""The figure and the HTML report of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as MatplotlibFigure

from panecho_embed.plots import intervals
from panecho_embed.report import Block, Code, Facts, Section, Table, Text, figure, write_report
from panecho_embed.wording import display_name, interval, number, p_value, plural
from probes.compare import Comparison
from probes.report import provenance_facts, untrained_warning


def comparison_figure(comparison: Comparison) -> MatplotlibFigure:
    """The primary metric of every candidate with its interval, best first; dashed: the trivial baseline."""
    scores = {name: comparison.score(name) for name in comparison.evaluations}
    rows = [(name, score.value, score.low, score.high) for name, score in scores.items()]
    evaluation = next(iter(comparison.evaluations.values()))
    baseline = evaluation.baseline_scores[comparison.metric].value
    return intervals(rows, f"{comparison.target}: {display_name(comparison.metric)}", reference=baseline)


def write_comparison_report(comparisons: Sequence[Comparison], path: Path, *, command: str = "") -> Path:
    """Write the report of comparisons of the same candidates on one target or more."""
    candidates = comparisons[0].evaluations
    targets = ", ".join(comparison.target for comparison in comparisons)
    sections = [Section(comparison.target, _blocks(comparison)) for comparison in comparisons]
    sections.append(Section("Methods", [Text(_methods(comparisons[0]))]))
    for name, evaluation in candidates.items():
        provenance = evaluation.problem.provenance
        blocks: list[Block] = [*untrained_warning(provenance), Facts(provenance_facts(provenance, name))]
        sections.append(Section(f"Embeddings: {name}", blocks))
    sections.append(Section("Repeat this run", [Code(command)] if command else [Text("Run from Python.", "note")]))
    return write_report(path, f"Comparison: {targets}", f"{len(candidates)} embeddings on the same patients", sections)


def _blocks(comparison: Comparison) -> list[Block]:
    evaluations = comparison.evaluations
    metrics = [name for name in next(iter(evaluations.values())).scores if ":" not in name]
    others = [name for name in metrics if name != comparison.metric][:3]
    rows = []
    for name, evaluation in evaluations.items():
        score = comparison.score(name)
        values = [number(evaluation.scores[other].value) for other in others]
        rows.append([name, number(score.value), interval(score), *values])
    columns = ["Candidate", display_name(comparison.metric), "95 % interval", *map(display_name, others)]
    first = comparison.score(next(iter(evaluations)))
    problem = next(iter(evaluations.values())).problem
    counted = f"{first.n} {plural(problem.level, first.n)} of {first.n_patients} patients tested"
    left = f"; {comparison.n_left_out} not in every file left out" if comparison.n_left_out else ""
    paired = [
        [
            f"{d.first} - {d.second}",
            number(d.difference.value),
            interval(d.difference),
            p_value(d.difference.p_value),
            p_value(d.p_holm),
        ]
        for d in comparison.differences
    ]
    caption = f"Paired differences of {display_name(comparison.metric)}, corrected for their number by Holm's method."
    return [
        Table(columns, rows, f"{counted}{left}. Best first."),
        figure(comparison_figure(comparison), f"{comparison.target}: 95 % intervals; dashed: the trivial baseline."),
        Table(["Difference", "Value", "95 % interval", "p", "p, corrected"], paired, caption),
    ]


def _methods(comparison: Comparison) -> str:
    evaluation = next(iter(comparison.evaluations.values()))
    return (
        "The same probe was trained and tested on the same patients and splits for every candidate; its settings were "
        "chosen for each candidate on held-out training patients. Intervals are percentile intervals from "
        f"{evaluation.draws:,} bootstrap samples of patients; for differences each sample drew the same patients for "
        "both candidates. P-values are two-sided and corrected by Holm's method. "
        f"The random seed was {evaluation.seed}."
    )
