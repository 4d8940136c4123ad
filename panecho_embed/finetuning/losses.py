"""The loss of many tasks with missing labels, the same however a batch is divided."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import RecipeError
from panecho_embed.core.tasks import Task
from panecho_embed.finetuning.recipe import LossSettings

# Below this share of its deviation, a mean says nothing of a target's size.
_SMALL_MEAN = 0.05


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
