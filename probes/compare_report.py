"""The figure and the HTML report of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure as MatplotlibFigure

from panecho_embed.evaluation.plots import intervals
from panecho_embed.evaluation.wording import display_name
from panecho_embed.report import Block, Code, Facts, Figure, Section, Table, Text, figure, write_report
from panecho_embed.wording import interval, number, p_value, plural
from probes.compare import Comparison
from probes.evaluation import Evaluation
from probes.report import provenance_facts
from probes.wording import caution, probe_sentence, resolution_note, split_sentence

LONG = 20  # lines of a table that are folded away


def comparison_figure(comparison: Comparison) -> MatplotlibFigure:
    """The primary metric of every candidate with its interval, best first; dashed: the trivial baseline."""
    scores = {name: comparison.score(name) for name in comparison.evaluations}
    rows = [(name, score.value, score.low, score.high) for name, score in scores.items()]
    evaluation = next(iter(comparison.evaluations.values()))
    baseline = evaluation.baseline_scores[comparison.metric].value
    return intervals(rows, f"{comparison.target}: {display_name(comparison.metric)}", reference=baseline)


def comparison_drawing(comparison: Comparison) -> Figure:
    """`comparison_figure` as a block of a report."""
    return figure(comparison_figure(comparison), f"{comparison.target}: 95 % intervals; dashed: the trivial baseline.")


def write_comparison_report(
    comparisons: Sequence[Comparison],
    drawn: Sequence[Figure],
    path: Path,
    *,
    command: str = "",
    not_compared: Mapping[str, str],
) -> Path:
    """Write the report of comparisons of the same candidates on one target or more. drawn: the figure of each."""
    candidates = comparisons[0].evaluations
    targets = ", ".join(comparison.target for comparison in comparisons)
    count = sum(len(comparison.differences) for comparison in comparisons)
    sections = [Section(c.target, _blocks(c, figure, count)) for c, figure in zip(comparisons, drawn, strict=True)]
    notes = [*_untrained(candidates), *(f"{name} was not compared: {why}" for name, why in not_compared.items())]
    if notes:
        sections.insert(0, Section("To be wary of", [Text(note, "warning") for note in notes]))
    sections.append(Section("Methods", [Text(paragraph) for paragraph in _paragraphs(comparisons)]))
    sections += _embeddings(candidates)
    sections.append(Section("Repeat this run", [Code(command)] if command else [Text("Run from Python.", "note")]))
    return write_report(path, f"Comparison: {targets}", f"{len(candidates)} embeddings on the same patients", sections)


def _blocks(comparison: Comparison, drawn: Figure, count: int) -> list[Block]:
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
    one = next(iter(evaluations.values()))
    problem = one.problem
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
    caption = (
        f"Paired differences of {display_name(comparison.metric)}; p corrected for the {count} of this report (Holm)."
    )
    notes = [caution(one), resolution_note(count, one.draws)]
    return [
        *(Text(note, "warning") for note in notes if note),
        Table(columns, rows, f"{counted}{left}. Best first."),
        drawn,
        Table(
            ["Difference", "Value", "95 % interval", "p", "p, corrected"], paired, caption, folded=len(paired) > LONG
        ),
    ]


def _untrained(candidates: Mapping[str, Evaluation]) -> list[str]:
    """That embeddings come from random weights, and which."""
    names = [name for name, evaluation in candidates.items() if not evaluation.problem.provenance.weights.pretrained]
    return [f"{', '.join(names)}: from random, untrained weights. They test the pipeline."] if names else []


def _paragraphs(comparisons: Sequence[Comparison]) -> list[str]:
    """The methods of each kind of task, which say of which targets where there are several."""
    alike: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        alike.setdefault(next(iter(comparison.evaluations.values())).problem.task, []).append(comparison)
    several = len(alike) > 1
    return [
        (f"{', '.join(c.target for c in group)}: " if several else "") + _methods(group[0]) for group in alike.values()
    ]


def _embeddings(candidates: Mapping[str, Evaluation]) -> list[Section]:
    """How the embeddings were made: what is the same for all candidates once, then what is each one's own."""
    provenances = {name: evaluation.problem.provenance for name, evaluation in candidates.items()}
    facts = {name: provenance_facts(provenance, name) for name, provenance in provenances.items()}
    first = next(iter(facts.values()))
    shared = {key: value for key, value in first.items() if all(own.get(key) == value for own in facts.values())}
    sections = [Section("Embeddings: all candidates", [Facts(shared)])] if shared else []
    for name, own in facts.items():
        rest = {key: value for key, value in own.items() if key not in shared}
        sections.append(Section(f"Embeddings: {name}", [Facts(rest)]))
    return sections


def _methods(comparison: Comparison) -> str:
    evaluation = next(iter(comparison.evaluations.values()))
    return (
        "The same probe was trained and tested on the same patients and splits for every candidate. "
        f"{probe_sentence(evaluation)} The setting was chosen for each candidate by itself. "
        f"{split_sentence(evaluation, comparison.k_shot)} "
        f"95% confidence intervals are percentile intervals from {evaluation.draws:,} bootstrap samples of patients; "
        "for differences each sample drew the same patients for both candidates. P-values are two-sided and corrected "
        f"for all differences of this report by Holm's method. The random seed was {evaluation.seed}."
    )
