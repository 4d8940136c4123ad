"""Label columns -> targets, the heads that learn them, and the numbers to learn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from panecho_embed.core.arraytypes import Bools, Floats
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.nearest import nearest
from panecho_embed.core.tasks import Task, all_tasks, read_tasks
from panecho_embed.evaluation.targets import Reading, Target, matched_classes, read_target
from panecho_embed.finetuning.recipe import DataSettings

Columns = Mapping[str, npt.NDArray[Any]]

_TAKEN = frozenset(dir(nn.ModuleDict()))


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is to be learned of M videos.

    targets: (T,) as every command reads them. tasks: (T,) of the heads; classes stand in the order of the target's, and
    grades are learned as classes. values: (M, T) float64: the value as the head is to give it, or the class index; NaN
    where missing. signs: (T,) 1, or -1 where the head gives minus the target (strain, as PanEcho's head does). notes:
    what a person should know of how they came about.
    """

    targets: tuple[Target, ...]
    tasks: tuple[Task, ...]
    values: Floats
    signs: Floats
    notes: tuple[str, ...] = ()

    @property
    def truth(self) -> Floats:
        """(M, T) the targets themselves: values with their own sign, or class indices."""
        return self.values * self.signs


def make_targets(labels: Columns, settings: DataSettings) -> Targets:
    """The targets that a recipe asks for, out of a manifest's label columns.

    Raises ManifestError for a target without a column, and labels that `read_target` refuses; TaskTableError for an
    unusable table of tasks.
    """
    table = _table(settings.tasks)
    known = table or {task.name: task for task in all_tasks()}
    names, notes = _names(labels, settings, table)
    targets, tasks, columns, signs = [], [], [], []
    for name in names:
        _check_name(name)
        try:
            kind = settings.task or None
            reading = Reading(task=kind, positive=settings.positive, order=settings.order, tasks=known)
            read = read_target(labels[name], name, reading)
            if name in table and table[name].classes and not (kind or settings.order):
                # A column that the table describes is not taken for classes of its own because of one misspelt label.
                _check_classes(read.target, table[name])
        except ArgumentError as error:
            raise ManifestError(
                f"{_flags_of_recipes(str(error))} (or leave {name} out: --set data.targets=...)"
            ) from error
        task, sign = _head_of(read.target, known.get(name))
        targets.append(read.target)
        tasks.append(task)
        columns.append(sign * read.truth)
        signs.append(sign)
        notes += [read.note] if read.note else []
    return Targets(tuple(targets), tuple(tasks), np.column_stack(columns), np.array(signs), tuple(notes))


def with_training_means(targets: Targets, train: Bools) -> Targets:
    """The same, the tasks' training means being those of the videos in `train` (M,)."""
    means = [float(np.nanmean(column)) for column in targets.values[train].T]
    tasks = tuple(replace(task, training_mean=mean) for task, mean in zip(targets.tasks, means, strict=True))
    return replace(targets, tasks=tasks)


def _check_classes(target: Target, task: Task) -> None:
    """Raise ArgumentError for labels that are none of the task's classes."""
    try:
        matched_classes(target, task)
    except ArgumentError as error:
        raise ArgumentError(f"{target.name}: {error}") from error


def _head_of(target: Target, known: Task | None) -> tuple[Task, float]:
    """The task of a target's head, and the sign between the two."""
    description = known.description if known is not None else ""
    if target.kind == "regression":
        sign = -1 if known is not None and known.sign < 0 else 1
        task = Task(target.name, "regression", 1, (), None, target.unit, math.nan, description, -1 if sign < 0 else 1)
        return task, float(sign)
    if target.kind == "binary":
        return Task(target.name, "binary", 1, target.classes, 1, "", math.nan, description), 1.0
    count = len(target.classes)
    return Task(target.name, "multiclass", count, target.classes, None, "", math.nan, description), 1.0


def _table(tasks: str) -> dict[str, Task]:
    if not tasks:
        return {}
    return {task.name: task for task in (all_tasks() if tasks == "panecho" else read_tasks(tasks))}


def _names(labels: Columns, settings: DataSettings, table: Mapping[str, Task]) -> tuple[list[str], list[str]]:
    if settings.targets:
        for name in settings.targets:
            if name not in labels:
                raise ManifestError(f"no label column {name!r}{nearest(name, labels)}; {_there(labels)}")
            if settings.tasks and name not in table:
                raise ManifestError(
                    f"{name!r} is no task of data.tasks = {settings.tasks!r}{nearest(name, table)}; "
                    f"allowed: {', '.join(table)}"
                )
        return list(settings.targets), []
    names = [name for name in table if name in labels]
    if not names:
        raise ManifestError(
            f"no label column is called as one of the {len(table)} tasks of data.tasks = {settings.tasks!r}; "
            f"{_there(labels)}; the tasks are {', '.join(table)}"
        )
    without = [name for name in table if name not in labels]
    notes = [f"{len(names)} of {len(table)} tasks have a label column; {len(without)} have none"] if without else []
    return names, notes


def _there(labels: Columns) -> str:
    return f"label columns: {', '.join(list(labels)[:40]) or '(none; a table with a column a target is needed)'}"


def _check_name(name: str) -> None:
    if not name or set(name) & set('.,"\n\r'):
        raise ManifestError(f"a target can't be called {name!r}: no point, comma, quote or line break; rename it")
    if name in _TAKEN:
        raise ManifestError(f"a target can't be called {name!r}: torch uses the name itself; rename the column")


def _flags_of_recipes(message: str) -> str:
    """The flags of a message as settings of a recipe."""
    for name in ("task", "positive", "order"):
        message = message.replace(f"(--{name})", f"(--set data.{name}=...)").replace(
            f"--{name} ", f"--set data.{name}="
        )
    return message
