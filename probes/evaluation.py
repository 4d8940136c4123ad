"""Select, refit, test once: a probe on a problem, with intervals, beside the trivial baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.intervals import DEFAULT_DRAWS, Difference, bootstrap, differences_of, scores_of
from panecho_embed.evaluation.metrics import PRIMARY, Metrics
from panecho_embed.records import Score
from probes.base import BaseProbe, ClassHeldOutError, Floats, Ints, is_classifier
from probes.folds import Fold, check_no_leakage, given_folds, kfold
from probes.problem import Problem
from probes.scoring import baseline_metrics, make_metrics, trivial_prediction, youden_threshold

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What came out. Arrays are per unit of `problem`; NaN or -1 where a unit was not in a test (or validation) set.

    probes: fitted, one a fold. prediction, baseline: (U,) value or probability of the positive class, or (U, K)
    probabilities; of the fold that tested the unit. validation: the same for units that selected settings. tested_in:
    (U,) fold number. thresholds: (F,) of a binary decision, chosen on held-out units of each fold; threshold: (U,) that
    of the fold that tested the unit. scores: with 95 % intervals; sampled: (draws,) bootstraps of the primary
    metric. versus_baseline: paired differences, probe minus baseline.
    """

    problem: Problem
    probes: tuple[BaseProbe, ...]
    folds: tuple[Fold, ...]
    prediction: Floats
    baseline: Floats
    validation: Floats
    tested_in: Ints
    thresholds: Floats
    threshold: Floats
    scores: dict[str, Score]
    sampled: Floats
    baseline_scores: dict[str, Score]
    versus_baseline: dict[str, Difference]
    cutoffs: tuple[float, ...]
    draws: int
    seed: int

    @property
    def tested(self) -> Ints:
        """Units that were in a test set, ascending."""
        return np.flatnonzero(self.tested_in >= 0)

    def metrics(self, units: Ints | None = None) -> Metrics:
        """The metrics on some of the tested units (all by default), to be bootstrapped again."""
        units = self.tested if units is None else units
        return make_metrics(self.problem, units, self.prediction, self.threshold, self.cutoffs)

    def table(self) -> pd.DataFrame:
        """Probe and baseline side by side, one row a metric."""
        import pandas as pd

        rows = [
            {
                "metric": name,
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "baseline": self.baseline_scores[name].value,
                "n": score.n,
                "n_patients": score.n_patients,
            }
            for name, score in self.scores.items()
        ]
        return pd.DataFrame(rows).set_index("metric")


def make_folds(problem: Problem, *, folds: int | None = None, seed: int = 0) -> list[Fold]:
    """The split column if it is filled in and no number is given, else grouped folds over patients."""
    if folds is None and (problem.split != "").any():
        if (problem.split == "").any():
            count = int((problem.split == "").sum())
            raise ArgumentError(
                f"{count} of {len(problem)} {problem.level} rows have no split; fill the split column in, or use "
                "--folds K to make grouped folds instead"
            )
        return given_folds(problem.split)
    discrete = problem.task != "regression"
    return kfold(problem.patient, problem.truth, folds or DEFAULT_FOLDS, discrete=discrete, seed=seed)


def evaluate(
    problem: Problem,
    probe: BaseProbe,
    folds: Sequence[Fold] | None = None,
    *,
    cutoffs: Sequence[float] = (),
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
    allow_leakage: bool = False,
) -> Evaluation:
    """Test a probe on every fold and score the union of the test sets.

    folds: of `make_folds` by default. cutoffs: for AUROC of a regression. Raises ArgumentError naming the patients that
    are on both sides of a fold, unless `allow_leakage`.
    """
    folds = list(folds) if folds is not None else make_folds(problem, seed=seed)
    if not allow_leakage:
        check_no_leakage(folds, problem.patient)
    if cutoffs and problem.task != "regression":
        raise ArgumentError(f"cut-offs are for a regression; {problem.target} is {problem.task} (--cutoffs)")
    tested_in = np.full(len(problem), -1, dtype=np.int64)
    baseline = np.full(_shape(problem), np.nan)
    for number, fold in enumerate(folds):
        tested_in[fold.test] = number
        baseline[fold.test] = trivial_prediction(problem, np.concatenate([fold.train, fold.validation]))
    tested = np.flatnonzero(tested_in >= 0)
    _check_test(problem, tested)
    predicted = predict_folds(problem, probe, folds)
    metrics = make_metrics(problem, tested, predicted.prediction, predicted.threshold, cutoffs)
    trivial = baseline_metrics(problem, tested, baseline, cutoffs)
    sampled, sampled_trivial = bootstrap([metrics, trivial], draws=draws, seed=seed)
    return Evaluation(
        problem=problem,
        probes=predicted.probes,
        folds=tuple(folds),
        prediction=predicted.prediction,
        baseline=baseline,
        validation=predicted.validation,
        tested_in=tested_in,
        thresholds=predicted.thresholds,
        threshold=predicted.threshold,
        scores=scores_of(metrics, sampled),
        sampled=sampled[PRIMARY[problem.task]],
        baseline_scores=scores_of(trivial, sampled_trivial),
        versus_baseline=differences_of(metrics, trivial, sampled, sampled_trivial),
        cutoffs=tuple(cutoffs),
        draws=draws,
        seed=seed,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """prediction, validation, thresholds, threshold: as in `Evaluation`."""

    probes: tuple[BaseProbe, ...]
    prediction: Floats
    validation: Floats
    thresholds: Floats
    threshold: Floats


def predict_folds(
    problem: Problem, probe: BaseProbe, folds: Sequence[Fold], truths: Sequence[Floats] | None = None
) -> Predicted:
    """Train on every fold, and predict its test units once.

    In each fold the probe's settings are chosen on the validation units (or, where there are none, on inner grouped
    folds of the training units), it is trained again on all units but the tested, and it predicts these. Predictions of
    several rows of a unit are averaged. truths: other labels (U,) to learn from, one array a fold.
    """
    prediction, validation = np.full(_shape(problem), np.nan), np.full(_shape(problem), np.nan)
    thresholds, threshold = np.full(len(folds), 0.5), np.full(len(problem), 0.5)
    probes = []
    for number, fold in enumerate(folds):
        learned = problem if truths is None else replace(problem, truth=truths[number])
        fitted, held_out = fit_fold(learned, probe, fold)
        probes.append(fitted)
        prediction[fold.test] = predict_units(problem, fitted, fold.test)
        validation[fold.validation] = held_out[fold.validation]
        if problem.task == "binary":
            threshold[fold.test] = thresholds[number] = youden_threshold(learned.truth, held_out)
    return Predicted(tuple(probes), prediction, validation, thresholds, threshold)


def fit_fold(problem: Problem, probe: BaseProbe, fold: Fold) -> tuple[BaseProbe, Floats]:
    """A fresh copy of the probe, fitted on a fold, and its predictions of units (U,) or (U, K) while held out.

    Where inner folds select, there are `probe.folds` of them, or as many as the rarest class has patients if they are
    fewer.
    """
    units = np.concatenate([fold.train, fold.validation])
    fitted: BaseProbe = clone(probe)
    _check_classes(problem, fitted, fold)
    if not len(fold.validation):
        fitted.set_params(folds=max(2, min(probe.folds, *_patients_of_classes(problem, units))))
    rows = problem.rows_of(units)
    unit = problem.unit[rows]
    truth = problem.truth[unit]
    target = truth if problem.task == "regression" else truth.astype(np.int64)
    holdout = np.where(np.isin(unit, fold.validation), 0, -1) if len(fold.validation) else None
    bags = {"bags": unit} if probe.pools else {}
    try:
        fitted.fit(problem.values_of(rows), target, groups=problem.patient[unit], holdout=holdout, **bags)
    except ClassHeldOutError as error:
        raise ClassHeldOutError(error.index, f"{problem.classes[error.index]} of {problem.target}") from error
    held_out = _of_positive(problem, fitted.holdout_prediction_)
    return fitted, average_rows(held_out, unit, problem.share[rows], len(problem))


def predict_units(problem: Problem, fitted: BaseProbe, units: Ints) -> Floats:
    """Predictions of units, the mean over their rows: (len(units),) or (len(units), K)."""
    rows = problem.rows_of(units)
    predicted = _of_positive(problem, predict_rows(fitted, problem.values_of(rows), problem.unit[rows]))
    return average_rows(predicted, problem.unit[rows], problem.share[rows], len(problem))[units]


def predict_rows(fitted: BaseProbe, values: npt.NDArray[Any], unit: Ints) -> Floats:
    """Values (N,), or probabilities (N, K), of rows; unit: (N,) which of them belong together."""
    predict: Callable[..., npt.NDArray[Any]] = fitted.predict_proba if is_classifier(fitted) else fitted.predict
    return np.asarray(predict(values, bags=unit) if fitted.pools else predict(values))


def average_rows(values: Floats, unit: Ints, share: Floats, n_units: int) -> Floats:
    """Mean over the rows of each unit, (U, ...), by the rows' shares, which add up to 1; NaN for units without rows."""
    flat = values.reshape(len(values), -1) * share[:, None]
    averaged: Floats = np.column_stack([np.bincount(unit, weights=column, minlength=n_units) for column in flat.T])
    averaged[np.bincount(unit, minlength=n_units) == 0] = np.nan
    return np.asarray(averaged.reshape(n_units, *values.shape[1:]))


def _shape(problem: Problem) -> tuple[int, ...]:
    return (len(problem), len(problem.classes)) if problem.task == "multiclass" else (len(problem),)


def _of_positive(problem: Problem, predicted: npt.NDArray[Any]) -> Floats:
    return predicted[:, 1] if problem.task == "binary" else predicted


def _patients_of_classes(problem: Problem, units: Ints) -> list[int]:
    """How many patients there are of each class; of all, in a regression."""
    patient = problem.patient[units].astype(str)
    if problem.task == "regression":
        return [len(np.unique(patient))]
    return [len(np.unique(patient[problem.truth[units] == index])) for index in range(len(problem.classes))]


def too_few(problem: Problem, probe: BaseProbe, fold: Fold) -> list[str]:
    """Classes, with their count, of which too few patients are left to learn from while settings are chosen."""
    if problem.task == "regression":
        return []
    needed = _needed(probe, fold)
    counts = zip(problem.classes, _patients_of_classes(problem, fold.train), strict=True)
    return [f"{name} ({count})" for name, count in counts if count < needed]


def _needed(probe: BaseProbe, fold: Fold) -> int:
    return 1 if len(fold.validation) or not probe.chooses() else 2


def _check_classes(problem: Problem, probe: BaseProbe, fold: Fold) -> None:
    if few := too_few(problem, probe, fold):
        raise ArgumentError(
            f"{problem.target}: too few patients of class {', '.join(few)} are left to train on ({fold.name}); it "
            f"takes {_needed(probe, fold)} or more of each class: the class is too rare for this split"
        )


def _check_test(problem: Problem, tested: Ints) -> None:
    if problem.task != "regression" and len(np.unique(problem.truth[tested])) < 2:
        only = problem.classes[int(problem.truth[tested[0]])]
        raise ArgumentError(f"{problem.target}: the test set has only one class, {only!r}; AUROC needs two")
