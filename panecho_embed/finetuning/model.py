"""What is trained: a start with a head for each task, from uint8 pixels to raw outputs, and their loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import RecipeError
from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.tasks import Task
from panecho_embed.finetuning.recipe import LossSettings
from panecho_embed.finetuning.starts import Start, seeded
from panecho_embed.models.panecho import clip_pictures, make_head

# Below this share of its deviation, a mean says nothing of a target's size.
_SMALL_MEAN = 0.05


class FineTuneModel(nn.Module):
    """Clips of uint8 pixels to the outputs of all heads.

    The pixels are normalised here, as the start's weights expect, so that nobody can forget it or do it twice. The
    parameters have PanEcho's names: image_encoder, clip_encoder, heads.<task>.1. One-output heads begin at the task's
    training mean. scales: (T,) factors on the heads' first weights; None for 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        start: Start,
        tasks: Sequence[Task],
        *,
        head_dropout: float = 0.0,
        scales: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.whole_clips = start.whole_clips
        self.plane_order: PlaneOrder = start.plane_order
        self.scale = start.feeding.scale
        self.register_buffer("mean", torch.tensor(start.feeding.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(start.feeding.std)[:, None, None], persistent=False)
        self.image_encoder = start.image_encoder
        self.clip_encoder = start.clip_encoder
        factors = scales or [1.0] * len(tasks)
        with seeded(seed):
            heads = {
                task.name: make_head(task, start.dim, head_dropout, factor)
                for task, factor in zip(tasks, factors, strict=True)
            }
        self.heads = nn.ModuleDict(heads)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, L, 3, S, S) uint8, channels in the start's order, to (N, K) float32: all outputs, task after task."""
        normalised = self.normalise(pixels)
        if self.whole_clips:
            return self.outputs(normalised)
        pictures = clip_pictures(normalised.transpose(1, 2), self.plane_order)
        return self.outputs(self.encode_pictures(pictures).unflatten(0, pixels.shape[:2]))

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(P, 3, S, S) normalised to (P, D); to the pictures themselves if the start sees clips as a whole."""
        if self.whole_clips:
            return pictures
        encoded: Tensor = self.image_encoder(pictures.contiguous(memory_format=torch.channels_last))
        return encoded

    def outputs(self, pictures: Tensor) -> Tensor:
        """(N, L, ...) of `encode_pictures`, combined to clips, to (N, K) float32."""
        clips = self.clip_encoder(pictures)
        return torch.cat([head(clips) for head in self.heads.values()], dim=1).float()

    def normalise(self, pixels: Tensor) -> Tensor:
        """(..., 3, S, S) uint8 to float32."""
        return pixels.to(torch.float32).mul_(self.scale).sub_(self.mean).div_(self.std)


class Loss:
    """Mean over the tasks that have a label in the batch of each task's mean loss over its labels.

    Regression: squared error, divided by the training mean or variance. Binary: cross-entropy with logits. Multiclass:
    cross-entropy. With balanced class weights a label of class c counts n / (k n_c), n and n_c counted in training.

    `sums` of the parts of a batch, added up and divided by `weights` of the whole, are the task means of the batch; so
    micro batches and processes can share one.
    """

    def __init__(self, tasks: Sequence[Task], training: Floats, settings: LossSettings) -> None:
        self._tasks = tuple(tasks)
        self._scales = [_scale(task, column, settings) for task, column in zip(tasks, training.T, strict=True)]
        balanced = settings.class_weights == "balanced"
        self._class_weights = [
            _balanced(task, column) if balanced and task.classes else None
            for task, column in zip(tasks, training.T, strict=True)
        ]

    def sums(self, outputs: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
        """(T,) each task's sum of losses, weighted by class; with gradients.

        outputs: (N, K) raw. targets: (N, T), NaN where missing. counted: (N,) 1, or 0 for a clip that stands in for
        none.
        """
        parts = outputs.split([task.num_outputs for task in self._tasks], dim=1)
        return torch.stack([self._sum(i, raw, targets[:, i], counted) for i, raw in enumerate(parts)])

    def weights(self, targets: Tensor, counted: Tensor) -> Tensor:
        """(T,) what to divide `sums` by: number of labels, weighted by class; 0 for a task without any."""
        columns = [self._label_weights(i, targets[:, i]) * counted for i in range(len(self._tasks))]
        return torch.stack(columns).sum(dim=1)

    def _sum(self, i: int, raw: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        weight = self._label_weights(i, target) * counted
        task, there = self._tasks[i], torch.nan_to_num(target)
        if task.type == "regression":
            each = (raw[:, 0] - there) ** 2 / self._scales[i]
        elif task.type == "binary":
            each = functional.binary_cross_entropy_with_logits(raw[:, 0], there, reduction="none")
        else:
            each = functional.cross_entropy(raw, there.long(), reduction="none")
        return (each * weight).sum()

    def _label_weights(self, i: int, target: Tensor) -> Tensor:
        """(N,) 0 where the label is missing, else the weight of its class, or 1."""
        there = target.isfinite()
        by_class = self._class_weights[i]
        if by_class is None:
            return there.to(torch.float32)
        return by_class.to(target.device)[torch.nan_to_num(target).long()] * there


def mean_loss(sums: Tensor, weights: Tensor) -> Tensor:
    """The loss of a batch, or a part's share of it: `sums` (T,) by the whole batch's `weights` (T,); tasks' mean."""
    there = weights > 0
    return (sums / weights.clamp(min=1e-12))[there].sum() / there.sum().clamp(min=1)


def _scale(task: Task, training: Floats, settings: LossSettings) -> float:
    if task.type != "regression":
        return 1.0
    values = training[np.isfinite(training)]
    mean, deviation = abs(float(values.mean())), float(values.std())
    if settings.scale == "variance":
        return deviation**2
    if mean < _SMALL_MEAN * deviation:
        raise RecipeError(
            f"{task.name} has a training mean of {mean:.3g} and a deviation of {deviation:.3g}; a loss divided by such "
            "a mean explodes (--set loss.scale=variance)"
        )
    return mean


def _balanced(task: Task, training: Floats) -> Tensor:
    there = training[np.isfinite(training)].astype(np.int64)
    counts = np.bincount(there, minlength=len(task.classes))
    present = counts > 0
    # A class that training never shows has no frequency to be balanced by.
    weights = np.where(present, len(there) / (present.sum() * np.maximum(counts, 1)), 1.0)
    return torch.from_numpy(weights.astype(np.float32))
