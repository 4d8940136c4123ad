"""Few patients to train on: drawn in a random order that the seed repeats, smaller draws inside larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from probes.base import BaseProbe
from probes.folds import Fold
from probes.problem import Problem

Unit = Literal["fraction", "shots"]

PATIENTS_OF_A_CLASS = 2  # the fewest that settings can be chosen on


@dataclass(frozen=True, slots=True)
class Draw:
    """One training set. size: the fraction or shots asked for. patients: whose labels were used, in the order drawn."""

    fold: str
    size: float
    repeat: int
    patients: tuple[str, ...]


def few_shots(
    problem: Problem, probe: BaseProbe, folds: Sequence[Fold], shots: int, *, seed: int = 0
) -> tuple[list[Fold], list[Draw]]:
    """The folds with `shots` patients a class to train on (in a regression: that many patients), and who they are.

    They are drawn from training and validation patients; nobody is left to validate, so that inner folds of the drawn
    choose the settings. The draw is the first of `label_efficiency` with the same seed. Raises ArgumentError for fewer
    patients than shots, and for one shot where settings are to be chosen.
    """
    check_shots([shots], probe)
    chosen = [take(problem, fold, order(problem, fold, seed, 0, i), shots, "shots") for i, fold in enumerate(folds)]
    draws = [Draw(fold.name, shots, 0, tuple(who)) for fold, who in zip(folds, chosen, strict=True)]
    return [with_patients(problem, *pair) for pair in zip(folds, chosen, strict=True)], draws


def check_shots(shots: Sequence[int], probe: BaseProbe) -> None:
    """Raise ArgumentError for less than one shot, and for one where it takes two to choose settings."""
    if min(shots) < 1:
        raise ArgumentError(f"shots are {', '.join(map(str, shots))}; 1 or more are needed")
    if min(shots) < PATIENTS_OF_A_CLASS and probe.chooses():
        raise ArgumentError(
            "of 1 patient a class none can be held out to choose settings on: fix the setting (--strengths 1 for "
            "`probe linear`, --k 1 for `probe knn`), or take 2 shots or more"
        )


def order(problem: Problem, fold: Fold, seed: int, repeat: int, number: int) -> list[str]:
    """The patients that may be trained on in fold `number`, in random order, two of each class first."""
    units = np.concatenate([fold.train, fold.validation])
    patient = problem.patient[units].astype(str)
    shuffled = np.random.default_rng([seed, repeat, number]).permutation(np.unique(patient))
    first: dict[str, None] = {}
    for index in range(len(problem.classes)):
        having = set(patient[problem.truth[units] == index].tolist())
        first |= dict.fromkeys([str(who) for who in shuffled if who in having][:PATIENTS_OF_A_CLASS])
    return list(dict.fromkeys([*first, *map(str, shuffled)]))


def take(problem: Problem, fold: Fold, ordered: list[str], size: float, unit: Unit) -> list[str]:
    """The first patients of an order that make up a fraction of it, or so many shots of each class.

    Only what may be trained on in the fold counts: a patient with other units in the test has not their classes.
    """
    if unit == "fraction":
        return ordered[: max(round(size * len(ordered)), PATIENTS_OF_A_CLASS * max(1, len(problem.classes)))]
    if problem.task == "regression":
        if size > len(ordered):
            raise ArgumentError(
                f"{size:g} patients were asked for; there are {len(ordered)} to train on (--shots, --k-shot)"
            )
        return ordered[: int(size)]
    classes: dict[str, set[int]] = {}
    units = np.concatenate([fold.train, fold.validation])
    for who, index in zip(problem.patient[units].astype(str), problem.truth[units].astype(int), strict=True):
        classes.setdefault(who, set()).add(int(index))
    taken, have = [], np.zeros(len(problem.classes), dtype=np.int64)
    for who in ordered:
        if any(have[index] < size for index in classes[who]):
            taken.append(who)
            have[list(classes[who])] += 1
    if (have < size).any():
        rare = problem.classes[int(have.argmin())]
        raise ArgumentError(
            f"{size:g} patients of class {rare} were asked for; there are {have.min()} (--shots, --k-shot)"
        )
    return taken


def with_patients(problem: Problem, fold: Fold, patients: Sequence[str]) -> Fold:
    """The fold with only these to train on, and none to validate."""
    allowed = np.concatenate([fold.train, fold.validation])
    chosen: npt.NDArray[np.bool_] = np.isin(problem.patient[allowed].astype(str), patients)
    return Fold(fold.name, allowed[chosen], np.empty(0, dtype=np.int64), fold.test)
