"""Reporting tasks as data: PanEcho's own table, and anybody else's in the same form."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, cast, get_args

from panecho_embed.core.errors import TaskTableError
from panecho_embed.core.outputs import write_text
from panecho_embed.core.wording import nearest

TaskType = Literal["binary", "multiclass", "regression"]

_COLUMNS = (
    "name",
    "type",
    "num_outputs",
    "classes_in_index_order",
    "positive_class_index",
    "unit",
    "training_mean",
    "description",
)
_NEEDED = ("name", "type")
_FLIPPED = " (sign flipped: true strain = -output)"
_MORE = "cells beyond the last column"
_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Task:
    """One reporting task.

    name: also the name of its head in the checkpoint. num_outputs: 1, or the number of classes of a multiclass task.
    classes: names in the order of the class index; empty for regression.
    positive_class_index: of a binary task, the index of the clinically positive class; the head's logit is the log-odds
    of index 1. unit: of a regression. sign: -1 where the output, and what it was trained on, is the reported value with
    its sign flipped (GLS), else 1. training_mean: mean of the training target, which one-output biases start at; NaN
    where the table gives none.
    """

    name: str
    type: TaskType
    num_outputs: int
    classes: tuple[str, ...]
    positive_class_index: int | None
    unit: str
    training_mean: float
    description: str
    sign: Literal[1, -1] = 1

    @property
    def positive_class(self) -> str:
        """Name of the clinically positive class of a binary task; "" for the others."""
        return "" if self.positive_class_index is None else self.classes[self.positive_class_index]


@cache
def all_tasks() -> tuple[Task, ...]:
    """The 40 tasks of the released model, in the order of its table."""
    text = resources.files("panecho_embed.core").joinpath("tasks.csv").read_text(encoding="utf-8")
    return _parsed(text, "tasks.csv")


def read_tasks(path: str | Path) -> tuple[Task, ...]:
    """A table of tasks in the form of tasks.csv, in its order.

    name and type (binary, multiclass, regression) must be there. classes_in_index_order, separated by ";", are needed
    for binary (2) and multiclass (2 or more) and not allowed for regression; positive_class_index (0 or 1) is needed
    only for binary. num_outputs, unit, training_mean and description may be omitted; num_outputs must fit the type
    where it is given. A unit that ends in "(sign flipped: ...)" is that of GLS in tasks.csv: reports show -output.

    Raises TaskTableError, which lists every problem, with the nearest names for unknown columns and types.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else f"no UTF-8 text ({error})"
        raise TaskTableError(f"{path}: the table of tasks can't be read: {reason} (--task-table)") from error
    return _parsed(text, str(path))


def write_tasks(tasks: Sequence[Task], path: str | Path) -> Path:
    """Write a table that `read_tasks` reads back; it appears at `path` only when it is whole. Raises StoreError."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_cells(task) for task in tasks)
    return write_text(path, text.getvalue())


def _cells(task: Task) -> list[object]:
    return [
        task.name,
        task.type,
        task.num_outputs,
        ";".join(task.classes),
        "" if task.positive_class_index is None else task.positive_class_index,
        task.unit + (_FLIPPED if task.sign < 0 else ""),
        "" if math.isnan(task.training_mean) else repr(task.training_mean),
        task.description,
    ]


def _parsed(text: str, source: str) -> tuple[Task, ...]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_MORE, strict=True)
    try:
        columns = list(reader.fieldnames or ())
        rows = list(reader)
    except csv.Error as error:
        raise TaskTableError(f"{source}: no CSV table: line {reader.line_num}: {error} (--task-table)") from error
    problems = list(_column_problems(columns))
    if not problems and not rows:
        problems = ["it has no rows"]
    tasks = []
    # A row's problems would be the wrong columns' once more.
    for number, row in enumerate([] if problems else rows, start=2):
        task, found = _task(row)
        tasks.append(task)
        problems += [f"row {number}{f' ({task.name})' if task.name else ''}: {problem}" for problem in found]
    counts = Counter(task.name for task in tasks if task.name)
    problems += [f"the name {name!r} stands {count} times" for name, count in counts.items() if count > 1]
    if problems:
        shown = [f"  {problem}" for problem in problems[:_MOST_PROBLEMS]]
        rest = [f"  and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
        raise TaskTableError("\n".join([f"{source}: no table of tasks (--task-table):", *shown, *rest]))
    return tuple(tasks)


def _column_problems(columns: list[str]) -> Iterable[str]:
    for name in columns:
        if name not in _COLUMNS:
            yield f"unknown column {name!r}{nearest(name, _COLUMNS)}; allowed: {', '.join(_COLUMNS)}"
    yield from (f"the column {name!r} stands twice" for name, count in Counter(columns).items() if count > 1)
    yield from (f"the column {name!r} is missing" for name in _NEEDED if name not in columns)


def _task(row: Mapping[str, str | None]) -> tuple[Task, list[str]]:
    """A row as a task, and what is wrong with it; with a problem, the task is not to be used."""
    problems: list[str] = []
    if _MORE in row:
        problems.append("it has more cells than there are columns")
    cell = {name: (row.get(name) or "").strip() for name in _COLUMNS}
    name, kind = cell["name"], cell["type"]
    if not name or set(name) & set('.,"\n\r'):
        problems.append(f"the name is {name!r}; it must not be empty, nor hold a point, a comma, a quote, a line break")
    classes = tuple(part.strip() for part in cell["classes_in_index_order"].split(";") if part.strip())
    if kind not in get_args(TaskType):
        problems.append(
            f"type is {kind!r}{nearest(kind, get_args(TaskType))}; allowed: {', '.join(get_args(TaskType))}"
        )
    else:
        problems += _class_problems(cast(TaskType, kind), classes, cell["positive_class_index"])
    outputs = len(classes) if kind == "multiclass" else 1
    if cell["num_outputs"] not in ("", str(outputs)):
        problems.append(f"num_outputs is {cell['num_outputs']!r}; that of a {kind} task with its classes is {outputs}")
    mean = _number(cell["training_mean"])
    if mean is None:
        problems.append(f"training_mean is {cell['training_mean']!r}; it must be a number, or empty")
    unit, flipped, _ = cell["unit"].partition("(sign flipped")
    if flipped and kind != "regression":
        problems.append(f"unit is {cell['unit']!r}; only a regression has a sign")
    positive = int(cell["positive_class_index"]) if cell["positive_class_index"] in ("0", "1") else None
    return Task(
        name=name,
        type=cast(TaskType, kind),
        num_outputs=outputs,
        classes=classes,
        positive_class_index=positive,
        unit=unit.strip(),
        training_mean=math.nan if mean is None else mean,
        description=cell["description"],
        sign=-1 if flipped else 1,
    ), problems


def _class_problems(kind: TaskType, classes: tuple[str, ...], positive: str) -> Iterable[str]:
    given = f"classes_in_index_order is {';'.join(classes)!r}"
    if kind == "regression" and classes:
        yield f"{given}; a regression has no classes"
    if kind == "binary" and len(classes) != 2:
        yield f"{given}; a binary task has two, separated by ';', the one of index 0 first"
    if kind == "multiclass" and len(classes) < 2:
        yield f"{given}; a multiclass task has two or more, separated by ';'"
    if len(set(classes)) < len(classes):
        yield f"{given}; each class must have its own name"
    if kind == "binary" and positive not in ("0", "1"):
        yield f"positive_class_index is {positive!r}; a binary task says 0 or 1, the clinically positive class"
    if kind != "binary" and positive:
        yield f"positive_class_index is {positive!r}; only a binary task has one"


def _number(text: str) -> float | None:
    """NaN for an empty cell, None for what is no finite number."""
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
