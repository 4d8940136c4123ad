"""A probe on one fold of a problem: settings chosen, trained again, the test units predicted once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.splits import Fold, patients_of_classes
from probes.base import BaseProbe, ClassHeldOutError, accepts, is_classifier
from probes.problem import Problem


def fit_fold(problem: Problem, probe: BaseProbe, fold: Fold) -> tuple[BaseProbe, Floats]:
    """A fresh copy of the probe, fitted on a fold, and its predictions of units while held out.

    Settings are chosen on the validation units, or, where there are none, on inner grouped folds of the training units:
    `probe.folds` of them, or as many as the rarest class has patients if they are fewer. Then it is trained again on
    all units but the tested.

    Returns
    -------
    probe : BaseProbe
    held_out : (U,) or (U, K) float64
        NaN for units that were not held out.
    """
    units = np.concatenate([fold.train, fold.validation])
    fitted: BaseProbe = clone(probe)
    _check_classes(problem, fitted, fold)
    patient, truth = problem.patient[units], problem.truth[units]
    if not len(fold.validation) and "folds" in fitted.get_params(deep=False):
        rarest = min(patients_of_classes(patient, truth, len(problem.target.classes)).values())
        fitted.set_params(folds=max(2, min(probe.folds, rarest)))
    rows = problem.rows_of(units)
    unit = problem.unit[rows]
    target = problem.truth[unit] if probe.task == "regression" else problem.truth[unit].astype(np.int64)
    given: dict[str, Any] = {"groups": problem.patient[unit], "bags": unit}
    given["holdout"] = np.where(np.isin(unit, fold.validation), 0, -1) if len(fold.validation) else None
    taken = {name: value for name, value in given.items() if value is not None and accepts(fitted.fit, name)}
    try:
        fitted.fit(problem.values_of(rows), target, **taken)
    except ClassHeldOutError as error:
        index = int(fitted.classes_[error.index]) if hasattr(fitted, "classes_") else error.index
        raise ClassHeldOutError(index, f"{problem.target.classes[index]} of {problem.target.name}") from error
    held_out = getattr(fitted, "holdout_prediction_", None)
    if held_out is None:
        return fitted, np.full(problem.target.shape(len(problem)), np.nan)
    spread = _spread_classes(problem, fitted, held_out)
    return fitted, average_rows(spread, unit, problem.share[rows], len(problem))


def predict_units(problem: Problem, fitted: BaseProbe, units: Ints) -> Floats:
    """Predictions of units, the mean over their rows: (len(units),) or (len(units), K)."""
    rows = problem.rows_of(units)
    raw = predict_rows(fitted, problem.values_of(rows), problem.unit[rows])
    predicted = _spread_classes(problem, fitted, raw)
    return average_rows(predicted, problem.unit[rows], problem.share[rows], len(problem))[units]


def predict_rows(fitted: BaseProbe, values: npt.NDArray[Any], unit: Ints) -> Floats:
    """Values (N,), or probabilities (N, C) of `fitted.classes_`, of rows; unit: (N,) which of them belong together."""
    predict: Callable[..., npt.NDArray[Any]] = fitted.predict_proba if is_classifier(fitted) else fitted.predict
    return np.asarray(predict(values, bags=unit) if fitted.pools else predict(values))


def _spread_classes(problem: Problem, fitted: BaseProbe, predicted: npt.NDArray[Any]) -> Floats:
    """Probabilities of the classes that were trained on as those of all of the target's, or of the positive one."""
    return all_classes(problem.target.kind, len(problem.target.classes), fitted, predicted)


def all_classes(kind: str, count: int, fitted: BaseProbe, predicted: npt.NDArray[Any]) -> Floats:
    """As `_spread_classes`; kind and count: of the target and its classes."""
    if kind == "regression":
        return np.asarray(predicted, dtype=np.float64)
    every = np.zeros((len(predicted), count))
    every[:, fitted.classes_.astype(np.int64)] = predicted
    every[np.isnan(predicted).any(axis=1)] = np.nan
    return every[:, 1] if kind == "binary" else every


def average_rows(values: Floats, unit: Ints, share: Floats, n_units: int) -> Floats:
    """Mean over the rows of each unit, (U, ...), by the rows' shares, which add up to 1; NaN for units without rows."""
    flat = values.reshape(len(values), -1) * share[:, None]
    averaged: Floats = np.column_stack([np.bincount(unit, weights=column, minlength=n_units) for column in flat.T])
    averaged[np.bincount(unit, minlength=n_units) == 0] = np.nan
    return np.asarray(averaged.reshape(n_units, *values.shape[1:]))


def too_few(problem: Problem, probe: BaseProbe, fold: Fold) -> list[str]:
    """Classes, with their count, of which too few patients are left to learn from while settings are chosen."""
    if problem.target.kind == "regression":
        return []
    needed = _needed(probe, fold)
    there = patients_of_classes(problem.patient, problem.truth, len(problem.target.classes))
    counts = patients_of_classes(problem.patient[fold.train], problem.truth[fold.train], len(problem.target.classes))
    few = {index: counts.get(index, 0) for index in there if counts.get(index, 0) < needed}
    return [f"{problem.target.classes[index]} ({count})" for index, count in few.items()]


def _needed(probe: BaseProbe, fold: Fold) -> int:
    return 1 if len(fold.validation) or not probe.chooses() else 2


def _check_classes(problem: Problem, probe: BaseProbe, fold: Fold) -> None:
    if few := too_few(problem, probe, fold):
        raise ArgumentError(
            f"{problem.target.name}: too few patients of class {', '.join(few)} are left to train on ({fold.name}); it "
            f"takes {_needed(probe, fold)} or more of each class: the class is too rare for this split"
        )
