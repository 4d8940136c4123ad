"""What a fine-tuning run does, as frozen dataclasses; `recipes/*.toml` are values of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, RecipeError
from panecho_embed.core.feeding import MaskChoice
from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.records import Ids
from panecho_embed.datasets.layouts import layout_names
from panecho_embed.evaluation.inference import DEFAULT_DRAWS
from panecho_embed.evaluation.thresholds import ThresholdRule

RunPrecision = Literal["auto", "fp32", "bf16", "fp16"]
_Temporal = Literal["transformer", "none"]
_Optimizer = Literal["adam", "adamw"]
_Schedule = Literal["constant", "cosine", "plateau"]
_LossScale = Literal["mean", "variance"]
_ClassWeights = Literal["none", "balanced"]
_HeadInit = Literal["published", "deviation"]
_FeedingChoice = Literal["own", "panecho"]
_TrainingShortPolicy = Literal["repeat", "wrap", "skip"]
_Monitor = Literal["loss", "score"]
EvaluationLevel = Literal["video", "study"]
_TargetKind = Literal["", "regression", "binary", "multiclass", "ordinal"]


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which videos and labels.

    layout: how the data set lies on disk, as `panecho-embed manifest` knows it; "auto" takes any.
    ids: whether ids and paths are hashed, as in `extract`; the local table of opaque ids is beside the data.
    targets: label columns to learn, each a task; () takes every column that `tasks` names.
    tasks: what the columns are: "panecho" for its 40 reporting tasks, the file of a table in the same form, or "" to
        tell by their values: text or 0 and 1 are classes, other numbers a regression.
    task, positive, order: how label columns are read, of all targets: the kind ("" tells by the values), the positive
        class of a binary target, and ordered grades, the lowest first.
    views: only videos of these views; () takes all.
    folds: 0: the split column says train, val, test. k: it holds fold numbers 0 to k - 1, and the run cross-validates:
        fold f tests, f + 1 (mod k) validates.
    fraction: share of the training patients to use, above 0 to 1; the same seed draws the same ones, and a smaller
        fraction a subset of a larger one's.
    mask_sector, crop_region: as in `extract`.
    """

    layout: str = "auto"
    ids: Ids = "auto"
    targets: tuple[str, ...] = ()
    tasks: str = ""
    task: _TargetKind = ""
    positive: str = ""
    order: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    folds: int = 0
    fraction: float = 1.0
    mask_sector: MaskChoice = "auto"
    crop_region: bool = False

    def __post_init__(self) -> None:
        _one_of(self, "data", ids=Ids, task=_TargetKind, mask_sector=MaskChoice)
        _check(self.layout in layout_names(), "data.layout", self.layout, ", ".join(layout_names()))
        _check(
            not self.targets or len(set(self.targets)) == len(self.targets), "data.targets", self.targets, "no twins"
        )
        _check(bool(self.targets or self.tasks), "data.targets", self.targets, "label columns, or data.tasks set")
        _check(self.folds == 0 or self.folds >= 3, "data.folds", self.folds, "0, or 3 or more")
        _check(0 < self.fraction <= 1, "data.fraction", self.fraction, "above 0, at most 1")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What is trained.

    temporal: of a start that encodes pictures: "transformer" over a clip's pictures (PanEcho's own, or one from
        scratch), or "none": only the image encoder, for data of single images; a clip is then the mean of its frames.
        A start that sees clips as a whole (kinetics, echoprime) has no choice.
    plane_order: which pictures a clip of a start without a transformer is made of: "published", three
        consecutive planes each, as PanEcho and the starts of its paper were trained; or "frames". A start with a
        transformer (panecho, a model of `finetune`) keeps the order that its weights were trained in. Single frames
        (temporal "none") and starts that see clips as a whole have no such choice.
    feeding: how frames become pixels: "own", as the start was trained; "panecho": for every start 256 x 256 by area and
        the central 224, as the paper fine-tuned all of its starts. Colours, scale, mean and deviation are the start's.
    image_size: side of the input in pixels; 0 takes what `feeding` says.
    width: only of the start "random": its channels as a share of PanEcho's, for trying out and for small data.
    head_dropout: before each head's linear layer, 0 to below 1.
    head_init: of a regression's head. "published": weights as PyTorch draws them, whatever the target's unit;
        "deviation": those times the training target's standard deviation, so that the head spans the target from the
        first step on. Embeddings are of bounded length, so a narrow model's published head can't reach far from the
        mean before its weights have grown, and all videos go to its two ends.
    trainable: "all"; "heads"; "temporal" (transformer and heads, the image encoder stays as it is); or "last-N", the
        N layers before the heads, and the heads.
    """

    temporal: _Temporal = "transformer"
    plane_order: PlaneOrder = "frames"
    feeding: _FeedingChoice = "own"
    image_size: int = 0
    width: float = 1.0
    head_dropout: float = 0.0
    head_init: _HeadInit = "published"
    trainable: str = "all"

    def __post_init__(self) -> None:
        _one_of(self, "model", temporal=_Temporal, plane_order=PlaneOrder, feeding=_FeedingChoice, head_init=_HeadInit)
        _check(self.image_size == 0 or self.image_size >= 32, "model.image_size", self.image_size, "0, or 32 or more")
        _check(0 < self.width <= 1, "model.width", self.width, "above 0, at most 1")
        _check(0 <= self.head_dropout < 1, "model.head_dropout", self.head_dropout, "0 to below 1")
        layers = self.trainable.removeprefix("last-")
        known = self.trainable in ("all", "heads", "temporal") or (layers != self.trainable and layers.isdecimal())
        _check(known, "model.trainable", self.trainable, "all, heads, temporal, last-N")


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """How clips are taken: in training one at random, for validation and test always the same ones.

    frames: in a clip, 0 for as many as the start was trained with. frame_step: take every n-th frame, 0 for the start's
        own step or frame rate; target_fps: frames per second instead, 0 for none; uniform: frames spread over the whole
        video instead.
    short: a video shorter than a clip, as in `extract`. validation, test: most clips per video, evenly spaced; their
    raw outputs are averaged, and then turned into probabilities.
    """

    frames: int = 16
    frame_step: int = 1
    target_fps: float = 0.0
    uniform: bool = False
    short: _TrainingShortPolicy = "repeat"
    validation: int = 4
    test: int = 4

    def __post_init__(self) -> None:
        _one_of(self, "clips", short=_TrainingShortPolicy)
        fits = self.target_fps == 0 or self.frame_step in (0, 1)
        _check(fits, "clips.frame_step", self.frame_step, "0 or 1 with target_fps")
        alone = self.target_fps == 0 and self.frame_step in (0, 1)
        _check(alone or not self.uniform, "clips.uniform", self.uniform, "false with frame_step or target_fps")
        if self.frames and self.frame_step:
            self.plan(self.validation)
            self.plan(self.test)
        else:
            # What the start does not decide is checked now.
            self.resolved(ClipPlan())

    def resolved(self, own: ClipPlan) -> ClipSettings:
        """The same with a start's own clips where the settings say so; how many of a video is always theirs."""
        step, fps = self.frame_step, self.target_fps
        if step == 0:
            step, fps = (1, fps) if fps or self.uniform else (own.frame_step or 1, own.target_fps or 0.0)
        return replace(self, frames=self.frames or own.frames_per_clip, frame_step=step, target_fps=fps)

    def plan(self, num_clips: int) -> ClipPlan:
        """The plan of this many clips per video. Raises ArgumentError."""
        step, fps = (None, self.target_fps) if self.target_fps else (None if self.uniform else self.frame_step, None)
        return ClipPlan(self.frames, step, fps, num_clips, short=self.short, uniform=self.uniform)


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """How weights change.

    lr: the learning rate of the heads, and with layer_decay 1 of all. layer_decay: factor on it for every layer
        further from the heads, above 0 to 1. weight_decay: not applied to biases and norms.
    batch_size: clips a step, over all processes and whatever their number; micro_batch: clips that a process encodes at
        once. So a smaller machine accumulates gradients over several micro batches and learns the same.
    clip_norm: largest norm of the gradient, 0 for no limit. ema: decay of a running mean of the weights, which is then
        what is evaluated and saved; 0 for none. It is a mean of fewer steps at first: the decay is at most
        (1 + steps) / (10 + steps).
    """

    name: _Optimizer = "adam"
    lr: float = 1e-4
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    batch_size: int = 128
    micro_batch: int = 16
    clip_norm: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "optimizer", name=_Optimizer)
        _check(self.lr > 0, "optimizer.lr", self.lr, "above 0")
        for name in ("weight_decay", "clip_norm"):
            _check(getattr(self, name) >= 0, f"optimizer.{name}", getattr(self, name), "0 or more")
        for name in ("batch_size", "micro_batch"):
            _check(getattr(self, name) >= 1, f"optimizer.{name}", getattr(self, name), "1 or more")
        _check(0 < self.layer_decay <= 1, "optimizer.layer_decay", self.layer_decay, "above 0, at most 1")
        _check(0 <= self.ema < 1, "optimizer.ema", self.ema, "0 to below 1")


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How long, and how the learning rate goes.

    name: "constant"; "cosine", down to 0 at the last epoch; "plateau": times `factor` after more than `patience` epochs
    without a better monitor, so at the third where it is 2. warmup_epochs: rise from 0 first.
    """

    name: _Schedule = "constant"
    epochs: int = 30
    warmup_epochs: float = 0.0
    factor: float = 0.5
    patience: int = 2

    def __post_init__(self) -> None:
        _one_of(self, "schedule", name=_Schedule)
        _check(self.epochs >= 1, "schedule.epochs", self.epochs, "1 or more")
        _check(0 <= self.warmup_epochs < self.epochs, "schedule.warmup_epochs", self.warmup_epochs, "0 to below epochs")
        _check(0 < self.factor < 1, "schedule.factor", self.factor, "between 0 and 1")
        _check(self.patience >= 0, "schedule.patience", self.patience, "0 or more")


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What is minimised: the mean over tasks of squared error, or of cross-entropy.

    scale: the squared error of a regression is divided by the training target's "mean" (as published), or by its
    "variance", which also serves targets around 0. class_weights: "balanced" lets every class count the same.
    """

    scale: _LossScale = "mean"
    class_weights: _ClassWeights = "none"

    def __post_init__(self) -> None:
        _one_of(self, "loss", scale=_LossScale, class_weights=_ClassWeights)


@dataclass(frozen=True, slots=True)
class AugmentationSettings:
    """What a training clip goes through; every frame of it the same.

    enabled: False for none of it. zoom_out: half of the clips are put on a black canvas up to this many times larger.
    crop: a random crop in place of the centre one. flip: chance of a mirrored clip. rotation: up to this many degrees
    to either side.
    """

    enabled: bool = False
    zoom_out: float = 1.2
    crop: bool = True
    flip: float = 0.5
    rotation: float = 15.0

    def __post_init__(self) -> None:
        _check(self.zoom_out >= 1, "augmentation.zoom_out", self.zoom_out, "1 or more")
        _check(0 <= self.flip <= 1, "augmentation.flip", self.flip, "0 to 1")
        _check(0 <= self.rotation <= 180, "augmentation.rotation", self.rotation, "0 to 180")


@dataclass(frozen=True, slots=True)
class _StoppingSettings:
    """When training ends before its last epoch, and which epoch is kept.

    monitor: the validation "loss", or "score": the mean of (mean AUROC over class tasks, mean R2 over regressions), of
        videos or studies as `evaluation.level` says. The loss is always that of videos.
    patience: epochs without a better one, after which training stops.
    """

    monitor: _Monitor = "loss"
    patience: int = 10

    def __post_init__(self) -> None:
        _one_of(self, "early_stopping", monitor=_Monitor)
        _check(self.patience >= 1, "early_stopping.patience", self.patience, "1 or more")


@dataclass(frozen=True, slots=True)
class _EvaluationSettings:
    """What is scored.

    level: "video" or "study", the rows of the metrics and of the validation score. A study's prediction is the mean of
        its videos' values or probabilities; a study whose videos have labels of different classes has no truth.
    draws: number of bootstrap samples.
    """

    level: EvaluationLevel = "video"
    draws: int = DEFAULT_DRAWS
    threshold: str = "youden"

    def __post_init__(self) -> None:
        _one_of(self, "evaluation", level=EvaluationLevel)
        try:
            ThresholdRule.parse(self.threshold)
        except ArgumentError as error:
            told = str(error).replace("--threshold", "--set evaluation.threshold=...")
            raise RecipeError(f"evaluation.threshold: {told}") from error
        _check(self.draws >= 1, "evaluation.draws", self.draws, "1 or more")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe; see its parts.

    description: one line. seed: of new weights, the order of videos, their clips and augmentation. precision: of the
    arithmetic; "auto" is fp16 on a CUDA device, as published, and fp32 elsewhere.
    """

    description: str
    data: DataSettings
    seed: int = 0
    precision: RunPrecision = "auto"
    model: ModelSettings = field(default_factory=ModelSettings)
    clips: ClipSettings = field(default_factory=ClipSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    early_stopping: _StoppingSettings = field(default_factory=_StoppingSettings)
    evaluation: _EvaluationSettings = field(default_factory=_EvaluationSettings)

    def __post_init__(self) -> None:
        _one_of(self, "", precision=RunPrecision)
        _check(self.seed >= 0, "seed", self.seed, "0 or more")


def _one_of(settings: object, section: str, **kinds: Any) -> None:
    for name, kind in kinds.items():
        allowed = get_args(kind)
        dotted = f"{section}.{name}" if section else name
        _check(getattr(settings, name) in allowed, dotted, getattr(settings, name), ", ".join(allowed))


def _check(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        shown = list(value) if isinstance(value, tuple) else value
        raise RecipeError(f"{key} is {shown!r}; allowed: {allowed} (--set {key}=...)")
