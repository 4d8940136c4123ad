"""The HTML report of a comparison, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from panecho_embed.comparison.figures import comparison_figures, figure_label, file_stem
from panecho_embed.comparison.result import ComparisonResult, training_seconds
from panecho_embed.comparison.statistics import Comparison
from panecho_embed.comparison.tables import (
    FEW,
    contrast_rows,
    efficiency_rows,
    overview_rows,
    score_rows,
    verdict,
)
from panecho_embed.finetune.outcome import Outcome
from panecho_embed.finetune.recipe_files import to_toml
from panecho_embed.finetune.report import start_facts
from panecho_embed.finetune.wording import evaluation_sentences, picture_words, training_sentences
from panecho_embed.report import Block, Code, Facts, Figure, Figures, Folded, Section, Table, Text, figure, write_report
from panecho_embed.wording import number, plural


def write_comparison_report(result: ComparisonResult) -> Path:
    """Write plots/ and report.html into the comparison's folder; returns the report. Raises OSError, StoreError."""
    plots = result.folder / "plots"
    plots.mkdir(exist_ok=True)
    drawn: dict[str, Figure] = {}
    for name, drawing, caption in comparison_figures(result):
        drawing.savefig(plots / f"{name}.png", dpi=150)
        drawn[name] = figure(drawing, caption)
    sections = [
        Section("What was asked", [Facts(_asked(result))]),
        Section("Result", _summary(result)),
        *_target_sections(result, drawn),
        Section("Training", _training(result, drawn)),
        Section("Data", _data(result)),
        Section("Starting points", _starts(result)),
        Section("Methods", [Text(methods(result))]),
        Section("Repeat this comparison", _repeat(result)),
    ]
    names = [task.name for task in next(iter(result.outcomes.values())).tasks]
    title = f"Starting points compared: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if names[4:] else "")
    subtitle = "The same recipe, data and seeds from every start."
    return write_report(result.folder / "report.html", title, subtitle, sections)


def methods(result: ComparisonResult) -> str:
    """How the result was come by, in the words of a methods section."""
    recipe, first = result.recipe, next(iter(result.outcomes.values()))
    frozen = (
        " Frozen: a linear probe (ridge or logistic regression) on the mean clip embedding of the untrained start, "
        "fitted to the same training patients, its strength chosen on the same validation patients. An image encoder "
        "without a transformer of its own was read on frames."
        if any("(frozen)" in s.candidate.name for s in result.comparisons[0].standings)
        else ""
    )
    fractions = (
        " Smaller training sets were drawn by patient; with the same seed each lies inside the larger ones, and all "
        "starts got the same patients. Validation and test patients stayed the same."
        if len(result.fractions) > 1
        else ""
    )
    orders = {trial.init: outcome.info["plane_order"] for trial, outcome in result.outcomes.items()}
    pictures = " ".join(f"{init} saw {picture_words(order)}." for init, order in orders.items())
    seeds = f"{result.seeds} {plural('seed', result.seeds)} (from {recipe.seed} on)"
    return (
        f"Each start was trained with {seeds} by the same recipe. {pictures} {training_sentences(recipe, first.tasks)} "
        f"{evaluation_sentences(recipe)}{frozen}{fractions} The value of a start is the mean of the metric over its "
        "runs. Every bootstrap drew the same patients for all runs of all starts, so differences are paired by "
        "patient. P-values are two-sided, from the bootstrap, and corrected by Holm's method for all differences of a "
        "target. The intervals hold for these training runs; what other seeds would give is told by the standard "
        "deviation over seeds."
    )


def _asked(result: ComparisonResult) -> dict[str, str]:
    first = result.recipe.seed
    return {
        "Recipe": result.recipe.description,
        "Starts": ", ".join(result.inits),
        "Reference": result.reference or "none",
        "Seeds": ", ".join(map(str, range(first, first + result.seeds))),
        "Training patients": ", ".join(f"{100 * fraction:g} %" for fraction in sorted(result.fractions)),
    }


def _summary(result: ComparisonResult) -> list[Block]:
    blocks: list[Block] = [Text(f"{problem.name}: {problem.message}", "warning") for problem in result.problems]
    largest = max(result.fractions)
    if len(result.comparisons) > 1:
        overview = overview_rows(result.comparisons, largest)
        blocks.append(Table(*overview, "The metric of each start, by target.", wrapped=True))
    blocks += [Text(verdict(comparison, largest, result.reference)) for comparison in result.comparisons[:FEW]]
    if result.n_left_out:
        text = f"{result.n_left_out} test rows that not every run has were left out."
        blocks.append(Text(text, "warning"))
    return blocks


def _target_sections(result: ComparisonResult, drawn: Mapping[str, Figure]) -> list[Section]:
    details = [(comparison, _target_blocks(result, comparison, drawn)) for comparison in result.comparisons]
    if len(details) <= FEW:
        return [Section(comparison.name, blocks) for comparison, blocks in details]
    means = [Section(comparison.name, blocks) for comparison, blocks in details if comparison.over_targets]
    folded = [Folded(comparison.name, blocks) for comparison, blocks in details if not comparison.over_targets]
    return [*means, Section("Each target", [Text("Printed are those that stand open.", "note"), *folded])]


def _target_blocks(result: ComparisonResult, comparison: Comparison, drawn: Mapping[str, Figure]) -> list[Block]:
    blocks: list[Block] = []
    for fraction in sorted(result.fractions, reverse=True):
        share = "" if fraction == 1 else f"Trained on {100 * fraction:g} % of the training patients. "
        score = comparison.standings[0].scores[comparison.metric]
        level = result.recipe.evaluation.level
        tested = f"{share}{score.n} {plural(level, score.n)} of {score.n_patients} patients tested. Best first."
        tables: list[Block] = [Table(*score_rows(comparison, fraction), tested)]
        if any(contrast.fraction == fraction for contrast in comparison.contrasts):
            caption = "Paired differences, corrected for their number; SE of seeds: what the few seeds leave open."
            tables.append(Table(*contrast_rows(comparison, fraction), caption))
        largest = fraction == max(result.fractions)
        blocks += tables if largest else [Folded(f"At {100 * fraction:g} % of the training patients", tables)]
        if largest:
            names = [f"{file_stem(comparison)}-{kind}" for kind in ("starts", "differences")]
            blocks.append(Figures([drawn[name] for name in names if name in drawn]))
    if len(result.fractions) > 1:
        caption = f"{figure_label(comparison)} by the fraction of training patients, with 95 % intervals"
        blocks.append(Table(*efficiency_rows(comparison, sorted(result.fractions)), caption))
        blocks.append(Figures([drawn[f"{file_stem(comparison)}-label-efficiency"]]))
    return [*blocks, _by_seed(comparison)]


def _by_seed(comparison: Comparison) -> Table:
    rows = []
    for standing in comparison.standings:
        if standing.candidate.contrasted:
            values = standing.by_run[comparison.metric]
            texts = ", ".join(number(value) for value in values)
            rows.append([standing.candidate.name, f"{standing.candidate.fraction:g}", texts])
    return Table(["Start", "Fraction", f"{figure_label(comparison)} of each run"], rows, "Every seed", folded=True)


def _training(result: ComparisonResult, drawn: Mapping[str, Figure]) -> list[Block]:
    rows = []
    for trial, outcome in result.outcomes.items():
        epochs = [str(len(table)) for table in outcome.histories.values()]
        kept = outcome.info["best_epoch"] if "" in outcome.histories else "-"
        folder = trial.folder.relative_to(result.folder)
        row = [trial.init, f"{trial.fraction:g}", str(trial.seed), "+".join(epochs), str(kept)]
        rows.append([*row, f"{training_seconds(outcome) / 60:.1f}", str(folder)])
    columns = ["Start", "Fraction", "Seed", "Epochs", "Kept", "Minutes", "Folder"]
    return [Figures([drawn["histories"]]), Table(columns, rows, "Every run", folded=True)]


def _data(result: ComparisonResult) -> list[Block]:
    first = next(iter(result.outcomes.values()))
    rows = []
    for fraction in sorted(result.fractions, reverse=True):
        counts = [outcome.info["counts"] for trial, outcome in result.outcomes.items() if trial.fraction == fraction]
        if counts:
            cells = [f"{counts[0][part]} ({counts[0][f'{part}_patients']})" for part in ("train", "val", "test")]
            rows.append([f"{fraction:g}", *cells])
    caption = "Videos (and patients) of each part. No patient is on two sides of a split."
    if result.recipe.data.folds:
        caption += " Training and validation: the mean over the folds; test: all folds together."
    data = first.info["data"]
    return [
        Table(["Fraction", "Training", "Validation", "Test"], rows, caption),
        Facts({"Data": data["path"], "Fingerprint": data["fingerprint"]}),
    ]


def _starts(result: ComparisonResult) -> list[Block]:
    of_init: dict[str, Outcome] = {}
    for trial, outcome in result.outcomes.items():
        of_init.setdefault(trial.init, outcome)
    return [Facts(start_facts(outcome.info)) for outcome in of_init.values()]


def _repeat(result: ComparisonResult) -> list[Block]:
    command: Block = Code(result.command) if result.command else Text("Run from Python.", "note")
    return [command, Folded("The recipe", [Code(to_toml(result.recipe))])]
