"""Intervals, differences and p-values, against a slow plain bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation import intervals, metrics
from panecho_embed.evaluation.inference import Difference, difference, sample
from tests.evaluation.test_metrics import binary_sample, regression_sample


def paired(a: metrics.Metrics, b: metrics.Metrics, draws: int = 100) -> Difference:
    """The difference in MAE of two models, each trained once."""
    one, other = (sample([model], "mae", draws=draws) for model in (a, b))
    return difference(one, other, replicates="none")


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
    fast = intervals.bootstrap([model], draws=60, seed=3)[0]
    weights = np.concatenate(list(intervals.patient_weights(len(model.patients), 60, 3)))
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
    score = intervals.scores(model, draws=500, seed=1)["mae"]
    sampled = intervals.bootstrap([model], draws=500, seed=1)[0]["mae"]
    assert (score.low, score.high) == pytest.approx(np.percentile(sampled, [2.5, 97.5]))


def test_each_draw_has_as_many_patients_as_there_are() -> None:
    weights = np.concatenate(list(intervals.patient_weights(37, 200, seed=0, width=500_000)))
    assert weights.shape == (200, 37)
    assert (weights.sum(axis=1) == 37).all()


def test_same_seed_same_interval() -> None:
    model = metrics.regression_metrics(*regression_sample())
    assert intervals.scores(model, draws=200, seed=5) == intervals.scores(model, draws=200, seed=5)
    assert intervals.scores(model, draws=200, seed=5) != intervals.scores(model, draws=200, seed=6)


def test_ten_videos_of_one_patient_do_not_narrow_the_interval() -> None:
    truth, prediction, _ = regression_sample()
    patients = np.arange(len(truth))
    once = intervals.scores(metrics.regression_metrics(truth, prediction, patients), draws=1000)["mae"]
    copied = metrics.regression_metrics(truth.repeat(10), prediction.repeat(10), patients.repeat(10))
    ten = intervals.scores(copied, draws=1000)["mae"]
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high))
    assert (ten.n, ten.n_patients) == (10 * len(truth), len(truth))


def test_paired_difference_of_a_model_with_itself_is_zero_and_not_significant() -> None:
    model = metrics.regression_metrics(*regression_sample())
    found = paired(model, model, draws=200)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_paired_difference_sees_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    truth, prediction, patients = regression_sample(200)
    slightly_worse = prediction + np.sign(prediction - truth) * rng.uniform(0, 0.5, 200)
    a = metrics.regression_metrics(truth, prediction, patients)
    b = metrics.regression_metrics(truth, slightly_worse, patients)
    assert intervals.scores(a, draws=1000)["mae"].high > intervals.scores(b, draws=1000)["mae"].low
    found = paired(a, b, draws=1000)
    assert found.high < 0
    assert found.p_value < 0.01


def test_paired_differences_refuse_other_patients() -> None:
    truth, prediction, patients = regression_sample()
    a = metrics.regression_metrics(truth, prediction, patients)
    b = metrics.regression_metrics(truth, prediction, patients + 1)
    with pytest.raises(ArgumentError, match="same patients"):
        paired(a, b)


def test_draws_without_a_positive_are_left_out_of_the_interval() -> None:
    sampled = np.r_[np.full(400, np.nan), np.linspace(0, 1, 601)]
    assert intervals.percentile_interval(sampled, 32) == pytest.approx((0.025, 0.975))
    assert np.isnan(intervals.percentile_interval(np.r_[sampled, np.full(400, np.nan)], 32)).all()


def test_intervals_of_an_order_do_not_depend_on_the_seed() -> None:
    model = metrics.binary_metrics(*binary_sample(ties=True))
    one, other = (intervals.scores(model, draws=50, seed=seed) for seed in (1, 2))
    for name in ("auroc", "average_precision", "sensitivity_at_specificity"):
        assert one[name] == other[name]


def test_no_interval_of_an_order_has_no_width() -> None:
    truth = np.r_[1, 1, np.zeros(30)]
    found = intervals.scores(metrics.binary_metrics(truth, np.linspace(1, 0, 32), np.arange(32)), draws=50)
    for name in ("auroc", "average_precision", "sensitivity_at_specificity"):
        assert found[name].value == found[name].high == 1
        assert found[name].low < 0.2


def test_a_class_that_is_not_there_gives_no_interval() -> None:
    found = intervals.scores(metrics.binary_metrics(np.zeros(32), np.linspace(1, 0, 32), np.arange(32)), draws=50)
    assert np.isnan(found["auroc"].value)
    assert np.isnan(found["auroc"].low)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("auroc:mild", "Newcombe"),
        ("auroc_below_40", "Newcombe"),
        ("sensitivity", "Clopper"),
        ("f1:mild", "Clopper"),
        ("mae", "percentile intervals of a bootstrap over patients"),
    ],
)
def test_the_method_of_an_interval_is_named(metric: str, words: str) -> None:
    assert words in intervals.interval_method(metric)


def test_one_patient_gives_no_interval() -> None:
    truth, prediction, _ = regression_sample()
    score = intervals.scores(metrics.regression_metrics(truth, prediction, np.zeros(len(truth))), draws=50)["mae"]
    assert np.isnan(score.low)
    assert score.value == pytest.approx(np.abs(truth - prediction).mean())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: list[float]) -> None:
    adjusted = intervals.holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_holm_on_a_worked_example() -> None:
    assert intervals.holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


def test_one_patient_gives_no_p_value() -> None:
    y = np.arange(5.0)
    one, other = (metrics.regression_metrics(y, y + error, ["p"] * 5) for error in (0.1, 0.2))
    assert np.isnan(paired(one, other, draws=50).p_value)
