"""Who trains, validates and tests: never the same patient twice, and labels for every target everywhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError, ManifestError
from panecho_embed.evaluation.splits import SPLITS, draw_patients
from panecho_embed.finetune.data import Dataset
from panecho_embed.finetune.recipe import DataSettings
from panecho_embed.finetune.targets import Targets, with_training_means

Ints = npt.NDArray[np.int64]

_LISTED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Who does what: indices into a data set's videos. targets: with this fold's training means."""

    dataset: Dataset
    targets: Targets
    train: Ints
    val: Ints
    test: Ints
    number: int | None = None

    def part(self, name: str) -> Ints:
        """The videos of "train", "val" or "test"."""
        indices: Ints = getattr(self, name)
        return indices

    def deviations(self) -> list[float]:
        """(T,) standard deviation of each regression's training labels; 1 for classes."""
        columns = zip(self.targets.tasks, self.targets.values[self.train].T, strict=True)
        return [float(np.nanstd(column)) if task.type == "regression" else 1.0 for task, column in columns]

    def patients(self, name: str) -> set[str]:
        """The patients of "train", "val" or "test"."""
        return {self.dataset.videos[i].patient_id for i in self.part(name)}

    def shared_patients(self) -> set[str]:
        """Those who are in more than one of the three."""
        counts = Counter(patient for name in SPLITS for patient in self.patients(name))
        return {patient for patient, count in counts.items() if count > 1}


def make_fold(
    dataset: Dataset, settings: DataSettings, fold: int | None, *, seed: int, allow_leakage: bool = False
) -> Fold:
    """One fold of a data set: the split column's, or the one in which fold number `fold` tests.

    Raises ManifestError for an empty part, a patient in two of them (unless `allow_leakage`), and a target without
    labels in a part or with a single value in training.
    """
    if fold is None:
        parts = {name: np.flatnonzero(dataset.split == name) for name in SPLITS}
    else:
        number = dataset.split.astype(np.int64)
        validates = (fold + 1) % settings.folds
        val, test = number == validates, number == fold
        parts = {"train": np.flatnonzero(~val & ~test), "val": np.flatnonzero(val), "test": np.flatnonzero(test)}
    for name, indices in parts.items():
        if not len(indices):
            sizes = ", ".join(f"{key} {len(rows)}" for key, rows in parts.items())
            raise ManifestError(f"{dataset.path}: no video with a label is in {name} ({sizes}){_of(fold)}")
    if not allow_leakage:
        _check_apart(dataset, parts, "one of training, validation and test")
    parts["train"] = _fraction(dataset, parts["train"], settings.fraction, seed)
    _check_labels(dataset, parts, fold)
    chosen = np.zeros(len(dataset.videos), dtype=np.bool_)
    chosen[parts["train"]] = True
    return Fold(dataset, with_training_means(dataset.targets, chosen), **parts, number=fold)


def check_folds_apart(dataset: Dataset) -> None:
    """Raise ManifestError if a patient stands in two folds: some model would be tested on whom it was trained on."""
    parts = {f"fold {number}": np.flatnonzero(dataset.split == number) for number in sorted(set(dataset.split))}
    _check_apart(dataset, parts, "one fold")


def check_fold(fold: int, folds: int) -> None:
    """Raise ArgumentError unless there is a fold of that number."""
    if not folds:
        raise ArgumentError(f"fold is {fold}; this recipe has no folds (leave out --fold, or --set data.folds=K)")
    if not 0 <= fold < folds:
        raise ArgumentError(f"fold is {fold}; allowed are 0 to {folds - 1} (--fold)")


def _check_apart(dataset: Dataset, parts: dict[str, Ints], one: str) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for name, indices in parts.items():
        for i in indices:
            where[dataset.videos[i].patient_id].add(name)
    twice = [f"{patient} ({', '.join(sorted(names))})" for patient, names in where.items() if len(names) > 1]
    if twice:
        more = f" and {len(twice) - _LISTED} more" if len(twice) > _LISTED else ""
        raise ManifestError(
            f"{dataset.path}: {len(twice)} patients stand in more than {one}: {', '.join(twice[:_LISTED])}{more} "
            "(--allow-leakage to go on)"
        )


def _fraction(dataset: Dataset, train: Ints, fraction: float, seed: int) -> Ints:
    """The videos of a share of the training patients, as every command draws them.

    A smaller share is part of a larger one, and every class of a target keeps two patients.
    """
    if fraction == 1:
        return train
    patients = np.array([dataset.videos[i].patient_id for i in train], dtype=object)
    kept = set(draw_patients(patients, None, 0, fraction, "fraction", seed=seed))
    for target, column in zip(dataset.targets.targets, dataset.targets.truth.T, strict=True):
        there = np.isfinite(column[train])
        if target.classes:
            truth = column[train][there]
            kept |= set(draw_patients(patients[there], truth, len(target.classes), 0.0, "fraction", seed=seed))
    return train[np.isin(patients.astype(str), list(kept))]


def _check_labels(dataset: Dataset, parts: dict[str, Ints], fold: int | None) -> None:
    for task, column in zip(dataset.targets.tasks, dataset.targets.values.T, strict=True):
        for name, indices in parts.items():
            there = column[indices][np.isfinite(column[indices])]
            if not len(there):
                raise ManifestError(
                    f"{task.name} has no label in {name} ({len(indices)} videos){_of(fold)}; "
                    "leave it out by naming the other targets (--set data.targets=...)"
                )
            if name == "train" and (there == there[0]).all():
                value = task.classes[int(there[0])] if task.classes else f"{there[0]:g}"
                raise ManifestError(
                    f"{task.name} is {value} in all {len(there)} training videos{_of(fold)}; there is nothing to learn"
                )


def _of(fold: int | None) -> str:
    return "" if fold is None else f" of fold {fold}"
