"""The report of a fine-tuning run: its scores, how training went, and what it did in the words of a methods section."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from panecho_embed.core.digests import listed_sums
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.outputs import written_run
from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.tasks import Task
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
from panecho_embed.evaluation.thresholds import ThresholdRule
from panecho_embed.finetuning.outcome import Outcome, read_outcome
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.recipe_files import to_toml

_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW"}
_TRAINED = {
    "all": "All weights were trained",
    "heads": "Only the heads were trained",
    "temporal": "The temporal transformer and the heads were trained, the image encoder was not",
}
_FEW = 4  # targets of which the table of levels stands open
_PARTS = {"train": "Training", "val": "Validation", "test": "Test"}
_MOST_LINES = 6


def write_run(folder: str | Path) -> Path:
    """Write metrics.json, plots/ and report.html into the folder of a finished run. Raises StoreError."""
    outcome = read_outcome(folder)
    scored = outcome.scored()
    with written_run(folder, also=list(listed_sums(Path(folder)))) as new:
        write_metrics_of(outcome, scored, new)
        _write_report_of(outcome, scored, new)
    return Path(folder) / "report.html"


def write_metrics_of(outcome: Outcome, scored: Sequence[Scored], folder: Path) -> Path:
    """Write metrics.json of a finished run: test rows at the run's level, validation rows beside them."""
    validation = {
        one.target.name: {"validation": score_documents(_validation(outcome, one.target.name))} for one in scored
    }
    about = {
        "command": outcome.info["command"],
        "settings_id": settings_id(outcome),
        "data_digest": outcome.info["data"]["digest"],
        "level": outcome.level,
        "threshold_rule": outcome.recipe.evaluation.threshold,
        "init": outcome.info["init"],
        "weights": outcome.info["weights"],
        "overrides": outcome.info["overrides"],
        "data": outcome.info["data"],
        "not_evaluated": outcome.not_scored(),
    }
    return write_metrics(folder, "finetune", scored, about=about, of_target=validation)


def _write_report_of(outcome: Outcome, scored: Sequence[Scored], folder: Path) -> Path:
    """Write plots/ and report.html of a finished run into a folder that is being made. Raises OSError."""
    info = outcome.info
    names = [task.name for task in outcome.tasks]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    warnings = [f"{name} was not evaluated: {why}" for name, why in outcome.not_scored().items()]
    if not info["weights"]["pretrained"]:
        warnings.append(_start_sentence(info))
    memory = (
        ["patients are on two sides of a split, so part of this is memory"] if info["counts"]["shared_patients"] else []
    )
    account = Account(
        title=f"Fine-tuning: {listed}",
        subtitle=f"{outcome.recipe.description}. Start: {info['init']}.",
        question=f"How well does {info['init']} predict {listed} per {outcome.level} after fine-tuning?",
        claim=f"can be predicted by the model fine-tuned from {info['init']}",
        warnings=warnings,
        doubts=dict.fromkeys(names, memory),
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


def settings_id(outcome: Outcome) -> str:
    """SHA-256 of what decides the weights of a run: the recipe, the start and its weights, and how it was fed."""
    info = outcome.info
    settings = [to_toml(outcome.recipe), info["init"], info["weights"]["sha256"], info["feeding"]]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


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
    facts = {"Data": data["path"], "Settings id": settings_id(outcome)}
    return [*blocks, Facts(facts | {"Data digest (ids, splits, labels)": data["digest"]})]


def _methods(outcome: Outcome, scored: Sequence[Scored]) -> str:
    recipe, info = outcome.recipe, outcome.info
    training = training_sentences(recipe, outcome.tasks)
    evaluated = evaluation_sentences(recipe, outcome.tasks)
    intervals = f" {interval_sentence(scored)}" if scored else ""
    return f"{_start_sentence(info)} {training} {evaluated}{intervals} The random seed was {recipe.seed}."


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


def training_sentences(recipe: Recipe, tasks: Sequence[Task]) -> str:
    """Clips, optimisation, loss, augmentation, stopping: what all runs of a recipe have in common."""
    return " ".join(
        [
            _clips(recipe),
            _trained(recipe),
            _optimisation(recipe),
            _loss(recipe, tasks),
            _augmentation(recipe),
            _stopping(recipe),
        ]
    )


def evaluation_sentences(recipe: Recipe, tasks: Sequence[Task]) -> str:
    """How predictions became rows of the metrics, and how the threshold of yes-or-no tasks was chosen."""
    clips = recipe.clips
    used = (
        f"Validation and testing used {_clips_of_each(clips.test)}."
        if clips.validation == clips.test
        else f"Validation used {_clips_of_each(clips.validation)}, testing {_clips_of_each(clips.test)}."
    )
    over_clips = (
        " Raw outputs were averaged over the clips of a video (for classes the logits, which were then turned into "
        "probabilities)."
        if max(clips.validation, clips.test) > 1
        else ""
    )
    study = (
        " Values and probabilities were averaged over the videos of a study."
        if recipe.evaluation.level == "study"
        else ""
    )
    folds = recipe.data.folds
    split = (
        f" Results are over the union of {folds} test folds: of the model that was tested on fold f, fold f + 1 (mod "
        f"{folds}) was the validation set."
        if folds
        else ""
    )
    decided = any(task.type == "binary" for task in tasks)
    rule = ThresholdRule.parse(recipe.evaluation.threshold).sentence("the validation patients") if decided else ""
    return " ".join(filter(None, [f"{used}{over_clips}{study}{split}", rule]))


def _clips_of_each(clips: int) -> str:
    return "one clip of each video" if clips == 1 else f"up to {clips} evenly spaced clips of each video"


def _start_sentence(info: Mapping[str, Any]) -> str:
    """Where training started from, and which pictures the image encoder saw; info: of run.json."""
    weights, order = info["weights"], info["plane_order"]
    which = f"the {info['init']} weights ({weights['source']}; SHA-256 {weights['sha256'][:12]})"
    if not weights["pretrained"]:
        which = f"random weights ({weights['source']})"
    seen = "The model saw" if order is None else "The image encoder saw"
    return f"Training started from {which}. {seen} {picture_words(order)}."


def picture_words(order: PlaneOrder | None) -> str:
    """What the image encoder sees of a clip; None for a model without one."""
    if order is None:
        return "whole clips"
    if order == "frames":
        return "frames"
    return "pictures of three consecutive planes in channel-major order (as PanEcho was published)"


def _clips(recipe: Recipe) -> str:
    clips = recipe.clips
    if recipe.model.temporal == "none" and clips.frames == 1:
        return "Single frames were used."
    if not clips.frames or not (clips.frame_step or clips.target_fps or clips.uniform):
        # Of a grid, whose starts differ; a run states its own.
        return (
            "Clips had each start's own length and step, and were taken in training from a random place of each video."
        )
    step = f"at {clips.target_fps:g} frames per second" if clips.target_fps else "consecutive"
    if clips.uniform:
        step = "spread over the whole video"
    elif not clips.target_fps and clips.frame_step > 1:
        step = "every second frame" if clips.frame_step == 2 else f"with a step of {clips.frame_step} frames"
    return f"Clips of {clips.frames} frames ({step}) were taken, in training from a random place of each video."


def _trained(recipe: Recipe) -> str:
    layers = recipe.model.trainable.removeprefix("last-")
    what = _TRAINED.get(recipe.model.trainable, f"The last {layers} layers and the heads were trained")
    decay = recipe.optimizer.layer_decay
    return f"{what}{f', with a learning rate that falls by the factor {decay:g} a layer' if decay < 1 else ''}."


def _optimisation(recipe: Recipe) -> str:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    weight_decay = f", weight decay {optimizer.weight_decay:g}" if optimizer.weight_decay else ""
    rate = {
        "constant": "",
        "cosine": "; the rate followed a cosine to 0",
        "plateau": f"; the rate was multiplied by {schedule.factor:g} after more than {schedule.patience} epochs "
        f"without a better validation {recipe.early_stopping.monitor}",
    }[schedule.name]
    warmup = f" after a warm-up of {schedule.warmup_epochs:g} epochs" if schedule.warmup_epochs else ""
    clip = f" Gradients were clipped to norm {optimizer.clip_norm:g}." if optimizer.clip_norm else ""
    ema = f" A running mean of the weights (decay {optimizer.ema:g}) was evaluated." if optimizer.ema else ""
    return (
        f"Training used {_OPTIMIZERS[optimizer.name]} (learning rate {optimizer.lr:g}{weight_decay}) with batches of "
        f"{optimizer.batch_size} clips{rate}{warmup}.{clip}{ema}"
    )


def _loss(recipe: Recipe, tasks: Sequence[Task]) -> str:
    kinds = {task.type for task in tasks}
    parts = []
    if "regression" in kinds:
        parts.append(f"squared error divided by the training {recipe.loss.scale}")
    if kinds - {"regression"}:
        balanced = ", classes weighted by their inverse frequency" if recipe.loss.class_weights == "balanced" else ""
        parts.append(f"cross-entropy{balanced}")
    several = ", averaged over the tasks that had a label in the batch" if len(tasks) > 1 else ""
    dropout = (
        f" Dropout of {recipe.model.head_dropout:g} was applied before the heads." if recipe.model.head_dropout else ""
    )
    return f"The loss was {' and '.join(parts)}{several}.{dropout}"


def _augmentation(recipe: Recipe) -> str:
    if not recipe.augmentation.enabled:
        return "No augmentation was used."
    given = recipe.augmentation
    kinds = []
    if given.zoom_out > 1:
        kinds.append(f"zooming out up to {given.zoom_out:g}-fold")
    if given.crop:
        kinds.append("random crops")
    if given.flip:
        kinds.append("horizontal flips")
    if given.rotation:
        kinds.append(f"rotations up to {given.rotation:g} degrees")
    return f"Training clips were augmented by {', '.join(kinds)}."


def _stopping(recipe: Recipe) -> str:
    stopping = recipe.early_stopping
    rows = "studies" if recipe.evaluation.level == "study" else "videos"
    monitor = (
        "validation loss"
        if stopping.monitor == "loss"
        else f"validation score (the mean of mean AUROC over class tasks and mean R² over regressions, of {rows})"
    )
    return (
        f"Training lasted at most {recipe.schedule.epochs} epochs and stopped after {stopping.patience} without a "
        f"better {monitor}; the best epoch was kept."
    )
