"""Metrics, against scikit-learn and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress, pearsonr
from sklearn import metrics as sk

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation import metrics
from panecho_embed.evaluation.targets import Kind, Target
from tests.evaluation.made import binary_metrics, class_metrics, regression_metrics


def regression_sample(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(55, 12, n)
    return truth, truth * 0.7 + 15 + rng.normal(0, 6, n), rng.integers(0, n // 3, n)


def binary_sample(n: int = 120, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(int)
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * truth - 1)))
    return truth, np.round(score, 1) if ties else score, rng.integers(0, n // 3, n)


def test_regression_metrics_equal_sklearn_and_scipy() -> None:
    truth, prediction, patients = regression_sample()
    ours = metrics.point_values(regression_metrics(truth, prediction, patients, cutoffs=(50,)))
    error = prediction - truth
    assert ours == pytest.approx(
        {
            "mae": sk.mean_absolute_error(truth, prediction),
            "rmse": sk.root_mean_squared_error(truth, prediction),
            "r2": sk.r2_score(truth, prediction),
            "pearson": pearsonr(truth, prediction)[0],
            "bias": error.mean(),
            "loa_low": error.mean() - 1.96 * error.std(ddof=1),
            "loa_high": error.mean() + 1.96 * error.std(ddof=1),
            "calibration_slope": linregress(prediction, truth).slope,
            "auroc_below_50": sk.roc_auc_score(truth < 50, -prediction),
        }
    )


@pytest.mark.parametrize("ties", [False, True])
def test_binary_metrics_equal_sklearn(ties: bool) -> None:
    truth, probability, patients = binary_sample(ties=ties)
    ours = metrics.point_values(binary_metrics(truth, probability, patients, threshold=0.4))
    false_positive, sensitivity, _ = sk.roc_curve(truth, probability, drop_intermediate=False)
    called = probability >= 0.4
    assert ours.pop("ece") >= 0
    assert ours == pytest.approx(
        {
            "auroc": sk.roc_auc_score(truth, probability),
            "average_precision": sk.average_precision_score(truth, probability),
            "sensitivity_at_specificity": sensitivity[1 - false_positive >= 0.9 - 1e-9].max(),
            "sensitivity": sk.recall_score(truth, called),
            "specificity": sk.recall_score(truth, called, pos_label=0),
            "ppv": sk.precision_score(truth, called),
            "npv": sk.precision_score(truth, called, pos_label=0),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
            "f1": sk.f1_score(truth, called),
            "brier": sk.brier_score_loss(truth, probability),
        }
    )


def test_without_a_threshold_nothing_is_decided() -> None:
    truth, probability, patients = binary_sample()
    ours = metrics.point_values(binary_metrics(truth, probability, patients, threshold=np.nan))
    decided = ("sensitivity", "specificity", "ppv", "npv", "balanced_accuracy", "f1")
    assert np.isnan([ours[name] for name in decided]).all()
    assert np.isfinite([value for name, value in ours.items() if name not in decided]).all()
    assert ours["brier"] == pytest.approx(sk.brier_score_loss(truth, probability))


def test_every_row_has_its_own_threshold() -> None:
    truth, probability, patients = binary_sample()
    threshold = np.where(np.arange(120) < 60, 0.3, 0.6)
    ours = metrics.point_values(binary_metrics(truth, probability, patients, threshold=threshold))
    assert ours["f1"] == pytest.approx(sk.f1_score(truth, probability >= threshold))


def grades(seed: int = 0, n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    logits = -np.abs(truth[:, None] + rng.normal(0, 1, (n, 1)) - np.arange(4)) + rng.normal(0, 0.3, (n, 4))
    probability = np.exp(logits)
    return truth, probability / probability.sum(axis=1, keepdims=True), rng.integers(0, 50, n)


def test_ordinal_metrics_equal_sklearn() -> None:
    truth, probability, patients = grades()
    ours = metrics.point_values(class_metrics("ordinal", truth, probability, patients, "abcd"))
    called = (np.cumsum(probability, axis=1) >= 0.5).argmax(axis=1)
    cuts = [sk.roc_auc_score(truth >= i, probability[:, i:].sum(axis=1)) for i in (1, 2, 3)]
    assert ours == pytest.approx(
        {
            "weighted_kappa": sk.cohen_kappa_score(truth, called, weights="quadratic"),
            "grade_error": sk.mean_absolute_error(truth, called),
            "auroc": np.mean(cuts),
            **{f"auroc:{grade} or above": value for grade, value in zip("bcd", cuts, strict=True)},
            "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
            "brier": ((probability - np.eye(4)[truth]) ** 2).sum(axis=1).mean(),
        }
    )


def test_weighted_kappa_by_hand() -> None:
    called = np.eye(3)[[0, 2, 2, 1]]
    ours = metrics.point_values(class_metrics("ordinal", [0, 1, 2, 2], called, list("abcd"), "xyz"))
    # Observed squared errors 0, 1, 0, 1; of every truth with every call 0+4+4+1, 1+1+1+0, 2 x (4+0+0+1), over 4.
    assert ours["weighted_kappa"] == pytest.approx(1 - 2 / (22 / 4))
    assert ours["grade_error"] == 0.5


def test_the_same_grade_for_all_has_no_kappa_and_no_warning() -> None:
    constant = np.tile([0.2, 0.5, 0.3], (4, 1))
    ours = metrics.point_values(class_metrics("ordinal", [0, 1, 2, 2], constant, list("abcd"), "xyz"))
    assert ours["weighted_kappa"] == 0
    assert ours["auroc"] == 0.5


def test_grades_that_nobody_has_make_no_cut() -> None:
    truth, probability, patients = grades()
    some = truth < 2
    ours = metrics.point_values(class_metrics("ordinal", truth[some], probability[some], patients[some], "abcd"))
    assert [name for name in ours if name.startswith("auroc:")] == ["auroc:b or above"]
    assert ours["balanced_accuracy"] == pytest.approx(
        np.mean([(probability[truth == i].cumsum(axis=1) >= 0.5).argmax(axis=1).__eq__(i).mean() for i in (0, 1)])
    )


@pytest.mark.parametrize("kind", ["regression", "binary", "multiclass", "ordinal"])
def test_every_metric_of_every_kind_is_described(kind: Kind) -> None:
    classes = {"regression": (), "binary": ("no", "yes")}.get(kind, ("a", "b", "c", "d"))
    truth, probability, patients = grades()
    if kind == "binary":
        truth, probability = np.minimum(truth, 1), probability[:, 1]
    elif kind == "regression":
        probability = probability[:, 0]
    made = metrics.target_metrics(Target("X", kind, classes), truth, probability, patients, threshold=0.3)
    names = metrics.point_values(made)
    assert {metrics.base_name(name) for name in names} <= set(metrics.METRICS)
    assert {metrics.PRIMARY[kind], *metrics.SHORT[kind], metrics.OVER_TARGETS[kind]} <= set(names)


def test_expected_calibration_error_is_the_weighted_gap_of_ten_bins() -> None:
    truth, probability, patients = binary_sample()
    expected = sum(
        abs((probability[bin_of] - truth[bin_of]).sum()) / len(truth)
        for low in range(10)
        if (bin_of := (probability * 10).astype(int) == low).any()
    )
    ours = metrics.point_values(binary_metrics(truth, probability, patients))
    assert ours["ece"] == pytest.approx(expected)


def test_multiclass_metrics_equal_sklearn_per_class_and_macro() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 150)
    probability = np.exp(rng.normal(size=(150, 3)) + 1.2 * np.eye(3)[truth])
    probability /= probability.sum(axis=1, keepdims=True)
    ours = metrics.point_values(class_metrics("multiclass", truth, probability, rng.integers(0, 50, 150), "abc"))
    decided = probability.argmax(axis=1)
    expected = {
        "auroc": sk.roc_auc_score(truth, probability, multi_class="ovr"),
        "auroc:b": sk.roc_auc_score(truth == 1, probability[:, 1]),
        "average_precision": sk.average_precision_score(np.eye(3)[truth], probability, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, decided),
        "f1": sk.f1_score(truth, decided, average="macro"),
        "f1:c": sk.f1_score(truth, decided, average=None)[2],
        "brier": ((probability - np.eye(3)[truth]) ** 2).sum(axis=1).mean(),
        "brier:b": sk.brier_score_loss(truth == 1, probability[:, 1]),
        "ece:b": metrics.point_values(binary_metrics(truth == 1, probability[:, 1], np.arange(150)))["ece"],
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected)


def test_constant_prediction_has_no_correlation_and_no_warning() -> None:
    truth, _, patients = regression_sample()
    values = metrics.point_values(regression_metrics(truth, np.full(len(truth), truth.mean()), patients))
    assert np.isnan(values["pearson"])
    assert np.isnan(values["calibration_slope"])
    assert values["r2"] == pytest.approx(0)


@given(st.integers(0, 10_000))
def test_ranking_metrics_equal_sklearn_with_weights_and_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 30))
    truth = np.r_[0, 1, rng.integers(0, 2, n)]
    score = rng.integers(0, 6, n + 2) / 5
    model = binary_metrics(truth, score, np.arange(n + 2))
    weight = rng.integers(0, 3, (1, n + 2)).astype(float)
    if not (weight[0, truth == 1].any() and weight[0, truth == 0].any()):
        return
    values = {name: float(value[0]) for name, value in model(weight).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert values["auroc"] == pytest.approx(sk.roc_auc_score(truth, score, sample_weight=weight[0]))
        expected = sk.average_precision_score(truth, score, sample_weight=weight[0])
        assert values["average_precision"] == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "better"), [("mae", False), ("auroc:mild", True), ("auroc_below_40", True)])
def test_direction_of_a_metric_does_not_depend_on_class_or_cutoff(metric: str, better: bool) -> None:
    assert metrics.higher_is_better(metric) is better


def test_non_finite_predictions_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"prediction has 1 values that are NaN"):
        regression_metrics([1.0, 2.0], [1.0, np.nan], ["a", "b"])
