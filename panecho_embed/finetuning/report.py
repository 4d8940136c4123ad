"""The report of a fine-tuning run: its scores, and how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from panecho_embed.core.digests import listed_sums
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.outputs import written_run
from panecho_embed.core.wording import counted, number
from panecho_embed.evaluation.metrics import PRIMARY, display_name, point_values
from panecho_embed.evaluation.page import (
    Block,
    Code,
    Facts,
    Figures,
    Folded,
    Section,
    Table,
    Text,
    figure,
    picture_file,
)
from panecho_embed.evaluation.plots import histories, history
from panecho_embed.evaluation.report import Account, interval_sentence, write_run_report
from panecho_embed.evaluation.scores import Scored, score_documents, write_metrics
from panecho_embed.finetuning.outcome import Outcome, read_outcome
from panecho_embed.finetuning.recipe_files import to_toml
from panecho_embed.finetuning.wording import evaluation_sentences, picture_words, start_sentence, training_sentences

_FEW = 4  # targets of which the table of levels stands open
_PARTS = {"train": "Training", "val": "Validation", "test": "Test"}
_MOST_LINES = 6


def write_run(folder: str | Path) -> Path:
    """Write metrics.json, plots/ and report.html into the folder of a finished run. Raises StoreError."""
    outcome = read_outcome(folder)
    scored = outcome.scored()
    with written_run(folder, also=list(listed_sums(Path(folder)))) as new:
        write_metrics_of(outcome, scored, new)
        write_report_of(outcome, scored, new)
    return Path(folder) / "report.html"


def write_metrics_of(outcome: Outcome, scored: Sequence[Scored], folder: Path) -> Path:
    """Write metrics.json of a finished run: test rows at the run's level, validation rows beside them."""
    validation = {
        one.target.name: {"validation": score_documents(_validation(outcome, one.target.name))} for one in scored
    }
    about = {
        "command": outcome.info["command"],
        "level": outcome.level,
        "threshold_rule": outcome.recipe.evaluation.threshold,
        "init": outcome.info["init"],
        "weights": outcome.info["weights"],
        "overrides": outcome.info["overrides"],
        "data": outcome.info["data"],
        "not_evaluated": outcome.not_scored(),
    }
    return write_metrics(folder, "finetune", scored, about=about, of_target=validation)


def write_report_of(outcome: Outcome, scored: Sequence[Scored], folder: Path) -> Path:
    """Write plots/ and report.html of a finished run into a folder that is being made. Raises OSError."""
    info = outcome.info
    names = [task.name for task in outcome.tasks]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    warnings = [f"{name} was not evaluated: {why}" for name, why in outcome.not_scored().items()]
    if not info["weights"]["pretrained"]:
        warnings.append(start_sentence(info))
    account = Account(
        title=f"Fine-tuning: {listed}",
        subtitle=f"{outcome.recipe.description}. Start: {info['init']}.",
        question=f"How well does {info['init']} predict {listed} per {outcome.level} after fine-tuning?",
        warnings=warnings,
        baseline=f"Test rows, one per {outcome.level}. The baseline predicts the training mean, or the class "
        "frequencies.",
        sections=[
            *_levels(outcome),
            Section("Training", [Facts(_training_facts(outcome)), Figures(_histories(outcome, folder / "plots"))]),
            Section("Data", _data(outcome)),
            Section("Starting point", [Facts(start_facts(info))]),
        ],
        methods=[_methods(outcome, scored)],
        command=info["command"],
        repeat=[Folded("recipe.toml", [Code(to_toml(outcome.recipe))])],
    )
    return write_run_report(folder, scored, account)


def start_facts(info: Mapping[str, Any]) -> dict[str, str]:
    """The weights that a run started from, for people; info: of run.json."""
    weights = info["weights"]
    return {
        "Start": info["init"],
        "Weights": weights["source"] if weights["pretrained"] else f"{weights['source']}: untrained",
        "Weights SHA-256": weights["sha256"],
        "Licence of the weights": weights["licence"],
        "Pictures": picture_words(info["plane_order"]),
        "Pixels": Feeding.from_record(info["feeding"]).describe(),
        "Not the start's own feeding": "; ".join(info["overrides"]) or "nothing",
    }


def _validation(outcome: Outcome, name: str) -> dict[str, Any]:
    """The metrics of the validation rows, without intervals."""
    from panecho_embed.core.records import Score

    rows = outcome.at(outcome.level)[name].of_split("val")
    if not len(rows):
        return {}
    made = rows.metrics()
    nothing = float("nan")
    return {
        metric: Score(metric, value, nothing, nothing, made.n, len(made.patients))
        for metric, value in point_values(made).items()
    }


def _levels(outcome: Outcome) -> list[Section]:
    """The primary metric per video beside that per study, where they are not the same."""
    per_video, per_study = outcome.at("video"), outcome.at("study")
    rows = []
    for name in [name for name in per_video if name in per_study]:
        both = [one.of_split("test") for one in (per_video[name], per_study[name])]
        if not all(map(len, both)) or len(both[0]) == len(both[1]):
            continue
        metric = PRIMARY[both[0].target.kind]
        values = [f"{number(point_values(rows.metrics())[metric])} (n = {len(rows)})" for rows in both]
        rows.append([both[0].target.title, display_name(metric), *values])
    if not rows:
        return []
    caption = "Predictions of single videos, and their means over each study, of the same test patients"
    table = Table(["Target", "Metric", "Per video", "Per study"], rows, caption, folded=len(rows) > _FEW)
    return [Section("Per video and per study", [table])]


def _histories(outcome: Outcome, plots: Path) -> list[Any]:
    plots.mkdir(exist_ok=True)
    drawn = []
    for name, (drawing, caption) in _history_figures(outcome).items():
        block = figure(drawing, caption)
        (plots / f"history-{name}.svg").write_text(picture_file(block), encoding="utf-8")
        drawn.append(block)
    return drawn


def _training_facts(outcome: Outcome) -> dict[str, str]:
    info = outcome.info
    facts = {}
    if "" in outcome.histories:
        facts["Epochs"] = f"{info['epochs']}, kept: {info['best_epoch']}"
    else:
        facts["Folds"] = str(len(outcome.histories))
        facts["Epochs"] = ", ".join(str(len(table)) for table in outcome.histories.values())
    seconds = outcome.seconds
    processes = f"{info['processes']} process{'' if info['processes'] == 1 else 'es'}"
    return facts | {
        "Training time": f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s",
        "Device": f"{info['device']}, {processes}, {info['precision']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in sorted(info["versions"].items())),
    }


def _data(outcome: Outcome) -> list[Block]:
    counts, data = outcome.info["counts"], outcome.info["data"]
    rows = [[name, str(counts[part]), str(counts[f"{part}_patients"])] for part, name in _PARTS.items()]
    shared = counts["shared_patients"]
    caption = "" if shared else "No patient is on two sides of a split."
    blocks: list[Block] = [Table(["", "Videos", "Patients"], rows, caption)]
    if shared:
        who = "1 patient is" if shared == 1 else f"{shared} patients are"
        text = f"{who} on two sides of a split (--allow-leakage): what is measured is partly memory."
        blocks.append(Text(text, "warning"))
    if counts["failed"]:
        text = f"{counted(counts['failed'], 'video')} could not be used; failures.csv lists them."
        blocks.append(Text(text, "warning"))
    return [*blocks, Facts({"Data": data["path"], "Fingerprint of ids, splits and labels": data["fingerprint"]})]


def _methods(outcome: Outcome, scored: Sequence[Scored]) -> str:
    recipe, info = outcome.recipe, outcome.info
    training = training_sentences(recipe, outcome.tasks)
    evaluated = evaluation_sentences(recipe, outcome.tasks)
    intervals = f" {interval_sentence(scored)}" if scored else ""
    return f"{start_sentence(info)} {training} {evaluated}{intervals} The random seed was {recipe.seed}."


def _history_figures(outcome: Outcome) -> dict[str, tuple[Figure, str]]:
    """Loss and score per epoch with a caption each, by file name without suffix; of every fold, if there are folds."""
    if "" not in outcome.histories:
        return _of_folds(outcome)
    table = outcome.histories[""]
    epochs = table["epoch"].to_numpy()
    best = outcome.info["best_epoch"]
    losses = {"training": table["train_loss"].to_numpy(), "validation": table["val_loss"].to_numpy()}
    made = {"loss": (history(epochs, losses, "loss", best=best), "Loss per epoch; dashed: the epoch that was kept.")}
    scores = {"mean": table["val_score"].to_numpy()}
    single = [name for name in table if str(name).startswith(("val_r2:", "val_auroc:"))]
    if 1 < len(single) < _MOST_LINES:
        scores |= {str(name).partition(":")[2]: table[name].to_numpy() for name in single}
    elif len(single) == 1:
        scores = {"validation": scores["mean"]}
    caption = "Validation score per epoch: R² of regressions, AUROC of classes, and their mean."
    made["score"] = (history(epochs, scores, "validation score", best=best), caption)
    return made


def _of_folds(outcome: Outcome) -> dict[str, tuple[Figure, str]]:
    made = {}
    for name, column in (("loss", "val_loss"), ("score", "val_score")):
        runs = [
            (f"fold {fold}" if len(outcome.histories) <= _MOST_LINES else "folds", table["epoch"].to_numpy(), values)
            for fold, table in outcome.histories.items()
            for values in (table[column].to_numpy(),)
        ]
        made[name] = (histories(runs, f"validation {name}"), f"Validation {name} per epoch, one line a fold.")
    return made
