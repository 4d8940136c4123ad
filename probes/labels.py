"""Labels: which of them are targets, and what kind of task a target is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.tasks import Task, all_tasks

if TYPE_CHECKING:
    from probes.base import TaskType


@dataclass(frozen=True, slots=True)
class Labels:
    """A target as numbers. truth: (N,) value, or class index; NaN where missing. classes: () for regression."""

    task: TaskType
    truth: npt.NDArray[np.float64]
    classes: tuple[str, ...] = ()


Columns = Mapping[str, npt.NDArray[Any]]


def target_names(labels: Columns, wanted: str, *, also: Columns | None = None) -> list[str]:
    """The targets in "EF,ESV", or with "all" every label column that is a task.

    also: columns that may be named, but are not part of "all". "all" leaves out columns without two different values
    and text columns with more than 20. Raises ArgumentError with the nearest names for one that isn't there.
    """
    if wanted.strip() == "all":
        names = [name for name, column in labels.items() if _is_a_task(column)]
        if not names:
            raise ArgumentError("no label column has two different values; add labels with --labels labels.csv")
        return names
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names:
        raise ArgumentError("no target is named; --target EF, --target EF,ESV or --target all")
    for name in names:
        if name not in {**(also or {}), **labels}:
            raise ArgumentError(_no_such_label(name, labels))
    return names


def read_labels(
    column: npt.NDArray[Any], name: str, *, task: TaskType | None = None, positive: str | None = None
) -> Labels:
    """A label column as a task: what `task` says, else what is known of PanEcho's task `name`, else what it looks like.

    Text is classes, as are numbers that are all 0 or 1; other numbers are a regression. positive: the positive class of
    a binary task; else the one that PanEcho's table names, else the last in order.
    """
    known = next((known for known in all_tasks() if known.name == name), None)
    is_text = column.dtype.kind not in "fiub"
    if task == "regression" or (task is None and not is_text and not _looks_discrete(column, known)):
        numbers = _as_numbers(column, name)
        there = numbers[np.isfinite(numbers)]
        if len(there) and (there == there[0]).all():
            raise ArgumentError(f"{name} is {there[0]:g} wherever it is known; there is nothing to learn")
        return Labels("regression", numbers)
    text = as_text(column)
    has_label = text != ""
    classes = _class_order(sorted(set(text[has_label].tolist()), key=_number_first), known, positive, name)
    if len(classes) < 2:
        raise ArgumentError(f"{name} has only one class, {', '.join(map(repr, classes))}; there is nothing to learn")
    if task == "binary" and len(classes) > 2:
        raise ArgumentError(f"{name} has {len(classes)} classes, {', '.join(classes[:8])}; use --task multiclass")
    if len(classes) > max(50, int(has_label.sum()) // 2):
        raise ArgumentError(
            f"{name} has {len(classes)} different values in {has_label.sum()} rows; that is no set of classes"
        )
    truth = np.full(len(text), np.nan)
    index = {label: float(i) for i, label in enumerate(classes)}
    truth[has_label] = [index[label] for label in text[has_label]]
    return Labels(task or ("binary" if len(classes) == 2 else "multiclass"), truth, tuple(classes))


def _no_such_label(name: str, labels: Iterable[str]) -> str:
    names = list(labels)
    by_lower = {known.lower(): known for known in names}
    near = [by_lower[hit] for hit in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    there = f"label columns: {', '.join(names[:20])}" if names else "the embedding file has no label columns"
    return f"no label column {name!r}: {hint}{there}; add labels with --labels labels.csv"


def _is_a_task(column: npt.NDArray[Any]) -> bool:
    text = as_text(column)
    different = len(set(text[text != ""].tolist()))
    return different >= 2 and (column.dtype.kind in "fiub" or different <= 20)


def _looks_discrete(column: npt.NDArray[Any], known: Task | None) -> bool:
    there = column[~np.isnan(column.astype(np.float64))]
    if known is not None:
        return known.type != "regression"
    return bool(np.isin(there, (0, 1)).all())


def _as_numbers(column: npt.NDArray[Any], name: str) -> npt.NDArray[np.float64]:
    if column.dtype.kind in "fiub":
        numbers = column.astype(np.float64)
        if np.isinf(numbers).any():
            raise ArgumentError(f"{name} has infinite values; a missing label is empty")
        return numbers
    text = [value for value in column.tolist() if value]
    bad = [value for value in dict.fromkeys(text) if not _is_number(value)]
    if bad:
        raise ArgumentError(
            f"{name} has text where regression needs numbers: {some(bad)} ({len(bad)} different); "
            "--task binary or multiclass takes them as classes"
        )
    return np.array([float(value) if value else np.nan for value in column.tolist()])


def as_text(column: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    """Values as text, "" where missing; numbers without needless decimals."""
    if column.dtype.kind not in "fiub":
        return column.astype(object)
    text = np.empty(len(column), dtype=object)
    text[:] = ["" if np.isnan(value) else f"{value:.15g}" for value in column.astype(np.float64).tolist()]
    return text


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _number_first(text: str) -> tuple[float, str]:
    return (float(text), text) if _is_number(text) else (float("inf"), text)


def _class_order(classes: list[str], known: Task | None, positive: str | None, name: str) -> list[str]:
    """Classes in the order of their index; of two, the positive one last."""
    if known is not None and set(classes) <= set(known.classes):
        classes = [label for label in known.classes if label in classes]
        if positive is None and known.positive_class_index is not None:
            positive = known.classes[known.positive_class_index]
    if positive is None or (len(classes) != 2 and positive not in classes):
        return classes
    if positive not in classes:
        raise ArgumentError(f"{name} has the classes {', '.join(classes)}; {positive!r} is none of them (--positive)")
    return [label for label in classes if label != positive] + [positive] if len(classes) == 2 else classes


def some(values: Iterable[object], count: int = 3) -> str:
    """The first values, quoted, and "..." where there are more."""
    listed = [repr(str(value)) for value in values]
    return ", ".join(listed[:count]) + (" ..." if len(listed) > count else "")
