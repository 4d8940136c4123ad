"""The numbers that a model's heads give: one a regression or binary task, one a class of a multiclass task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from panecho_embed.records import FloatArray
from panecho_embed.tasks import Task


@dataclass(frozen=True, slots=True)
class Output:
    """One column of predictions.

    label: the class whose probability it is, "" for a regression; of a binary task the clinically positive class.
    """

    task: Task
    label: str = ""

    @property
    def column(self) -> str:
        """Its name in tables: "EF", "AVStenosis:Severe"."""
        return f"{self.task.name}:{self.label}" if self.label else self.task.name

    @property
    def unit(self) -> str:
        """The regression's unit, or "probability"."""
        return "probability" if self.label else self.task.unit


def outputs_of(tasks: Iterable[Task]) -> tuple[Output, ...]:
    """The columns of some tasks, in their order; a multiclass task's in the order of its classes."""
    return tuple(output for task in tasks for output in _outputs(task))


def _outputs(task: Task) -> Iterable[Output]:
    if task.type == "multiclass":
        return (Output(task, label) for label in task.classes)
    return (Output(task, task.positive_class),)


def reported(outputs: FloatArray, tasks: Sequence[Task]) -> FloatArray:
    """Turn raw outputs (N, K) of heads into the reported values (N, K) of the same columns.

    Multiclass: the softmax. Binary: the probability of the clinically positive class. Regression: the value in its
    unit, with its sign (Task.sign).
    """
    parts = np.split(outputs, np.cumsum([task.num_outputs for task in tasks])[:-1], axis=1)
    return np.concatenate([_reported(raw, task) for raw, task in zip(parts, tasks, strict=True)], axis=1)


def _reported(raw: FloatArray, task: Task) -> FloatArray:
    from scipy.special import expit, softmax

    if task.type == "multiclass":
        return np.asarray(softmax(raw, axis=1))
    if task.type == "binary":
        # The logit is the log-odds of index 1, and expit(-x) = 1 - expit(x) without the cancellation.
        return np.asarray(expit(raw if task.positive_class_index == 1 else -raw))
    return raw * task.sign
