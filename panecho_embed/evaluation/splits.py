"""Who trains, who chooses settings and who tests: never the same patient on two sides; and who is drawn of many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import plural

Size = Literal["fraction", "shots"]

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_REDRAWS = 100
_PATIENTS_OF_A_CLASS = 2  # the fewest that settings can be chosen on


@dataclass(frozen=True, slots=True)
class Fold:
    """One training and its test: row numbers. validation is empty when inner grouped folds of `train` select."""

    name: str
    train: Ints
    validation: Ints
    test: Ints

    def with_patients(self, patients: npt.NDArray[Any], chosen: Sequence[str]) -> Fold:
        """The fold with only some patients to train on, and none to validate: inner folds of them choose settings."""
        kept = np.isin(patients[self.train].astype(str), chosen)
        return Fold(self.name, self.train[kept], np.empty(0, dtype=np.int64), self.test)


@dataclass(frozen=True, slots=True)
class Draw:
    """One training set.

    fold: its name. size: the fraction or shots asked for. repeat: number of the draw. patients: whose labels were used,
    in the order drawn.
    """

    fold: str
    size: float
    repeat: int
    patients: tuple[str, ...]


def split_name(text: str) -> str:
    """ "train", "val" or "test" for any usual way to write it; "" for anything else."""
    return _SPLIT_NAMES.get(text.strip().lower(), "")


def given_folds(split: npt.NDArray[Any]) -> list[Fold]:
    """The folds that a split column names: train/val/test, or fold numbers (fold f tests, the next one validates).

    Numbers are how EchoNet-Pediatric gives its ten folds. Raises ArgumentError for other names, an empty split, or no
    test rows.
    """
    names = [str(name).strip().lower() for name in split]
    if all(name.isdigit() for name in names):
        return _numbered_folds(np.array([int(name) for name in names]))
    unknown = sorted({name for name in names if not split_name(name)})
    if unknown:
        raise ArgumentError(
            f"the split column has {', '.join(map(repr, unknown[:5]))}; allowed are train, val and test, or fold "
            "numbers on every row, or --folds K to make grouped folds instead"
        )
    common = np.array([split_name(name) for name in names])
    parts = {name: np.flatnonzero(common == name) for name in SPLITS}
    for name in ("train", "test"):
        if not len(parts[name]):
            sizes = ", ".join(f"{n} {len(rows)}" for n, rows in parts.items())
            raise ArgumentError(f"the {name} split is empty ({sizes} rows with a label); --folds K makes grouped folds")
    return [Fold("split", parts["train"], parts["val"], parts["test"])]


def kfold(groups: npt.ArrayLike, y: npt.ArrayLike, k: int, *, discrete: bool, seed: int = 0) -> list[Fold]:
    """Grouped K-fold: each patient is tested once; inner grouped folds select."""
    number = grouped_folds(groups, y, k, discrete=discrete, seed=seed)
    none = np.empty(0, dtype=np.int64)
    return [Fold(f"fold {i}", np.flatnonzero(number != i), none, np.flatnonzero(number == i)) for i in range(k)]


def grouped_folds(groups: npt.ArrayLike, y: npt.ArrayLike, k: int, *, discrete: bool, seed: int = 0) -> Ints:
    """Fold number 0..k-1 of every row, (N,) int64; all rows of a group in one fold, folds alike in size and in `y`.

    Groups are ordered by stratum (their rarest class, or the fifth of the target that holds their mean) and dealt out
    in turn, in a random order within each stratum. Where a class of two groups or more would be in one fold, so that
    nobody of it is left when that is held out, they are dealt again. Raises ArgumentError for fewer groups than folds.
    """
    ids, codes = np.unique(np.asarray(groups), return_inverse=True)
    if k < 2:
        raise ArgumentError(f"folds is {k}; cross-validation needs 2 or more (--folds)")
    if len(ids) < k:
        raise ArgumentError(
            f"{k} folds need at least {k} patients; there are {len(ids)} ({len(codes)} "
            f"{plural('sample', len(codes))}): use fewer (--folds)"
        )
    stratum = (
        _rarest_class(codes, y, len(ids)) if discrete else _fifth(codes, np.asarray(y, dtype=np.float64), len(ids))
    )
    first = number = _dealt(stratum, k, np.random.default_rng(seed))[codes]
    if not discrete:
        return first
    classes = [rows for value in np.unique(np.asarray(y)) if len(np.unique(codes[rows := np.asarray(y) == value])) > 1]
    for attempt in range(1, _REDRAWS + 1):
        if all(len(np.unique(number[rows])) > 1 for rows in classes):
            return number
        number = _dealt(stratum, k, np.random.default_rng([seed, attempt]))[codes]
    return first


def check_no_leakage(folds: Iterable[Fold], patients: npt.NDArray[Any]) -> None:
    """Raise ArgumentError, naming them, when a patient is on two sides of a fold."""
    for fold in folds:
        for a, b, both in _crossing(fold, patients):
            named = ", ".join(both[:10]) + (f" and {len(both) - 10} more" if len(both) > 10 else "")
            are = "patient is" if len(both) == 1 else "patients are"
            raise ArgumentError(
                f"{len(both)} {are} in both {a} and {b} ({fold.name}): {named}; "
                "correct the split column, or insist with --allow-leakage"
            )


def leaking_patients(folds: Iterable[Fold], patients: npt.NDArray[Any]) -> list[str]:
    """The patients that are on two sides of a fold."""
    return sorted({who for fold in folds for _, _, both in _crossing(fold, patients) for who in both})


def random_order(patients: Iterable[str], seed: int, repeat: int = 0) -> list[str]:
    """Patients, each once, in a random order that depends only on seed, repeat and their ids.

    So the same patients are drawn from a training set by every command, and a patient keeps the place when others are
    missing.
    """
    return sorted(set(patients), key=lambda who: hashlib.blake2b(f"{seed}/{repeat}/{who}".encode()).digest())


def draw_patients(
    patients: npt.NDArray[Any],
    truth: Floats | None,
    n_classes: int,
    size: float,
    unit: Size,
    *,
    seed: int,
    repeat: int = 0,
) -> list[str]:
    """Patients to train on, drawn at random; a smaller draw of the same seed and repeat lies inside a larger one.

    Parameters
    ----------
    patients : (N,) ids
        Patient of each training row.
    truth : (N,) class index, or None
        To take patients by class; of a regression None.
    n_classes : int
        Number of classes; 0 for a regression.
    size : float
        Share of the patients, above 0 to 1; or patients of each class (in a regression: patients).
    unit : {"fraction", "shots"}
    seed, repeat : int

    Returns
    -------
    list of str
        In the order drawn. A fraction has at least two patients of each class, as far as there are any.

    Raises
    ------
    ArgumentError
        For fewer patients than shots.
    """
    who = patients.astype(str)
    ordered = random_order(who.tolist(), seed, repeat)
    owners = [set(who[truth == index].tolist()) for index in range(n_classes)] if truth is not None else []
    if unit == "shots":
        return _shots(ordered, owners, int(size))
    wanted = max(round(size * len(ordered)), 2)
    having = [[name for name in ordered if name in owner][:_PATIENTS_OF_A_CLASS] for owner in owners]
    needed = {name for names in having for name in names}
    return [name for place, name in enumerate(ordered) if place < wanted or name in needed]


def check_shots(shots: Sequence[int], *, chooses: bool) -> None:
    """Raise ArgumentError for less than one shot, and for one where it takes two to choose settings."""
    if min(shots) < 1:
        raise ArgumentError(f"shots are {', '.join(map(str, shots))}; 1 or more are needed")
    if min(shots) < _PATIENTS_OF_A_CLASS and chooses:
        raise ArgumentError(
            "of 1 patient a class none can be held out to choose settings on: fix the setting (--strengths 1 for "
            "`probe linear`, --k 1 for `probe knn`), or take 2 shots or more"
        )


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ArgumentError unless every fraction is above 0 and at most 1, and none stands twice."""
    if not fractions or len(set(fractions)) < len(fractions) or any(not 0 < fraction <= 1 for fraction in fractions):
        raise ArgumentError(
            f"fractions are {list(fractions)}; each must be above 0, at most 1, and stand once (--fractions 0.1,1)"
        )


def patients_of_classes(patients: npt.NDArray[Any], truth: Floats, n_classes: int) -> Mapping[int, int]:
    """Class index -> number of its patients, of classes that any row has; {0: all} for a regression."""
    who = patients.astype(str)
    if not n_classes:
        return {0: len(np.unique(who))}
    return {int(index): len(np.unique(who[truth == index])) for index in np.unique(truth)}


def _shots(ordered: list[str], owners: list[set[str]], size: int) -> list[str]:
    if not owners:
        if size > len(ordered):
            raise ArgumentError(
                f"{size} patients were asked for; there are {len(ordered)} to train on (--shots, --k-shot)"
            )
        return ordered[:size]
    taken, have = [], np.zeros(len(owners), dtype=np.int64)
    for name in ordered:
        of = [index for index, owner in enumerate(owners) if name in owner]
        if any(have[index] < size for index in of):
            taken.append(name)
            have[of] += 1
    there = [index for index, owner in enumerate(owners) if owner]
    if (have[there] < size).any():
        rare = min(there, key=lambda index: int(have[index]))
        raise ArgumentError(
            f"{size} patients of each class were asked for; of class {rare} there are {have[rare]} to train on "
            "(--shots, --k-shot)"
        )
    return taken


def _crossing(fold: Fold, patients: npt.NDArray[Any]) -> Iterator[tuple[str, str, list[str]]]:
    sides = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    sets = {side: set(map(str, patients[rows])) for side, rows in sides.items()}
    for a, b in (("train", "test"), ("validation", "test"), ("train", "validation")):
        if both := sorted(sets[a] & sets[b]):
            yield a, b, both


def _numbered_folds(number: Ints) -> list[Fold]:
    numbers = np.unique(number)
    if len(numbers) < 3:
        raise ArgumentError(f"the split column has fold numbers {numbers.tolist()}; at least three are needed")
    folds = []
    for i, test in enumerate(numbers):
        validation = numbers[(i + 1) % len(numbers)]
        train = np.flatnonzero((number != test) & (number != validation))
        folds.append(Fold(f"fold {test}", train, np.flatnonzero(number == validation), np.flatnonzero(number == test)))
    return folds


def _dealt(stratum: Ints, k: int, rng: np.random.Generator) -> Ints:
    """Fold of each group, (G,), dealt out by stratum."""
    fold_of_group = np.empty(len(stratum), dtype=np.int64)
    fold_of_group[np.lexsort([rng.random(len(stratum)), stratum])] = np.arange(len(stratum)) % k
    return fold_of_group


def _rarest_class(codes: Ints, y: npt.ArrayLike, n_groups: int) -> Ints:
    classes, counts = np.unique(np.asarray(y), return_counts=True)
    rank = np.empty(len(classes), dtype=np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(classes))
    rarest = np.full(n_groups, len(classes), dtype=np.int64)
    np.minimum.at(rarest, codes, rank[np.searchsorted(classes, np.asarray(y))])
    return rarest


def _fifth(codes: Ints, y: Floats, n_groups: int) -> Ints:
    mean = np.bincount(codes, weights=y, minlength=n_groups) / np.bincount(codes, minlength=n_groups)
    return np.searchsorted(np.quantile(mean, [0.2, 0.4, 0.6, 0.8]), mean).astype(np.int64)
