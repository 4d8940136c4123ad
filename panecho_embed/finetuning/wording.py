"""What a run did, in the words of a methods section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.tasks import Task
from panecho_embed.evaluation.thresholds import ThresholdRule
from panecho_embed.finetuning.recipe import Recipe

_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW"}
_TRAINED = {
    "all": "All weights were trained",
    "heads": "Only the heads were trained",
    "temporal": "The temporal transformer and the heads were trained, the image encoder was not",
}


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


def start_sentence(info: Mapping[str, Any]) -> str:
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
    step = f"at {clips.target_fps:g} frames per second" if clips.target_fps else "consecutive"
    if not clips.target_fps and clips.frame_step > 1:
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
