"""The report of a run, whoever made it: the answer, every target, the data, the methods, how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from panecho_embed.core.wording import counted, file_stem, interval, number, plural
from panecho_embed.evaluation.inference import DEFAULT_DRAWS, interval_method
from panecho_embed.evaluation.metrics import SHORT, display_name, has_better_side, higher_is_better
from panecho_embed.evaluation.page import (
    Block,
    Code,
    Facts,
    Figure,
    Figures,
    Folded,
    Section,
    Table,
    Text,
    figure,
    picture_file,
    write_report,
)
from panecho_embed.evaluation.scores import TOO_NARROW, Scored, Scores, caution_of, few_tested, subgroup_rows
from panecho_embed.evaluation.targets import KINDS

FEW_TARGETS = 4  # targets whose sections stand open
_MAIN_FIGURES = ("scatter", "roc", "precision-recall")  # of each target, where there are many


@dataclass(frozen=True, slots=True)
class Account:
    """What a report says of a run beside its scores.

    Parameters
    ----------
    title, subtitle : str
    question : str
        What was asked, in words: "Can {targets} be read from panecho embeddings by a linear probe?".
    facts : mapping of str to str
        What was asked, of what, and how, below the answer.
    warnings : sequence of str
        What keeps the figures from being trusted as they stand.
    baseline : str
        What the baseline is, in words.
    extra : mapping of str to blocks
        Further blocks of a target, by its name: subgroups, the grid of settings.
    columns : mapping of str to mapping
        Further columns of a target's table of metrics: target -> title -> metric -> cell.
    sections : sequence of Section
        After the targets: training, data.
    methods : sequence of str
        Paragraphs of a methods section.
    command : str
        To repeat the run; "" for a call from Python.
    repeat : blocks
        What else is needed to repeat it.
    """

    title: str
    subtitle: str
    question: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    baseline: str = "The baseline predicts the mean, or the class frequencies, of the training labels."
    extra: Mapping[str, Sequence[Block]] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    methods: Sequence[str] = ()
    command: str = ""
    repeat: Sequence[Block] = ()


def write_run_report(folder: Path, scored: Sequence[Scored], account: Account) -> Path:
    """Write report.html and plots/*.svg of a run into the folder that is being made. Raises OSError."""
    ordered = by_kind(scored)
    drawn = {one.target.name: _figures(one, many=len(scored) > FEW_TARGETS) for one in ordered}
    write_figures(folder, drawn)
    details = [(one.target.title, _target_blocks(one, drawn[one.target.name], account)) for one in ordered]
    return write_page(folder, account, _answer(ordered, account), details, "run")


def write_page(
    folder: Path,
    account: Account,
    answer: Sequence[Block],
    details: Sequence[tuple[str, Sequence[Block]]],
    what: str,
    means: Sequence[Section] = (),
) -> Path:
    """Write report.html: the answer, every target (folded where there are many), the account, how to repeat it.

    details: titles and blocks of the targets. what: "run" or "comparison". means: sections that stay open before them.
    """
    targets = [Section(title, blocks) for title, blocks in details]
    if len(details) + len(means) > FEW_TARGETS:
        targets = [Section("Each target", [Folded(title, blocks) for title, blocks in details])]
    command = Code(account.command) if account.command else Text("Run from Python.", "note")
    sections = [
        Section("Answer", answer),
        *means,
        *targets,
        *account.sections,
        Section("Methods", [Text(paragraph) for paragraph in account.methods]),
        Section(f"Repeat this {what}", [command, *account.repeat]),
    ]
    return write_report(folder / "report.html", account.title, account.subtitle, sections)


def write_figures(folder: Path, drawn: Mapping[str, Mapping[str, Figure]]) -> None:
    """Write the figures of each target as plots/TARGET-NAME.svg. Raises OSError."""
    place = folder / "plots"
    place.mkdir(exist_ok=True)
    for target, figures in drawn.items():
        for name, block in figures.items():
            (place / f"{file_stem(target)}-{name}.svg").write_text(picture_file(block), encoding="utf-8")


def by_kind(scored: Sequence[Scored]) -> list[Scored]:
    """Targets of the same kind together, by name."""
    return sorted(scored, key=lambda one: (KINDS.index(one.target.kind), one.target.name))


def answer(one: Scored) -> str:
    """Whether a target was predicted better than by the baseline, in a sentence with the figures."""
    value = f"{display_name(one.metric, one.target.unit)} {number(one.primary.value)} ({interval(one.primary)})"
    if one.metric not in one.gain or not np.isfinite(one.gain[one.metric].low):
        return f"{one.target.name}: {value}; there is no baseline to compare it with."
    gain = one.gain[one.metric]
    sign = 1 if higher_is_better(one.metric) else -1
    good, bad = min(sign * gain.low, sign * gain.high) > 0, max(sign * gain.low, sign * gain.high) < 0
    verdict = "better than" if good else "worse than" if bad else "not shown to be better than"
    return f"{one.target.name}: {verdict} the baseline. {value}, baseline {number(one.baseline[one.metric].value)}."


def summary_rows(scored: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the short metrics of each target, the primary one with its interval and the baseline."""
    rows = []
    for one in scored:
        gain = one.gain.get(one.metric)
        rows.append(
            [
                one.target.title,
                display_name(one.metric),
                number(one.primary.value),
                interval(one.primary),
                number(one.baseline[one.metric].value) if one.baseline else "-",
                f"{number(gain.value)} ({interval(gain)})" if gain else "-",
                str(one.primary.n),
                str(one.primary.n_patients),
            ]
        )
    return ["Target", "Metric", "Value", "95 % interval", "Baseline", "Difference", "n", "Patients"], rows


def metric_rows(
    one: Scored, columns: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: every metric with its interval, the baseline and the difference to it.

    columns: further ones, title -> metric -> cell.
    """
    further = columns or {}
    rows = []
    for name, score in one.scores.items():
        if not np.isfinite(one.by_run[name]).any():
            continue  # a metric that some trainings define is shown as not defined
        row = [display_name(name, one.target.unit), number(score.value), interval(score)]
        if one.baseline:
            row.append(number(one.baseline[name].value))
            gain = one.gain.get(name)
            shown = gain is not None and has_better_side(name) and np.isfinite(gain.value)
            row.append(f"{number(gain.value)} ({interval(gain)})" if shown and gain is not None else "-")
        rows.append(row + [cells.get(name, "-") for cells in further.values()])
    with_baseline = ["Baseline", "Difference"] if one.baseline else []
    return ["Metric", "Value", "95 % interval", *with_baseline, *further], rows


def cautions(scored: Sequence[Scored]) -> list[str]:
    """Warnings of too few tested patients; one for all targets where it is the same."""
    notes = {one.target.name: note for one in scored if (note := caution_of(one.few))}
    if len(notes) == len(scored) and len(set(notes.values())) == 1:
        return list(set(notes.values()))
    return [f"{name}: {note}" for name, note in sorted(notes.items())]


def interval_sentence(scored: Sequence[Scored]) -> str:
    """How the intervals were made, for a methods section."""
    trainings = max(len(one.predictions.replicates()) for one in scored)
    several = (
        f" Values are means over {trainings} trainings, and the intervals hold the variance over them too, with "
        "Satterthwaite's degrees of freedom."
        if trainings > 1
        else ""
    )
    methods = dict.fromkeys(interval_method(metric) for one in scored for metric in one.scores)
    draws = scored[0].draws if scored else DEFAULT_DRAWS
    return (
        f"{' '.join(methods)} {draws:,} bootstrap samples of patients were drawn, all rows of a drawn patient "
        f"included.{several}"
    )


def _answer(scored: Sequence[Scored], account: Account) -> list[Block]:
    blocks: list[Block] = [Text(account.question)] if account.question else []
    if len(scored) <= FEW_TARGETS:
        blocks += [Text(answer(one)) for one in scored]
    blocks += [Text(note, "warning") for note in [*account.warnings, *cautions(scored)]]
    if scored:
        blocks.append(Table(*summary_rows(scored), account.baseline))
    return [*blocks, *([Facts(account.facts)] if account.facts else [])]


def _target_blocks(one: Scored, drawn: Mapping[str, Figure], account: Account) -> list[Block]:
    level, primary = one.predictions.level, one.primary
    tested = f"{counted(primary.n, level)} of {counted(primary.n_patients, 'patient')} tested."
    columns, rows = metric_rows(one, account.columns.get(one.target.name))
    caption = f"{tested} Difference: to the baseline, paired by patient." if one.baseline else tested
    return [Figures(list(drawn.values())), Table(columns, rows, caption), *account.extra.get(one.target.name, ())]


def _figures(one: Scored, *, many: bool) -> dict[str, Figure]:
    """The figures of a target by name; of many targets the main ones only."""
    from panecho_embed.evaluation.plots import target_figures

    return {
        name: figure(made, f"{one.target.name}. {caption}")
        for name, (made, caption) in target_figures(one).items()
        if name in _MAIN_FIGURES or not many
    }


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


def short_scores(one: Scored, tested: str = "test") -> str:
    """The short metrics of a target with the baseline, for a line on the terminal; tested: which rows they are of."""
    parts = []
    for name in SHORT[one.target.kind][:2]:
        score = one.scores[name]
        baseline = f"; baseline {number(one.baseline[name].value)}" if one.baseline else ""
        parts.append(f"{display_name(name)} {number(score.value)} (95 % {interval(score)}{baseline})")
    level = plural(one.predictions.level, one.primary.n)
    return f"{'; '.join(parts)} ({one.primary.n} {tested} {level} of {counted(one.primary.n_patients, 'patient')})"
