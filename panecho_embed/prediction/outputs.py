"""The numbers that a model's heads give: one a regression or binary task, one a class of a multiclass task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
