"""The report of a run, whichever command made it: the answer, every target, data, methods, how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from panecho_embed.core.records import Score
from panecho_embed.core.wording import counted, file_stem, interval, number, plural
from panecho_embed.evaluation.conclusions import LABELS, advantage_of, conclude, overall, sentence, skill
from panecho_embed.evaluation.inference import DEFAULT_DRAWS, interval_method
from panecho_embed.evaluation.metrics import SHORT, display_name, has_better_side
from panecho_embed.evaluation.page import (
    Block,
    Code,
    Facts,
    Figure,
    Figures,
    Folded,
    Lead,
    Section,
    Table,
    Text,
    figure,
    picture_file,
    write_report,
)
from panecho_embed.evaluation.scores import (
    FEWEST_PATIENTS,
    TOO_NARROW,
    Scored,
    Scores,
    caution_of,
    few_tested,
    subgroup_rows,
)
from panecho_embed.evaluation.targets import KINDS

FEW_TARGETS = 4  # number of targets whose sections are open
GLOSSARY = (
    "Words of this report. Baseline, guessing: a prediction that looks at no image. Interval: 95 % confidence interval "
    "over patients. Settings id: SHA-256 of all settings that made the embeddings or the model; two files with the "
    "same id may be merged. Data digest: SHA-256 of the rows used (ids, embeddings, labels); the same id and digest "
    "mean the same input."
)
_MOST_LINES = 20  # of the figure of many targets
_WITHHELD = "withheld"
_WITHHELD_RULE = f"statistics of fewer than {FEWEST_PATIENTS} patients are withheld"
_MAIN_FIGURES = ("scatter", "roc", "precision-recall")  # of each target, if there are many
_DATA_FIGURES = ("scatter", "confusion")


@dataclass(frozen=True, slots=True)
class Account:
    """What a report says of a run besides its scores.

    Parameters
    ----------
    title, subtitle : str
    question : str
        What was asked, in words: "Can {targets} be read from panecho embeddings by a linear probe?".
    claim : str
        What a good figure shows of a target: "can be read from these embeddings".
    doubts : mapping of str to sequence of str
        By target, clauses that say why a good figure does not show it.
    facts : mapping of str to str
        Settings and inputs of the run.
    warnings : sequence of str
        Reasons not to take the figures at face value.
    baseline : str
        Description of the baseline.
    extra : mapping of str to blocks
        Further blocks of a target, by its name: subgroups, the grid of settings.
    columns : mapping of str to mapping
        Further columns of a target's table of metrics: target -> title -> metric -> cell.
    sections : sequence of Section
        After the targets: training, data.
    methods : sequence of str
        Paragraphs of a methods section.
    command : str
        Command that repeats the run; "" for a call from Python.
    repeat : blocks
        Further input of that command.
    inputs : mapping of str to mapping
        By candidate of a comparison, its settings_id and data_digest.
    listed : sequence of Section
        Long lists at the end of the page: skipped files.
    """

    title: str
    subtitle: str
    question: str = ""
    claim: str = "can be predicted"
    doubts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    baseline: str = "The baseline predicts the mean, or the class frequencies, of the training labels."
    extra: Mapping[str, Sequence[Block]] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    methods: Sequence[str] = ()
    command: str = ""
    repeat: Sequence[Block] = ()
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    listed: Sequence[Section] = ()


def write_run_report(folder: Path, scored: Sequence[Scored], account: Account) -> Path:
    """Write report.html and plots/*.svg of a run into the folder that is being made. Raises OSError."""
    ordered = by_kind(scored)
    drawn = {one.target.name: _figures(one, many=len(scored) > FEW_TARGETS) for one in ordered}
    write_figures(folder, drawn)
    main = _main_figure(ordered, drawn)
    below = {name: [made for made in figures.values() if made is not main] for name, figures in drawn.items()}
    details = [(one.target.title, _target_blocks(one, below[one.target.name], account)) for one in ordered]
    return write_page(folder, account, _answer(ordered, account, main), details, "run")


def write_page(
    folder: Path,
    account: Account,
    answer: Sequence[Block],
    details: Sequence[tuple[str, Sequence[Block]]],
    what: str,
    means: Sequence[Section] = (),
) -> Path:
    """Write report.html: the answer, every target (folded where there are many), the account, how to repeat it.

    Parameters
    ----------
    folder : Path
    account : Account
    answer : sequence of blocks
        The first screen, beginning with a `Lead`.
    details : sequence of (str, sequence of blocks)
        Title and blocks of each target.
    what : str
        "run" or "comparison".
    means : sequence of Section
        Sections before the targets that stay open.
    """
    targets = [Section(title, blocks) for title, blocks in details]
    if len(details) + len(means) > FEW_TARGETS:
        targets = [Section("Each target", [Folded(title, blocks) for title, blocks in details])]
    command = Code(account.command) if account.command else Text("Run from Python.", "note")
    asked: list[Block] = [Text(account.question)] if account.question else []
    asked += [Facts(account.facts)] if account.facts else []
    sections = [
        Section("", answer),
        *means,
        *targets,
        *([Section("What was asked", asked)] if asked else []),
        *account.sections,
        Section("Methods", [Text(paragraph) for paragraph in account.methods]),
        Section(f"Repeat this {what}", [command, *account.repeat, Text(GLOSSARY, "note")]),
        *account.listed,
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


def summary_rows(scored: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the short metrics of each target, the primary one with its interval and the baseline."""
    rows = []
    for one in scored:
        gain = one.gain.get(one.metric)
        rows.append(
            [
                one.target.name,
                display_name(one.metric, one.target.unit),
                *_cells(one.primary),
                number(one.baseline[one.metric].value) if one.baseline else "-",
                _difference_cell(gain),
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
        row = [display_name(name, one.target.unit), *_cells(score)]
        if one.baseline:
            row.append(number(one.baseline[name].value))
            row.append(_difference_cell(one.gain.get(name) if has_better_side(name) else None))
        rows.append(row + [cells.get(name, "-") if has_better_side(name) else "-" for cells in further.values()])
    with_baseline = ["Baseline", "Difference"] if one.baseline else []
    return ["Metric", "Value", "95 % interval", *with_baseline, *further], rows


def _cells(score: Score) -> list[str]:
    """Value and interval of a score for a table; withheld where too few patients were tested."""
    if score.n_patients < FEWEST_PATIENTS:
        return [_WITHHELD, "-"]
    return [number(score.value), interval(score)]


def _difference_cell(gain: Score | None) -> str:
    if gain is None or gain.n_patients < FEWEST_PATIENTS or not np.isfinite(gain.value):
        return "-"
    return f"{number(gain.value)} ({interval(gain)})"


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


def _answer(ordered: Sequence[Scored], account: Account, main: Figure | None) -> list[Block]:
    """The first screen of a run, and the table of its targets where there are several."""
    many = len(ordered) > FEW_TARGETS
    if many:
        sentences = [overall(ordered, account.claim)]
    else:
        sentences = [sentence(one, account.claim, account.doubts.get(one.target.name, ())) for one in ordered]
    lead = Lead(
        sentences or ["Nothing could be evaluated."],
        main,
        [*account.warnings, *cautions(ordered)],
        *(_verdict(ordered[0], account) if len(ordered) == 1 else ("", "")),
    )
    if len(ordered) < 2:
        return [lead]
    apart = " Each target is judged by itself; intervals are not corrected for the number of targets."
    return [lead, Table(*summary_rows(ordered), account.baseline + apart)]


def _verdict(one: Scored, account: Account) -> tuple[str, str]:
    found = conclude(advantage_of(one), one.primary.n_patients)
    if found == "yes" and account.doubts.get(one.target.name):
        return "Not shown", ""
    return LABELS[found], {"yes": "good", "worse": "bad"}.get(found, "")


def _main_figure(ordered: Sequence[Scored], drawn: Mapping[str, Mapping[str, Figure]]) -> Figure | None:
    """The figure of the first screen: of one target its first, of several how far each is from guessing."""
    if len(ordered) == 1:
        return next(iter(drawn[ordered[0].target.name].values()), None)
    found = [(one.target.name, *skill(one)) for one in ordered]
    rows = [row for row in found if np.isfinite(row[1:]).all()][:_MOST_LINES]
    if not rows:
        return None
    from panecho_embed.evaluation.plots import intervals

    rest = f" The first {len(rows)} targets." if len(rows) < len(ordered) else ""
    label = "0: guessing, 1: perfect"
    return figure(
        intervals(rows, label, reference=0),
        f"Advantage over guessing as a share of that of perfect predictions, with 95 % intervals.{rest}",
    )


def _target_blocks(one: Scored, drawn: Sequence[Figure], account: Account) -> list[Block]:
    level, primary = one.predictions.level, one.primary
    tested = f"{counted(primary.n, level)} of {counted(primary.n_patients, 'patient')} tested."
    if primary.n_patients < FEWEST_PATIENTS:
        tested += f" {_WITHHELD_RULE.capitalize()}."
    columns, rows = metric_rows(one, account.columns.get(one.target.name))
    caption = f"{tested} Difference: to the baseline, paired by patient." if one.baseline else tested
    figures = [Figures(drawn)] if drawn else []
    return [*figures, Table(columns, rows, caption), *account.extra.get(one.target.name, ())]


def _figures(one: Scored, *, many: bool) -> dict[str, Figure]:
    """The figures of a target by name; of many targets the main ones only."""
    from panecho_embed.evaluation.plots import target_figures

    few = one.primary.n_patients < FEWEST_PATIENTS  # then only what shows the data, no statistic
    return {
        name: figure(made, f"{one.target.name}. {caption}")
        for name, (made, caption) in target_figures(one).items()
        if (name in _DATA_FIGURES if few else name in _MAIN_FIGURES or not many)
    }


def subgroup_blocks(
    scored: Scored, column: str, groups: dict[str, Scores], values: npt.NDArray[np.generic]
) -> list[Block]:
    """A table and a figure of subgroups for a report."""
    from panecho_embed.evaluation.plots import intervals

    metrics, target = SHORT[scored.target.kind], scored.target
    rows = []
    for name, found in groups.items():
        cells = [_difference_cell(found.get(metric)) for metric in metrics]
        first = found[metrics[0]]
        rows.append([name, str(first.n), str(first.n_patients), *cells])
    few = []
    for name, places in subgroup_rows(values, column).items():
        part = scored.predictions.take(places)
        if count := few_tested(part.patient, part.truth, target.classes):
            few.append(f"{name}: {count}")
    caption = f"Subgroups by {column}; {_WITHHELD_RULE}." + (
        f" Few tested ({'; '.join(few)}): {TOO_NARROW}." if few else ""
    )
    primary = metrics[0]
    lines = [
        (name, found[primary].value, found[primary].low, found[primary].high)
        for name, found in groups.items()
        if found[primary].n_patients >= FEWEST_PATIENTS
    ]
    label = display_name(primary, target.unit)
    table = Table([column, "n", "Patients", *(display_name(m, target.unit) for m in metrics)], rows, caption)
    if not lines:
        return [table]
    drawing = intervals(lines, label, reference=scored.primary.value)
    return [table, figure(drawing, f"{target.name}: {label} by {column}; dashed: all.")]


def short_scores(one: Scored, tested: str = "test") -> str:
    """The short metrics of a target with the baseline, for a line on the terminal; tested: which rows they are of."""
    parts = []
    if one.primary.n_patients < FEWEST_PATIENTS:
        parts.append(_WITHHELD_RULE)
    for name in SHORT[one.target.kind][:2] if not parts else ():
        score = one.scores[name]
        baseline = f"; baseline {number(one.baseline[name].value)}" if one.baseline else ""
        parts.append(f"{display_name(name)} {number(score.value)} (95 % {interval(score)}{baseline})")
    level = plural(one.predictions.level, one.primary.n)
    return f"{'; '.join(parts)} ({one.primary.n} {tested} {level} of {counted(one.primary.n_patients, 'patient')})"
