"""Label columns -> tasks and numbers to learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from panecho_embed.errors import ManifestError
from panecho_embed.finetune.recipe import DataSettings
from panecho_embed.nearest import nearest
from panecho_embed.tasks import Task, all_tasks, read_tasks

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]

_MOST_CLASSES = 50
_LISTED = 8
_TAKEN = frozenset(dir(nn.ModuleDict()))


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is to be learned of M videos.

    tasks: (T,). values: (M, T) float64: the value as the head is to give it, or the class index; NaN where missing.
    signs: (T,) 1, or -1 where the label is minus what the head gives (GLS, labelled as the negative strain that it is).
    notes: what a person should know of how they came about.
    """

    tasks: tuple[Task, ...]
    values: Floats
    signs: Floats
    notes: tuple[str, ...] = ()


def make_targets(labels: Columns, settings: DataSettings) -> Targets:
    """The targets that a recipe asks for, out of a manifest's label columns.

    Raises ManifestError for a target without a column, a column without labels, and labels that are no class or number;
    TaskTableError for an unusable table of tasks.
    """
    table = _table(settings.tasks)
    names, notes = _names(labels, settings, table)
    tasks, columns, signs = [], [], []
    for name in names:
        task = table[name] if settings.tasks else _inferred(name, labels[name])
        _check_name(task)
        values = _values(labels[name], task)
        if not np.isfinite(values).any():
            raise ManifestError(
                f"{name}: all labels are missing; leave it out by naming the others (--set data.targets=...)"
            )
        # Strain is negative; PanEcho's head gives it without its sign.
        sign = -1.0 if task.sign < 0 and float(np.nanmean(values)) < 0 else 1.0
        # A table of tasks must say what the head gives: of positive labels, the value as labelled.
        tasks.append(replace(task, sign=1) if sign > 0 else task)
        columns.append(sign * values)
        signs.append(sign)
    return Targets(tuple(tasks), np.column_stack(columns), np.array(signs), tuple(notes))


def with_training_means(targets: Targets, train: npt.NDArray[np.bool_]) -> Targets:
    """The same, the tasks' training means being those of the videos in `train` (M,)."""
    means = [float(np.nanmean(column)) for column in targets.values[train].T]
    tasks = tuple(replace(task, training_mean=mean) for task, mean in zip(targets.tasks, means, strict=True))
    return replace(targets, tasks=tasks)


def class_frequencies(task: Task, values: Floats) -> list[float]:
    """Share of each class of a binary or multiclass task, in the order of its index."""
    there = values[np.isfinite(values)].astype(np.int64)
    counts = np.bincount(there, minlength=len(task.classes))
    return [float(share) for share in counts / counts.sum()]


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


def _check_name(task: Task) -> None:
    if not task.name or set(task.name) & set('.,"\n\r'):
        raise ManifestError(f"a target can't be called {task.name!r}: no point, comma, quote or line break; rename it")
    if task.name in _TAKEN:
        raise ManifestError(f"a target can't be called {task.name!r}: torch uses the name itself; rename the column")


def _inferred(name: str, column: npt.NDArray[Any]) -> Task:
    """PanEcho's task of that name if the labels fit it, else what they look like."""
    known = next((task for task in all_tasks() if task.name == name), None)
    numeric = column.dtype.kind == "f"
    there = column[np.isfinite(column)] if numeric else np.array([text for text in column if text], dtype=object)
    zero_one = numeric and len(there) > 0 and bool(np.isin(there, (0, 1)).all())
    if known is not None and known.type == "regression" and numeric:
        return known
    if known is not None and known.classes and not numeric and set(there) <= set(known.classes):
        return known
    if numeric and not zero_one:
        return Task(name, "regression", 1, (), None, "", math.nan, "")
    classes = ("0", "1") if numeric else tuple(sorted(set(there), key=_number_first))
    if len(classes) > _MOST_CLASSES:
        raise ManifestError(
            f"{name} has {len(classes)} different texts, such as {_some(classes)}; "
            f"at most {_MOST_CLASSES} classes are taken"
        )
    if len(classes) < 2:
        raise ManifestError(f"{name} has no two classes: {_some(classes) or 'all labels are missing'}")
    if len(classes) == 2:
        return Task(name, "binary", 1, classes, 1, "", math.nan, "")
    return Task(name, "multiclass", len(classes), classes, None, "", math.nan, "")


def _values(column: npt.NDArray[Any], task: Task) -> Floats:
    if task.type == "regression":
        return _numbers(column, task.name)
    if column.dtype.kind == "f" and not _are_numbers(task.classes):
        return _indices(column, task)
    # As text, so that "1" finds the class 1.0 and the other way round.
    texts = [_plain(value) for value in column.tolist()]
    index = {_plain(label): float(i) for i, label in enumerate(task.classes)}
    strange = sorted({text for text in texts if text and text not in index})
    if strange:
        raise ManifestError(
            f"{task.name} has the labels {_some(strange)}{nearest(strange[0], task.classes)}; its classes are "
            f"{', '.join(task.classes)}, or their index from 0"
        )
    return np.array([index.get(text, math.nan) for text in texts])


def _indices(column: npt.NDArray[Any], task: Task) -> Floats:
    there = column[np.isfinite(column)]
    wrong = sorted(set(there[~np.isin(there, range(len(task.classes)))].tolist()))
    if wrong:
        raise ManifestError(
            f"{task.name} has the labels {_some(wrong)}; allowed are the indices 0 to {len(task.classes) - 1} of its "
            f"classes {', '.join(task.classes)}, or their names"
        )
    return column.astype(np.float64)


def _numbers(column: npt.NDArray[Any], name: str) -> Floats:
    if column.dtype.kind != "f":
        texts = sorted({text for text in column.tolist() if text and not _is_number(text)})
        raise ManifestError(f"{name} is a regression, and has labels that are no numbers: {_some(texts)}")
    if np.isinf(column).any():
        raise ManifestError(f"{name} has infinite labels; a missing label is an empty cell")
    return column.astype(np.float64)


def _are_numbers(classes: Sequence[str]) -> bool:
    return all(_is_number(label) for label in classes)


def _plain(value: Any) -> str:
    text = str(value)
    if not _is_number(text):
        return "" if text == "nan" else text
    return f"{float(text):g}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number_first(text: str) -> tuple[float, str]:
    return (float(text), text) if _is_number(text) else (math.inf, text)


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(repr, values[:_LISTED])) + (
        f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    )
