"""What is to be predicted: one rule that turns a column of labels into a target, for every command.

A target is a number, a yes-or-no question, classes without an order, or ordered grades. What the values alone do not
say is asked for: numbers that name classes, the order of grades.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Ints, Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.tasks import Task, all_tasks

_Columns = Mapping[str, npt.NDArray[Any]]
Kind = Literal["regression", "binary", "multiclass", "ordinal"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_MOST_CLASSES = 50
_MOST_TEXTS_OF_ALL = 20  # a text column with more different values is not part of `--target all`
_HIGHEST_GRADE = 10
# Of two classes, the one with such a name is the negative one.
ABSENT = frozenset({"0", "no", "none", "normal", "absent", "negative", "false", "healthy", "control"})
_TOLD = "--task regression, --task ordinal for grades, --task binary or multiclass for classes without an order"


@dataclass(frozen=True, slots=True)
class Target:
    """Something to predict for each row.

    Parameters
    ----------
    name : str
        Name of the label column.
    kind : {"regression", "binary", "multiclass", "ordinal"}
        A number, a yes-or-no question, classes without an order, or ordered grades.
    classes : tuple of str
        Class names in the order of their index; of two, the positive one last; of grades, the lowest first. Empty for a
        regression.
    unit : str
        Unit of a regression, "" where it is not known.
    sign : {1, -1}
        -1 where the column states magnitudes of a quantity that is reported as negative (strain): the values of the
        target are then minus the labels.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()
    unit: str = ""
    sign: Literal[1, -1] = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(f"{self.name}: task is {self.kind!r}; allowed are {', '.join(KINDS)} (--task)")
        needed = {"regression": 0, "binary": 2}.get(self.kind)
        if (needed is not None and len(self.classes) != needed) or (needed is None and len(self.classes) < 2):
            raise ArgumentError(f"{self.name} is {self.kind} and has the classes {', '.join(self.classes) or '(none)'}")

    @property
    def positive(self) -> str:
        """The positive class of a yes-or-no question; "" for other kinds."""
        return self.classes[-1] if self.kind == "binary" else ""

    @property
    def outputs(self) -> int:
        """Numbers that a prediction consists of: 1, or the number of classes when there is no single probability."""
        return len(self.classes) if self.kind in ("multiclass", "ordinal") else 1

    @property
    def title(self) -> str:
        """Name with unit: "EF, %"."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def shape(self, n: int) -> tuple[int, ...]:
        """Shape of predictions for n rows: (n,), or (n, K)."""
        return (n,) if self.outputs == 1 else (n, self.outputs)

    def called(self, prediction: Floats, threshold: npt.ArrayLike) -> Ints:
        """Class index (N,) that predictions amount to.

        Parameters
        ----------
        prediction : (N,) probability of the positive class, or (N, K) probabilities
        threshold : float or (N,)
            At or above it a yes-or-no question is answered yes.

        Returns
        -------
        (N,) int64
            Of classes the most probable one; of grades the median, the first whose cumulative probability is 0.5.
        """
        if self.kind == "binary":
            return np.asarray(prediction >= np.asarray(threshold, dtype=np.float64), dtype=np.int64)
        if self.kind == "ordinal":
            return median_class(prediction)
        return np.asarray(prediction.argmax(axis=1), dtype=np.int64)

    def names_of(self, indices: npt.ArrayLike) -> Texts:
        """Class names (N,) of class indices; "" for NaN."""
        given = np.asarray(indices, dtype=np.float64)
        return np.array([self.classes[int(i)] if np.isfinite(i) else "" for i in given], dtype=object)


@dataclass(frozen=True, slots=True)
class Reading:
    """How label columns are to be read.

    Parameters
    ----------
    task : Kind or None
        Kind of target; None tells by the values and the tables of tasks.
    positive : str
        Positive class of a yes-or-no question; "" for the rule of `read_target`.
    order : tuple of str
        Classes of ordered grades, the lowest first; () for none.
    tasks : mapping of str to Task
        Tasks by column name: classes, unit and sign of columns that are called so. PanEcho's own by default.
    positives, orders : mapping
        The positive class and the order of single targets, by name; they go before `positive` and `order`.
    """

    task: Kind | None = None
    positive: str = ""
    order: tuple[str, ...] = ()
    tasks: Mapping[str, Task] = field(default_factory=lambda: {task.name: task for task in all_tasks()})
    positives: Mapping[str, str] = field(default_factory=dict)
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in KINDS:
            raise ArgumentError(f"task is {self.task!r}; allowed are {', '.join(KINDS)} (--task)")
        for order in (self.order, *self.orders.values()):
            if order and self.task not in (None, "ordinal"):
                raise ArgumentError(f"an order is for grades, and the task is {self.task} (--order, --task)")
            if len(set(order)) < len(order) or len(order) == 1:
                raise ArgumentError(f"the order is {', '.join(order)}; two grades or more, each once (--order)")

    @classmethod
    def parse(cls, task: Kind | None, positive: Iterable[str], order: Iterable[str], **tasks: Any) -> Reading:
        """The reading in values of --positive and --order: "severe" for all targets, "AS=severe" for one."""
        positives = _by_target(positive, "--positive")
        orders = {
            name: tuple(grade.strip() for grade in text.split(",") if grade.strip())
            for name, text in _by_target(order, "--order").items()
        }
        return cls(task, positives.pop("", ""), orders.pop("", ()), positives=positives, orders=orders, **tasks)

    def of(self, name: str) -> Reading:
        """How the column of one target is to be read."""
        return replace(self, positive=self.positives.get(name, self.positive), order=self.orders.get(name, self.order))

    def check_names(self, names: Iterable[str]) -> None:
        """Raise ArgumentError for a positive class or an order of something that is no target of the run."""
        known = list(names)
        for flag, given in (("--positive", self.positives), ("--order", self.orders)):
            if strangers := [name for name in given if name not in known]:
                raise ArgumentError(
                    f"{some(strangers)} in {flag} is no target of this run; these are {', '.join(known)}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A target and its values.

    target : what is predicted. truth : (N,) float64, value or class index, NaN where missing. note : what was taken for
    granted, "" if nothing.
    """

    target: Target
    truth: Floats
    note: str = ""


def read_target(column: npt.NDArray[Any], name: str, reading: Reading | None = None) -> Labels:
    """A label column as a target.

    What `reading` states comes first; then what the table of tasks says of a column of this name, where the labels fit;
    then the values: text is classes, 0 and 1 are a yes-or-no question, other numbers a regression. Class names are
    compared without case, and one part of a name that stands for several is enough ("Mild" for "Mild|Moderate"). Of two
    unknown classes the positive one is the last in order, or the one that is not called "normal", "none", "no", ...

    Parameters
    ----------
    column : (N,) float64 with NaN where missing, or (N,) str objects with "" where missing
    name : str
    reading : Reading, optional

    Returns
    -------
    Labels

    Raises
    ------
    ArgumentError
        For numbers that name classes (whole numbers from 0 or 1 up) unless the task is stated, text grades without an
        order, text in a regression, more than 50 classes, and labels with a single value.
    """
    reading = (reading or Reading()).of(name)
    known = reading.tasks.get(name)
    numeric = column.dtype.kind in "fiub"
    if numeric and np.isinf(column.astype(np.float64)).any():
        raise ArgumentError(f"{name} has infinite values; a missing label is an empty cell")
    kind = reading.task or ("ordinal" if reading.order else _told_by(column, name, known, numeric))
    if kind == "regression":
        return _regression(column, name, known, numeric)
    text = as_text(column)
    classes, of_label, note = _classes(text, name, kind, known, reading)
    truth = np.full(len(text), np.nan)
    there = text != ""
    truth[there] = [of_label[label] for label in text[there]]
    present = np.unique(truth[there])
    if len(present) < 2:
        only = classes[int(present[0])] if len(present) else "no label at all"
        raise ArgumentError(f"{name} has only one class, {only!r}; there is nothing to learn")
    return Labels(Target(name, kind, classes), truth, note)


def target_names(labels: _Columns, wanted: str, *, also: _Columns | None = None) -> list[str]:
    """The targets in "EF,ESV", or with "all" every label column that is a target.

    Parameters
    ----------
    labels : mapping of str to (N,) array
    wanted : str
        Names separated by commas, or "all": every column with two different values, texts with at most 20.
    also : mapping, optional
        Columns that may be named, but are not part of "all".

    Raises
    ------
    ArgumentError
        For a name that is not there, with the nearest ones.
    """
    if wanted.strip() == "all":
        names = [name for name, column in labels.items() if _is_a_target(column)]
        if not names:
            raise ArgumentError("no label column has two different values; add labels with --labels labels.csv")
        return names
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names:
        raise ArgumentError("no target is named; --target EF, --target EF,ESV or --target all")
    for name in names:
        if name not in {**(also or {}), **labels}:
            raise ArgumentError(_no_such_label(name, list(labels)))
    return names


def matched_classes(target: Target, task: Task) -> list[int]:
    """For each class of a target the index of the same class in a task's head.

    Names are compared as `read_target` does. Raises ArgumentError where a class of the target is none of the task's.
    """
    index = _class_names(task.classes)
    strangers = [label for label in target.classes if _key(label) not in index]
    if strangers:
        raise ArgumentError(
            f"its labels {some(strangers)} are no classes of the task; the classes are {', '.join(task.classes)}"
        )
    return [index[_key(label)] for label in target.classes]


def median_class(probability: Floats) -> Ints:
    """First class (N,) whose cumulative probability reaches 0.5, of probabilities (N, K) of ordered classes."""
    reached = np.cumsum(probability, axis=1) >= 0.5 - 1e-12
    return np.asarray(reached.argmax(axis=1), dtype=np.int64)


def _class_names(classes: Iterable[str]) -> dict[str, int]:
    """Every way to write a class, lower case -> its index; a part of a name counts where no other class has it."""
    names = list(classes)
    parts: dict[str, int] = {}
    for i, name in enumerate(names):
        for part in map(_key, name.split("|")):
            parts[part] = -1 if parts.get(part, i) != i else i
    return {part: i for part, i in parts.items() if i >= 0} | {_key(name): i for i, name in enumerate(names)}


def as_text(column: npt.NDArray[Any]) -> Texts:
    """Values as text, "" where missing; numbers without needless decimals."""
    if column.dtype.kind not in "fiub":
        return column.astype(object)
    text = np.empty(len(column), dtype=object)
    text[:] = ["" if np.isnan(value) else f"{value:.15g}" for value in column.astype(np.float64).tolist()]
    return text


def some(values: Iterable[object], count: int = 3) -> str:
    """The first values, quoted, and "..." where there are more."""
    listed = [repr(str(value)) for value in values]
    return ", ".join(listed[:count]) + (" ..." if len(listed) > count else "")


def _by_target(texts: Iterable[str], flag: str) -> dict[str, str]:
    """Values by the target that they are for, "" for all: of "severe" and "AS=severe"; ">=50" names no target."""
    found: dict[str, str] = {}
    for text in texts:
        match = re.fullmatch(r"([^=<>]+)=(.+)", text)
        name, value = (match[1].strip(), match[2]) if match else ("", text)
        if name in found:
            raise ArgumentError(f"{flag} is given more than once for {name or 'all targets'}; use {flag} TARGET=...")
        found[name] = value.strip()
    return found


def _told_by(column: npt.NDArray[Any], name: str, known: Task | None, numeric: bool) -> Kind:
    """The kind that a column of this name and these values has; ArgumentError where that is ambiguous."""
    if known is not None and known.type == "regression":
        return "regression"
    if not numeric:
        different = list(dict.fromkeys(label for label in column.tolist() if label))
        _check_numbers_with_text(name, different)
        if known is not None and all(_key(label) in _class_names(known.classes) for label in different):
            return known.type
        return "binary" if len(set(map(_key, different))) == 2 else "multiclass"
    there = np.unique(column[~np.isnan(column.astype(np.float64))].astype(np.float64))
    if known is not None and not all(_is_number(label) for label in known.classes):
        yes_no = f"--task binary takes 1 for {known.positive_class!r}; " if known.type == "binary" else ""
        raise ArgumentError(
            f"{name} has the numbers {some(as_text(there))}, and its classes are {', '.join(known.classes)}: which is "
            f"which is not known. Write the names into the column, or say what the numbers are: {yes_no}{_TOLD}"
        )
    if np.isin(there, (0, 1)).all():
        return "binary"
    if len(there) and there[0] in (0, 1) and there[-1] <= _HIGHEST_GRADE and (there % 1 == 0).all():
        raise ArgumentError(
            f"{name} has the whole numbers {', '.join(as_text(there))} alone: measurements, grades or classes? Say "
            f"which: {_TOLD}"
        )
    return "regression"


def _check_numbers_with_text(name: str, different: list[str]) -> None:
    """Raise ArgumentError for a column of numbers that a few cells turned into text."""
    strange = [label for label in different if not _is_number(label)]
    if strange and _mostly_numbers(different):
        raise ArgumentError(
            f"{name} has numbers, and {len(strange)} different cells that are none: {some(strange)}; correct them or "
            "leave them empty (or take all values for classes: --task multiclass)"
        )


def _mostly_numbers(different: list[str]) -> bool:
    return 2 * sum(map(_is_number, different)) > len(different)


def _regression(column: npt.NDArray[Any], name: str, known: Task | None, numeric: bool) -> Labels:
    if not numeric:
        bad = [label for label in dict.fromkeys(column.tolist()) if label and not _is_number(label)]
        if bad:
            raise ArgumentError(
                f"{name} has text where regression needs numbers: {some(bad)} ({len(bad)} different); "
                "--task binary, multiclass or ordinal takes them as classes"
            )
    values = column.astype(np.float64) if numeric else np.array([float(label or "nan") for label in column.tolist()])
    there = values[np.isfinite(values)]
    if not len(there):
        raise ArgumentError(f"{name} has no value at all; leave it out")
    if (there == there[0]).all():
        raise ArgumentError(f"{name} is {there[0]:g} wherever it is known; there is nothing to learn")
    unit = known.unit if known is not None and known.type == "regression" else ""
    if known is not None and known.sign < 0 and (there > 0).all():
        note = f"{name} is reported as negative, and its labels are all above 0: they are taken with the sign flipped"
        return Labels(Target(name, "regression", unit=unit, sign=-1), -values, note)
    return Labels(Target(name, "regression", unit=unit), values)


def _classes(
    text: Texts, name: str, kind: Kind, known: Task | None, reading: Reading
) -> tuple[tuple[str, ...], dict[str, int], str]:
    """Classes in the order of their index, the index of every label, and a note."""
    different = sorted({label for label in text.tolist() if label}, key=_number_first)
    if reading.order:
        return _ordered(different, name, reading.order)
    index = _class_names(known.classes) if known is not None else {}
    if known is not None and kind == known.type == "binary" and set(different) <= {"0", "1"} and "0" not in index:
        classes = [label for label in known.classes if label != known.positive_class] + [known.positive_class]
        note = f"{name}: 1 is taken for {known.positive_class!r}"
        return _of_two(classes, name, reading.positive), {"0": 0, "1": 1}, note
    fits = known is not None and bool(known.classes) and all(_key(label) in index for label in different)
    if known is not None and fits and kind != "ordinal":
        classes, positive = list(known.classes), known.positive_class
    else:
        classes, positive = list({_key(label): label for label in reversed(different)}.values())[::-1], ""
    _check_classes(classes, name, kind)
    if len(classes) == 2:
        classes = list(_of_two(classes, name, reading.positive or positive))
    index = _class_names(classes)
    return tuple(classes), {label: index[_key(label)] for label in different}, ""


def _check_classes(classes: list[str], name: str, kind: Kind) -> None:
    if kind == "binary" and len(classes) > 2:
        raise ArgumentError(f"{name} has {len(classes)} classes, {', '.join(classes[:8])}; use --task multiclass")
    if len(classes) > _MOST_CLASSES:
        raise ArgumentError(
            f"{name} has {len(classes)} different values, such as {some(classes)}; at most {_MOST_CLASSES} classes are "
            "taken"
        )
    if kind == "ordinal" and not all(map(_is_number, classes)):
        raise ArgumentError(
            f"{name} has the grades {', '.join(classes)}, and their order is not known: give it, the lowest first "
            f'(--order "{",".join(classes)}")'
        )


def _ordered(different: list[str], name: str, order: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, int], str]:
    index = _class_names(order)
    strangers = [label for label in different if _key(label) not in index]
    if strangers:
        raise ArgumentError(f"{name} has {some(strangers)}, which the order {', '.join(order)} lacks (--order)")
    return order, {label: index[_key(label)] for label in different}, ""


def _of_two(classes: list[str], name: str, positive: str) -> tuple[str, ...]:
    """Two classes, the positive one last."""
    if positive:
        index = _class_names(classes).get(_key(positive))
        if index is None:
            raise ArgumentError(
                f"{name} has the classes {', '.join(classes)}; {positive!r} is none of them (--positive)"
            )
        return (classes[1 - index], classes[index])
    absent = [label for label in classes if _key(label) in ABSENT]
    if len(absent) == 1:
        return (absent[0], next(label for label in classes if label != absent[0]))
    return tuple(classes)


def _no_such_label(name: str, names: list[str]) -> str:
    by_lower = {known.lower(): known for known in names}
    near = [by_lower[hit] for hit in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    there = f"label columns: {', '.join(names[:20])}" if names else "there are no label columns"
    return f"no label column {name!r}: {hint}{there}; add labels with --labels labels.csv"


def _is_a_target(column: npt.NDArray[Any]) -> bool:
    text = as_text(column)
    different = list(dict.fromkeys(text[text != ""].tolist()))
    # Numbers that a stray cell made text are named as a target, so that the cell is named as the problem.
    return len(different) >= 2 and (len(different) <= _MOST_TEXTS_OF_ALL or _mostly_numbers(different))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number_first(text: str) -> tuple[float, str]:
    return (float(text), text) if _is_number(text) else (math.inf, text)


def _key(label: str) -> str:
    """Case and the decimals of a whole number do not matter: "1.0" is "1"."""
    return label.strip().casefold().removesuffix(".0")
