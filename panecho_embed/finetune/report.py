"""The HTML report of a run, and its figures: how training went, what the model is worth, how to repeat it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as MatplotlibFigure

from panecho_embed.errors import StoreError
from panecho_embed.evaluation.metrics import PRIMARY, point_values
from panecho_embed.evaluation.plots import Predictions, task_figures
from panecho_embed.evaluation.wording import caution_of, display_name, few_tested
from panecho_embed.finetune.history_plots import history_figures
from panecho_embed.finetune.outcome import Outcome, TargetRows, read_outcome, read_targets
from panecho_embed.finetune.recipe_files import to_toml
from panecho_embed.finetune.wording import evaluation_sentences, picture_words, start_sentence, training_sentences
from panecho_embed.records import Score
from panecho_embed.report import Block, Code, Facts, Figure, Figures, Folded, Section, Table, Text, figure, write_report
from panecho_embed.wording import counted, interval, number, plural

_FEW = 4  # targets whose sections stand open
_MAIN_FIGURES = ("scatter", "roc", "precision-recall")  # of each target, where there are many
_SHOWN = {"regression": ("mae", "r2"), "classes": ("auroc", "average_precision", "balanced_accuracy")}
_PARTS = {"train": "Training", "val": "Validation", "test": "Test"}

Scores = Mapping[str, Score]


def write_run_report(folder: str | Path) -> Path:
    """Write report.html and plots/ into the folder of a finished run; returns the report. Raises StoreError."""
    outcome = read_outcome(folder)
    targets = read_targets(outcome)
    scores, baseline = read_metrics(outcome.folder)
    plots = outcome.folder / "plots"
    try:
        plots.mkdir(exist_ok=True)
        training = [_drawn(plots / f"history-{name}", *made) for name, made in history_figures(outcome).items()]
        details = [_target(outcome, target, scores[name], baseline[name], plots) for name, target in targets.items()]
    except OSError as error:
        raise StoreError(f"{plots}: the figures can't be written ({error})") from error
    command, recipe = Code(outcome.info["command"]), Folded("recipe.toml", [Code(to_toml(outcome.recipe))])
    sections = [
        Section("Result", _result(outcome, targets, scores, baseline)),
        *_target_sections(details),
        Section("Training", [Facts(_training_facts(outcome)), Figures(training)]),
        Section("Data", _data(outcome)),
        Section("Starting point", [Facts(start_facts(outcome.info))]),
        Section("Methods", [Text(_methods(outcome))]),
        Section("Repeat this run", [command, recipe]),
    ]
    names = ", ".join(list(targets)[:4]) + (f" and {len(targets) - 4} more" if len(targets) > 4 else "")
    subtitle = f"{outcome.recipe.description}. Start: {outcome.info['init']}."
    return write_report(outcome.folder / "report.html", f"Fine-tuning: {names}", subtitle, sections)


def read_metrics(folder: Path) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """The scores of a finished run and those of its baseline, by target. Raises StoreError."""
    path = folder / "metrics.json"
    try:
        targets = json.loads(path.read_text(encoding="utf-8"))["targets"]
        kinds = ("metrics", "baseline")
        both: list[dict[str, Scores]] = [
            {name: _scores(target[kind]) for name, target in targets.items()} for kind in kinds
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: no metrics of a finished run ({error})") from error
    return both[0], both[1]


def start_facts(info: Mapping[str, Any]) -> dict[str, str]:
    """The weights that a run started from, for people; info: of run.json."""
    weights, pre = info["weights"], info["preprocess"]
    channels = pre["channel_order"].upper()
    return {
        "Start": info["init"],
        "Weights": weights["source"] if weights["pretrained"] else f"{weights['source']}: untrained",
        "Weights SHA-256": weights["sha256"],
        "Licence of the weights": weights["licence"],
        "Pictures": picture_words(info["plane_order"]),
        "Pixels": f"resized to {pre['resize']}, crop {pre['crop']}, {pre['interpolation']}, {channels}",
    }


def _scores(written: Mapping[str, Mapping[str, Any]]) -> dict[str, Score]:
    def score(fields: Mapping[str, Any]) -> Score:
        value, low, high = (math.nan if fields[key] is None else fields[key] for key in ("value", "low", "high"))
        return Score(fields["metric"], value, low, high, fields["n"], fields["n_patients"])

    return {name: score(fields) for name, fields in written.items()}


def _drawn(path: Path, drawing: MatplotlibFigure, caption: str) -> Figure:
    """A figure as a block of the page, and as a PNG beside it."""
    drawing.savefig(path.with_name(f"{path.name}.png"), dpi=150)
    return figure(drawing, caption)


def _result(
    outcome: Outcome, targets: Mapping[str, TargetRows], scores: Mapping[str, Scores], baseline: Mapping[str, Scores]
) -> list[Block]:
    blocks: list[Block] = []
    if not outcome.info["weights"]["pretrained"]:
        blocks.append(Text(start_sentence(outcome.info), "note"))
    for kind, shown in _SHOWN.items():
        names = [
            name for name, target in targets.items() if (target.task.type == "regression") == (kind == "regression")
        ]
        rows = []
        for name in names:
            first = scores[name][shown[0]]
            row = [_label(targets[name]), str(first.n), str(first.n_patients), number(first.value), interval(first)]
            row.append(number(baseline[name][shown[0]].value))
            for metric in shown[1:]:
                row.append(f"{number(scores[name][metric].value)} ({interval(scores[name][metric])})")
            rows.append(row)
        columns = ["Target", "n", "Patients", display_name(shown[0]), "95 % interval", "Baseline"]
        caption = f"Test {plural(outcome.level, 2)}, with 95 % intervals over patients; baseline: "
        caption += "the training mean." if kind == "regression" else "the training frequencies."
        if rows:
            blocks.append(Table([*columns, *map(display_name, shown[1:])], rows, caption))
    return blocks + _levels(outcome)


def _levels(outcome: Outcome) -> list[Block]:
    """The primary metric per video beside that per study, where they are not the same."""
    per_video, per_study = read_targets(outcome, "video"), read_targets(outcome, "study")
    rows = []
    for name in [name for name in per_video if name in per_study]:
        metric = PRIMARY[per_video[name].task.type]
        both = (per_video[name], per_study[name])
        values = [f"{number(point_values(t.metrics())[metric])} (n = {len(t.truth)})" for t in both]
        if len(both[0].truth) != len(both[1].truth):
            rows.append([_label(both[0]), display_name(metric), *values])
    if not rows:
        return []
    caption = "Predictions of single videos, and their means over each study, of the same test patients"
    return [Table(["Target", "Metric", "Per video", "Per study"], rows, caption, folded=len(rows) > _FEW)]


def _target(outcome: Outcome, target: TargetRows, scores: Scores, baseline: Scores, plots: Path) -> Folded:
    many = len(outcome.tasks) > _FEW
    drawn = [
        _drawn(plots / f"{_file_stem(target.task.name)}-{name}", drawing, f"{target.task.name}. {caption}")
        for name, (drawing, caption) in task_figures(_predictions(target, scores)).items()
        if not many or name in _MAIN_FIGURES
    ]
    rows = [
        [display_name(name), number(score.value), interval(score), number(baseline[name].value)]
        for name, score in scores.items()
    ]
    first = next(iter(scores.values()))
    tested = f"{counted(first.n, outcome.level)} of {counted(first.n_patients, 'patient')} tested."
    table = Table(["Metric", "Value", "95 % interval", "Baseline"], rows, tested)
    caution = caution_of(few_tested(target.patients, target.truth, target.classes))
    return Folded(_label(target), [*([Text(caution, "warning")] if caution else []), table, Figures(drawn)])


def _predictions(target: TargetRows, scores: Scores) -> Predictions:
    return Predictions(
        label=_label(target),
        task=target.task.type,
        classes=target.classes,
        truth=target.truth,
        prediction=target.prediction,
        patients=target.patients.astype(str),
        scores=scores,
    )


def _target_sections(details: list[Folded]) -> list[Section]:
    if len(details) > _FEW:
        return [Section("Each target", details)]
    return [Section(target.title, target.blocks) for target in details]


def _training_facts(outcome: Outcome) -> dict[str, str]:
    info = outcome.info
    facts = {}
    if "" in outcome.histories:
        facts["Epochs"] = f"{info['epochs']}, kept: {info['best_epoch']}"
    else:
        facts["Folds"] = str(len(outcome.histories))
        facts["Epochs"] = ", ".join(str(len(table)) for table in outcome.histories.values())
    seconds = sum(float(table["seconds"].sum()) for table in outcome.histories.values())
    processes = f"{info['processes']} process{'' if info['processes'] == 1 else 'es'}"
    return facts | {
        "Training time": f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s",
        "Device": f"{info['device']}, {processes}, {info['precision']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in sorted(info["versions"].items())),
    }


def _data(outcome: Outcome) -> list[Block]:
    counts, data = outcome.info["counts"], outcome.info["data"]
    rows = [[name, str(counts[part]), str(counts[f"{part}_patients"])] for part, name in _PARTS.items()]
    # A folder of an older version does not say; none but --allow-leakage let a patient be shared.
    shared = counts.get("shared_patients", 0)
    caption = "" if shared else "No patient is on two sides of a split."
    blocks: list[Block] = [Table(["", "Videos", "Patients"], rows, caption)]
    if shared:
        who = "1 patient is" if shared == 1 else f"{shared} patients are"
        text = f"{who} on two sides of a split (--allow-leakage): what is measured is partly memory."
        blocks.append(Text(text, "warning"))
    if counts["failed"]:
        blocks.append(Text(f"{counted(counts['failed'], 'video')} could not be used; see failures.csv.", "warning"))
    return [*blocks, Facts({"Data": data["path"], "Fingerprint": data["fingerprint"]})]


def _methods(outcome: Outcome) -> str:
    recipe, info = outcome.recipe, outcome.info
    start = start_sentence(info)
    training = training_sentences(recipe, outcome.tasks)
    return f"{start} {training} {evaluation_sentences(recipe)} The random seed was {recipe.seed}."


def _label(target: TargetRows) -> str:
    return f"{target.task.name} [{target.task.unit}]" if target.task.unit else target.task.name


def _file_stem(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
