"""PanEcho's reporting tasks as data: one row of tasks.csv each."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, cast

TaskType = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, slots=True)
class Task:
    """One reporting task.

    name: also the name of its head in the checkpoint. num_outputs: 1, or the number of classes of a multiclass task.
    classes: names in the order of the class index; empty for regression.
    positive_class_index: of a binary task, the index of the clinically positive class; the head's logit is the log-odds
    of index 1. unit: of a regression. training_mean: mean of the training target, which one-output biases start at.
    """

    name: str
    type: TaskType
    num_outputs: int
    classes: tuple[str, ...]
    positive_class_index: int | None
    unit: str
    training_mean: float
    description: str


@cache
def all_tasks() -> tuple[Task, ...]:
    """The 40 tasks of the released model, in the order of its table."""
    text = resources.files("panecho_embed").joinpath("tasks.csv").read_text(encoding="utf-8")
    return tuple(
        Task(
            name=row["name"],
            type=cast(TaskType, row["type"]),
            num_outputs=int(row["num_outputs"]),
            classes=tuple(filter(None, row["classes_in_index_order"].split(";"))),
            positive_class_index=int(row["positive_class_index"]) if row["positive_class_index"] else None,
            unit=row["unit"],
            training_mean=float(row["training_mean"]),
            description=row["description"],
        )
        for row in csv.DictReader(text.splitlines())
    )
