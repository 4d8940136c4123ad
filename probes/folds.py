"""Which rows are trained on, which select and which test: never the same patient on two sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.wording import plural

Ints = npt.NDArray[np.int64]

REDRAWS = 100

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Fold:
    """One training and its test: row indices. validation is empty when inner grouped folds of `train` select."""

    name: str
    train: Ints
    validation: Ints
    test: Ints


def grouped_folds(groups: npt.ArrayLike, y: npt.ArrayLike, k: int, *, discrete: bool, seed: int = 0) -> Ints:
    """Fold number 0..k-1 of every row, (N,) int64; all rows of a group in one fold, folds alike in size and in `y`.

    Groups are ordered by stratum (their rarest class, or the fifth of the target that their mean lies in) and dealt out
    in turn, in a random order within each stratum. Where a class of two groups or more would lie in one fold, so that
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
    for attempt in range(1, REDRAWS + 1):
        if all(len(np.unique(number[rows])) > 1 for rows in classes):
            return number
        number = _dealt(stratum, k, np.random.default_rng([seed, attempt]))[codes]
    return first


def kfold(groups: npt.ArrayLike, y: npt.ArrayLike, k: int, *, discrete: bool, seed: int = 0) -> list[Fold]:
    """Grouped K-fold: each patient is tested once; inner grouped folds select."""
    number = grouped_folds(groups, y, k, discrete=discrete, seed=seed)
    none = np.empty(0, dtype=np.int64)
    return [Fold(f"fold {i}", np.flatnonzero(number != i), none, np.flatnonzero(number == i)) for i in range(k)]


def given_folds(split: npt.NDArray[Any]) -> list[Fold]:
    """The folds that a split column names: train/val/test, or fold numbers (fold f tests, the next one validates).

    Numbers are how EchoNet-Pediatric gives its ten folds. Raises ArgumentError for other names, an empty split, or no
    test rows.
    """
    names = [str(name).strip().lower() for name in split]
    if all(name.isdigit() for name in names):
        return _numbered_folds(np.array([int(name) for name in names]))
    unknown = sorted({name for name in names if name not in SPLIT_NAMES})
    if unknown:
        raise ArgumentError(
            f"the split column has {', '.join(map(repr, unknown[:5]))}; allowed are train, val and test, or fold "
            "numbers on every row, or --folds K to make grouped folds instead"
        )
    common = np.array([SPLIT_NAMES[name] for name in names])
    parts = {name: np.flatnonzero(common == name) for name in ("train", "val", "test")}
    for name in ("train", "test"):
        if not len(parts[name]):
            sizes = ", ".join(f"{n} {len(rows)}" for n, rows in parts.items())
            raise ArgumentError(f"the {name} split is empty ({sizes} rows with a label); --folds K makes grouped folds")
    return [Fold("split", parts["train"], parts["val"], parts["test"])]


def check_no_leakage(folds: Iterable[Fold], patients: npt.NDArray[Any]) -> None:
    """Raise ArgumentError, naming them, when a patient is on two sides of a fold."""
    for fold in folds:
        for a, b, both in _crossing(fold, patients):
            named = ", ".join(both[:10]) + (f" and {len(both) - 10} more" if len(both) > 10 else "")
            are = "patient is" if len(both) == 1 else "patients are"
            raise ArgumentError(
                f"{len(both)} {are} in both {a} and {b} ({fold.name}): {named}; "
                "mend the split column, or insist with --allow-leakage"
            )


def leaking_patients(folds: Iterable[Fold], patients: npt.NDArray[Any]) -> list[str]:
    """The patients that are on two sides of a fold."""
    return sorted({who for fold in folds for _, _, both in _crossing(fold, patients) for who in both})


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


def _fifth(codes: Ints, y: npt.NDArray[np.float64], n_groups: int) -> Ints:
    mean = np.bincount(codes, weights=y, minlength=n_groups) / np.bincount(codes, minlength=n_groups)
    return np.searchsorted(np.quantile(mean, [0.2, 0.4, 0.6, 0.8]), mean).astype(np.int64)
