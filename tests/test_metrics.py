"""Metrics and their intervals, against scikit-learn and a slow plain bootstrap."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress, pearsonr
from sklearn import metrics as sk

from panecho_embed import metrics
from panecho_embed.errors import ArgumentError


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
    ours = metrics.point_values(metrics.regression_metrics(truth, prediction, patients, cutoffs=(50,)))
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
    ours = metrics.point_values(metrics.binary_metrics(truth, probability, patients, threshold=0.4))
    false_positive, sensitivity, _ = sk.roc_curve(truth, probability, drop_intermediate=False)
    called = probability >= 0.4
    assert ours.pop("ece") >= 0
    assert ours == pytest.approx(
        {
            "auroc": sk.roc_auc_score(truth, probability),
            "average_precision": sk.average_precision_score(truth, probability),
            "sensitivity_at_specificity": sensitivity[1 - false_positive >= 0.9 - 1e-9].max(),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
            "f1": sk.f1_score(truth, called),
            "brier": sk.brier_score_loss(truth, probability),
        }
    )


def test_expected_calibration_error_is_the_weighted_gap_of_ten_bins() -> None:
    truth, probability, patients = binary_sample()
    expected = sum(
        abs((probability[bin_of] - truth[bin_of]).sum()) / len(truth)
        for low in range(10)
        if (bin_of := (probability * 10).astype(int) == low).any()
    )
    ours = metrics.point_values(metrics.binary_metrics(truth, probability, patients))
    assert ours["ece"] == pytest.approx(expected)


def test_multiclass_metrics_equal_sklearn_per_class_and_macro() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 150)
    probability = np.exp(rng.normal(size=(150, 3)) + 1.2 * np.eye(3)[truth])
    probability /= probability.sum(axis=1, keepdims=True)
    ours = metrics.point_values(metrics.multiclass_metrics(truth, probability, rng.integers(0, 50, 150), "abc"))
    decided = probability.argmax(axis=1)
    expected = {
        "auroc": sk.roc_auc_score(truth, probability, multi_class="ovr"),
        "auroc:b": sk.roc_auc_score(truth == 1, probability[:, 1]),
        "average_precision": sk.average_precision_score(np.eye(3)[truth], probability, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, decided),
        "f1": sk.f1_score(truth, decided, average="macro"),
        "f1:c": sk.f1_score(truth, decided, average=None)[2],
        "brier": ((probability - np.eye(3)[truth]) ** 2).sum(axis=1).mean(),
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "sample", "plain"),
    [
        (metrics.regression_metrics, regression_sample(), {"mae": sk.mean_absolute_error, "r2": sk.r2_score}),
        (
            metrics.binary_metrics,
            binary_sample(ties=True),
            {"auroc": sk.roc_auc_score, "average_precision": sk.average_precision_score, "brier": sk.brier_score_loss},
        ),
    ],
)
def test_bootstraps_equal_a_plain_loop_over_drawn_patients(
    make: Callable[..., metrics.Metrics], sample: tuple[np.ndarray, ...], plain: dict[str, Callable[..., float]]
) -> None:
    truth, prediction, patients = sample
    model = make(truth, prediction, patients)
    fast = metrics.bootstrap([model], draws=60, seed=3)[0]
    weights = np.concatenate(list(metrics.patient_weights(len(model.patients), 60, 3)))
    for draw, weight in enumerate(weights):
        rows = np.concatenate(
            [
                np.flatnonzero(patients == who)
                for who, w in zip(model.patients, weight, strict=True)
                for _ in range(int(w))
            ]
        )
        for name, metric in plain.items():
            assert fast[name][draw] == pytest.approx(metric(truth[rows], prediction[rows])), name


def test_interval_is_the_central_95_percent_of_the_bootstraps() -> None:
    model = metrics.regression_metrics(*regression_sample())
    score = metrics.scores(model, draws=500, seed=1)["mae"]
    sampled = metrics.bootstrap([model], draws=500, seed=1)[0]["mae"]
    assert (score.low, score.high) == pytest.approx(np.percentile(sampled, [2.5, 97.5]))


def test_each_draw_has_as_many_patients_as_there_are() -> None:
    weights = np.concatenate(list(metrics.patient_weights(37, 200, seed=0, width=500_000)))
    assert weights.shape == (200, 37)
    assert (weights.sum(axis=1) == 37).all()


def test_same_seed_same_interval() -> None:
    model = metrics.regression_metrics(*regression_sample())
    assert metrics.scores(model, draws=200, seed=5) == metrics.scores(model, draws=200, seed=5)
    assert metrics.scores(model, draws=200, seed=5) != metrics.scores(model, draws=200, seed=6)


def test_ten_videos_of_one_patient_do_not_narrow_the_interval() -> None:
    truth, prediction, _ = regression_sample()
    patients = np.arange(len(truth))
    once = metrics.scores(metrics.regression_metrics(truth, prediction, patients), draws=1000)["mae"]
    copied = metrics.regression_metrics(truth.repeat(10), prediction.repeat(10), patients.repeat(10))
    ten = metrics.scores(copied, draws=1000)["mae"]
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high))
    assert (ten.n, ten.n_patients) == (10 * len(truth), len(truth))


def test_paired_difference_of_a_model_with_itself_is_zero_and_not_significant() -> None:
    model = metrics.regression_metrics(*regression_sample())
    difference = metrics.paired_differences(model, model, draws=200)["mae"]
    assert (difference.value, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)


def test_paired_difference_sees_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    truth, prediction, patients = regression_sample(200)
    slightly_worse = prediction + np.sign(prediction - truth) * rng.uniform(0, 0.5, 200)
    a = metrics.regression_metrics(truth, prediction, patients)
    b = metrics.regression_metrics(truth, slightly_worse, patients)
    assert metrics.scores(a, draws=1000)["mae"].high > metrics.scores(b, draws=1000)["mae"].low
    difference = metrics.paired_differences(a, b, draws=1000)["mae"]
    assert difference.high < 0
    assert difference.p_value < 0.01


def test_paired_differences_refuse_other_patients() -> None:
    truth, prediction, patients = regression_sample()
    a = metrics.regression_metrics(truth, prediction, patients)
    b = metrics.regression_metrics(truth, prediction, patients + 1)
    with pytest.raises(ArgumentError, match="same patients"):
        metrics.paired_differences(a, b)


def test_constant_prediction_has_no_correlation_and_no_warning() -> None:
    truth, _, patients = regression_sample()
    values = metrics.point_values(metrics.regression_metrics(truth, np.full(len(truth), truth.mean()), patients))
    assert np.isnan(values["pearson"])
    assert np.isnan(values["calibration_slope"])
    assert values["r2"] == pytest.approx(0)


def test_draws_without_a_positive_are_left_out_of_the_interval() -> None:
    truth = np.r_[1, 1, np.zeros(30)]
    score = metrics.scores(metrics.binary_metrics(truth, np.linspace(1, 0, 32), np.arange(32)), draws=500)["auroc"]
    assert (score.low, score.high) == (1, 1)


def test_one_patient_gives_no_interval() -> None:
    truth, prediction, _ = regression_sample()
    score = metrics.scores(metrics.regression_metrics(truth, prediction, np.zeros(len(truth))), draws=50)["mae"]
    assert np.isnan(score.low)
    assert score.value == pytest.approx(np.abs(truth - prediction).mean())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: list[float]) -> None:
    adjusted = metrics.holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_holm_on_a_worked_example() -> None:
    assert metrics.holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


@given(st.integers(0, 10_000))
def test_ranking_metrics_equal_sklearn_with_weights_and_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 30))
    truth = np.r_[0, 1, rng.integers(0, 2, n)]
    score = rng.integers(0, 6, n + 2) / 5
    model = metrics.binary_metrics(truth, score, np.arange(n + 2))
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
        metrics.regression_metrics([1.0, 2.0], [1.0, np.nan], ["a", "b"])


def test_one_patient_gives_no_p_value() -> None:
    y = np.arange(5.0)
    one, other = (metrics.regression_metrics(y, y + error, ["p"] * 5) for error in (0.1, 0.2))
    assert np.isnan(metrics.paired_differences(one, other, draws=50)["mae"].p_value)
