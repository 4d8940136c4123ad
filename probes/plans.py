"""The trainings of a run: how its training sets are drawn, how a fold is fitted, and what each training predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from panecho_embed.core.arraytypes import Floats, Ints, Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.candidates import Chance
from panecho_embed.evaluation.inference import DEFAULT_DRAWS
from panecho_embed.evaluation.metrics import PRIMARY, point_values
from panecho_embed.evaluation.predictions import Predictions, trivial_prediction
from panecho_embed.evaluation.splits import (
    Draw,
    Fold,
    Size,
    check_no_leakage,
    check_shots,
    draw_patients,
    given_folds,
    kfold,
    patients_of_classes,
)
from panecho_embed.evaluation.targets import Target
from panecho_embed.evaluation.thresholds import ThresholdRule
from probes.base import BaseProbe, ClassHeldOutError, accepts, is_classifier
from probes.problem import Problem

_DEFAULT_FOLDS = 5
_DRAWS_OF_SHOTS = 20
_PARTITIONS = 5
_REFIT_SHARE = 0.8  # of the training patients, in each of `RunSettings.refits`


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What to compute.

    Parameters
    ----------
    folds : int, optional
        Grouped folds over patients; None for the split column, or 5 without one.
    k_shot : int, optional
        Patients of each class to train on (in a regression: patients); None for all.
    trainings : int, optional
        How often to train: with `k_shot` on other draws of patients (20 by default), with folds on other partitions (5
        by default). A given split has one training.
    threshold : ThresholdRule
        Of a yes-or-no decision.
    cutoffs : tuple of float
        For AUROC of a regression below these values.
    subgroups : tuple of str
        Columns to score by.
    control : bool
        Also train on shuffled labels.
    fractions, shots : tuple
        Sizes of the training set for a curve of label efficiency; one of the two.
    repeats : int, default 10
        Draws of each size of that curve.
    refits : int, default 0
        Trainings on random subsets of the training patients, where there is one training: for the chance of a
        comparison.
    draws : int, default 10,000
        Bootstraps over patients.
    seed : int, default 0
        Of folds, draws and bootstraps.
    allow_leakage : bool
        Go on with patients on both sides of a fold.
    """

    folds: int | None = None
    k_shot: int | None = None
    trainings: int | None = None
    threshold: ThresholdRule = field(default_factory=ThresholdRule)
    cutoffs: tuple[float, ...] = ()
    subgroups: tuple[str, ...] = ()
    control: bool = False
    fractions: tuple[float, ...] = ()
    shots: tuple[int, ...] = ()
    repeats: int = 10
    refits: int = 0
    draws: int = DEFAULT_DRAWS
    seed: int = 0
    allow_leakage: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One training: its name ("" of a given split), the folds, and who was drawn where it was not everybody."""

    name: str
    folds: tuple[Fold, ...]
    drawn: tuple[Draw, ...] = ()


def make_folds(problem: Problem, *, folds: int | None = None, seed: int = 0, partition: int = 0) -> list[Fold]:
    """The split column if it is filled in and no number is given, else grouped folds over patients.

    partition: number of the division into folds; each is another one.
    """
    if folds is None and (problem.split != "").any():
        if (problem.split == "").any():
            count = int((problem.split == "").sum())
            raise ArgumentError(
                f"{count} of {len(problem)} {problem.level} rows have no split; fill the split column in, or use "
                "--folds K to make grouped folds instead"
            )
        return given_folds(problem.split)
    discrete = problem.target.kind != "regression"
    drawn = seed if not partition else int(np.random.SeedSequence([seed, partition]).generate_state(1)[0])
    return kfold(problem.patient, problem.truth, folds or _DEFAULT_FOLDS, discrete=discrete, seed=drawn)


def make_plans(problem: Problem, settings: RunSettings, *, chooses: bool) -> tuple[Plan, ...]:
    """The trainings that the settings ask for. chooses: whether the probe needs held-out units for its settings."""
    first = make_folds(problem, folds=settings.folds, seed=settings.seed)
    if not settings.allow_leakage:
        check_no_leakage(first, problem.patient)
    if settings.trainings is not None and settings.trainings < 1:
        raise ArgumentError(f"trainings is {settings.trainings}; it must be 1 or more (--trainings)")
    if settings.k_shot is not None:
        check_shots([settings.k_shot], chooses=chooses)
        count = settings.trainings or _DRAWS_OF_SHOTS
        return tuple(drawn_plan(problem, first, settings.k_shot, settings.seed, i) for i in range(count))
    made_here = settings.folds is not None or (problem.split == "").all()
    if not made_here:
        if (settings.trainings or 1) > 1:
            raise ArgumentError(
                "the split column gives one training; --trainings is for --folds (other partitions) and --k-shot "
                "(other draws)"
            )
        return (Plan("", tuple(first)),)
    count = settings.trainings or _PARTITIONS
    others = [
        make_folds(problem, folds=settings.folds, seed=settings.seed, partition=partition)
        for partition in range(1, count)
    ]
    return tuple(Plan(str(i), tuple(folds)) for i, folds in enumerate([first, *others]))


def drawn_plan(
    problem: Problem, folds: Sequence[Fold], size: float, seed: int, repeat: int, unit: Size = "shots"
) -> Plan:
    """A training on patients that are drawn from the training patients of every fold."""
    small, draws = [], []
    classes = len(problem.target.classes)
    for fold in folds:
        truth = problem.truth[fold.train] if classes else None
        who = draw_patients(problem.patient[fold.train], truth, classes, size, unit, seed=seed, repeat=repeat)
        small.append(fold.with_patients(problem.patient, who))
        draws.append(Draw(fold.name, size, repeat, tuple(who)))
    return Plan(str(repeat), tuple(small), tuple(draws))


def run_plan(
    problem: Problem, probe: BaseProbe, plan: Plan, rule: ThresholdRule, truths: Sequence[Floats] | None = None
) -> tuple[Predictions, Ints, tuple[BaseProbe, ...], tuple[float, ...]]:
    """Train on every fold of one training, and predict its test units once.

    truths: other labels (U,) to learn from, one array a fold.

    Returns
    -------
    predictions : Predictions
        Of the units that chose settings (split "val", where the fold has validation units), then of the tested ones.
    unit : (N,) int64
        Unit of each of these rows.
    probes, thresholds
        One for each fold.
    """
    parts: list[tuple[str, str, Ints, Floats, float, Floats]] = []
    probes, thresholds = [], []
    for number, fold in enumerate(plan.folds):
        learned = problem if truths is None else replace(problem, truth=truths[number])
        fitted, held_out = fit_fold(learned, probe, fold)
        is_binary = problem.target.kind == "binary"
        threshold = rule.choose(learned.truth, held_out) if is_binary else float("nan")
        trained = learned.truth[np.concatenate([fold.train, fold.validation])]
        chose = held_out[fold.validation]
        known = fold.validation[np.isfinite(chose if chose.ndim == 1 else chose.sum(axis=1))]
        parts.append(("val", fold.name, known, held_out[known], threshold, trained))
        predicted = predict_units(problem, fitted, fold.test)
        parts.append(("test", fold.name, fold.test, predicted, threshold, trained))
        probes.append(fitted)
        thresholds.append(threshold)
    parts.sort(key=lambda part: part[0] == "test")
    unit = np.concatenate([units for _, _, units, *_ in parts])
    predictions = Predictions(
        target=problem.target,
        level=problem.level,
        ids={name: column[unit].astype(object) for name, column in problem.ids.items() if name != "patient_id"},
        patient=problem.patient[unit],
        split=_repeated([(split, len(units)) for split, _, units, *_ in parts]),
        truth=problem.truth[unit],
        prediction=np.concatenate([values for *_, values, _, _ in parts]),
        fold=_repeated([(name, len(units)) for _, name, units, *_ in parts]),
        draw=np.full(len(unit), plan.name, dtype=object),
        threshold=np.concatenate([np.full(len(units), cut) for _, _, units, _, cut, _ in parts]),
        baseline=np.concatenate(
            [trivial_prediction(problem.target, trained, len(units)) for _, _, units, _, _, trained in parts]
        ),
    )
    return predictions, unit, tuple(probes), tuple(thresholds)


def primary_value(problem: Problem, probe: BaseProbe, plan: Plan, rule: ThresholdRule) -> float:
    """The primary metric of one training on its test units."""
    predictions, *_ = run_plan(problem, probe, plan, rule)
    return point_values(predictions.of_split("test").metrics())[PRIMARY[problem.target.kind]]


def chance_of(problem: Problem, probe: BaseProbe, plans: Sequence[Plan], settings: RunSettings) -> Chance:
    """How the training sets of the plans were drawn."""
    folds = plans[0].folds
    if plans[0].drawn:
        shares = [
            _share(problem, whole, small)
            for whole, small in zip(
                make_folds(problem, folds=settings.folds, seed=settings.seed), plans[0].folds, strict=True
            )
        ]
        return Chance(max(shares), len(folds))
    if plans[0].name:
        return Chance(1 - 1 / len(folds))
    if not settings.refits:
        return Chance()
    refits = [
        drawn_plan(problem, folds, _REFIT_SHARE, settings.seed, repeat, "fraction") for repeat in range(settings.refits)
    ]
    return Chance(_REFIT_SHARE, 1, tuple(primary_value(problem, probe, plan, settings.threshold) for plan in refits))


def _share(problem: Problem, whole: Fold, small: Fold) -> float:
    """Share of the training patients that were drawn, in the class in which it is largest."""
    classes = len(problem.target.classes)
    pool = patients_of_classes(problem.patient[whole.train], problem.truth[whole.train], classes)
    drawn = patients_of_classes(problem.patient[small.train], problem.truth[small.train], classes)
    # A draw of everybody repeats itself: then there is no chance in it, and no factor for it.
    return min(max(drawn.get(index, 0) / count for index, count in pool.items()), 0.99)


def _repeated(parts: Sequence[tuple[str, int]]) -> Texts:
    return np.array([text for text, count in parts for _ in range(count)], dtype=object)


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
    spread = _all_classes(problem.target, fitted, held_out)
    return fitted, average_rows(spread, unit, problem.share[rows], len(problem))


def predict_units(problem: Problem, fitted: BaseProbe, units: Ints) -> Floats:
    """Predictions of units, the mean over their rows: (len(units),) or (len(units), K)."""
    rows = problem.rows_of(units)
    unit, share = problem.unit[rows], problem.share[rows]
    return unit_predictions(problem.target, fitted, problem.values_of(rows), unit, share, len(problem))[units]


def unit_predictions(
    target: Target, fitted: BaseProbe, values: npt.NDArray[Any], unit: Ints, share: Floats, n_units: int
) -> Floats:
    """Predictions of all units, (U,) or (U, K), from rows (N, D); unit, share: (N,) as in `Problem`."""
    predict: Callable[..., npt.NDArray[Any]] = fitted.predict_proba if is_classifier(fitted) else fitted.predict
    raw = np.asarray(predict(values, bags=unit) if fitted.pools else predict(values))
    return average_rows(_all_classes(target, fitted, raw), unit, share, n_units)


def _all_classes(target: Target, fitted: BaseProbe, predicted: npt.NDArray[Any]) -> Floats:
    """Probabilities of the classes that were trained on as those of all of the target's, or of the positive one."""
    if target.kind == "regression":
        return np.asarray(predicted, dtype=np.float64)
    every = np.zeros((len(predicted), len(target.classes)))
    every[:, fitted.classes_.astype(np.int64)] = predicted
    every[np.isnan(predicted).any(axis=1)] = np.nan
    return every[:, 1] if target.kind == "binary" else every


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
