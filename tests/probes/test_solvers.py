"""Solvers: features that a new patient can blow up, and ordinal regression against a brute-force fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit
from sklearn.metrics import log_loss, r2_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from panecho_embed.core.errors import ArgumentError, PanEchoEmbedError
from probes import solvers
from probes.attentive import AttentiveProbe
from probes.base import BaseProbe, median_class
from probes.knn import KNNProbe
from probes.linear import LinearProbe
from probes.solvers import (
    BOUND,
    FLOOR,
    OrdinalPath,
    RidgePath,
    Rotated,
    Standardiser,
    minimise,
    ordinal_loss,
    ordinal_probabilities,
    prediction_range,
    ridge_paths,
)

TRAIN, TEST = 240, 120
BOUNDS = (None, 20.0, 10.0, 5.0, 3.0, 2.0)


def sparse(seed: int, d: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Features after a ReLU, 56% zeros; a third of the channels are nearly silent in training, and some jump later."""
    rng = np.random.default_rng(seed)
    n, silent = TRAIN + TEST, d // 3
    latent = rng.normal(size=(n, 10))
    x = np.maximum(latent @ rng.normal(size=(10, d)) / 3 + rng.normal(size=(n, d)) + 0.55, 0)
    loud = np.abs(rng.normal(size=(n, silent))) * 10 ** rng.uniform(-6, -2, silent)
    x[:, :silent] = np.where(rng.random((n, silent)) < 0.1, loud, 0)
    jumps = rng.random((TEST, silent)) < 0.1 * (rng.random(silent) < 0.3)
    x[TRAIN:, :silent] += jumps * rng.uniform(0.1, 2, jumps.shape)
    y = 120 + 40 * latent[:, :4] @ [0.6, 0.5, 0.4, 0.3] + 15 * rng.normal(size=n)
    return x.astype(np.float32), y


def test_the_features_are_as_described() -> None:
    x, _ = sparse(0)
    assert (x == 0).mean() == pytest.approx(0.56, abs=0.05)
    assert (x[:TRAIN].std(axis=0) < 0.01).mean() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_the_default_bound_is_as_good_as_the_best_one(seed: int) -> None:
    x, y = sparse(seed)
    scores = {b: r2_score(y[TRAIN:], LinearProbe(bound=b).fit(x[:TRAIN], y[:TRAIN]).predict(x[TRAIN:])) for b in BOUNDS}
    assert scores[BOUND] > max(scores.values()) - 0.02, scores
    assert scores[BOUND] > 0.5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal"])
def test_log_loss_does_not_explode(seed: int, task: str) -> None:
    x, y = sparse(seed)
    classes = np.digitize(y, [130.0] if task == "binary" else [100.0, 150.0])
    losses = {}
    for bound in (None, BOUND, 3.0):
        probe = LinearProbe(task, bound=bound).fit(x[:TRAIN], classes[:TRAIN])  # type: ignore[arg-type]
        losses[bound] = log_loss(classes[TRAIN:], probe.predict_proba(x[TRAIN:]))
    assert losses[BOUND] < min(losses.values()) + 0.02, losses
    assert losses[BOUND] < log_loss(classes[TRAIN:], np.tile(np.bincount(classes) / len(classes), (TEST, 1)))


@pytest.mark.parametrize("bound", [None, BOUND])
@pytest.mark.parametrize("floor", [0.0, FLOOR])
def test_no_prediction_is_beyond_twice_the_training_range(
    bound: float | None, floor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probes.solvers.FLOOR", max(floor, 1e-9))
    x, y = sparse(1)
    x[-1] = 1e6
    probe = LinearProbe(bound=bound).fit(x[:TRAIN], y[:TRAIN])
    attentive = AttentiveProbe(epochs=3, bound=bound).fit(x[:TRAIN], y[:TRAIN])
    centre, half = (y[:TRAIN].max() + y[:TRAIN].min()) / 2, np.ptp(y[:TRAIN]) / 2
    for predicted in (probe.predict(x), probe.holdout_prediction_, attentive.predict(x)):
        assert (np.abs(predicted - centre) <= 2 * half + 1e-9).all()


def test_prediction_range_is_twice_the_range_of_the_labels() -> None:
    assert prediction_range(np.array([10.0, 30.0, 20.0])).tolist() == [0, 40]
    assert prediction_range(np.array([[1.0, 0.0], [3.0, 0.0]])).tolist() == [[0, 4], [0, 0]]


def test_no_deviation_counts_as_smaller_than_the_floor() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6)) * [1, 1, 1, 1e-6, 0, 0.5]
    made = Standardiser.of_rows(x, BOUND)
    median = np.median(x.std(axis=0)[[0, 1, 2, 3, 5]])
    np.testing.assert_allclose(made.scale[[3, 4]], FLOOR * median)
    np.testing.assert_allclose(made.scale[[0, 1, 2, 5]], x.std(axis=0)[[0, 1, 2, 5]])
    assert np.abs(made(x * 100)).max() == BOUND


def test_constant_features_are_all_there_is() -> None:
    probe = LinearProbe().fit(np.ones((20, 3)), np.arange(20.0))
    np.testing.assert_allclose(probe.predict(np.eye(3)), 9.5)


@pytest.mark.parametrize("bound", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("held_out", [5, 0.7], ids=["five folds", "most rows held out"])
def test_ridge_from_moments_equals_ridge_from_rows_where_values_are_cut(bound: float, held_out: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_t(2.5, size=(300, 20)) + 7
    x[:, 3] = np.where(rng.random(300) < 0.02, 1e-5, 0)
    x[280:, 3] = 4
    y = x[:, :2] @ [[1, 2.0], [3, 4]] + rng.normal(size=(300, 2))
    part = np.arange(300) % 5 if held_out == 5 else np.where(rng.random(300) < held_out, 0, -1)
    _, paths = ridge_paths(x, y, part, bound)
    for k, path in enumerate(paths):
        rows = RidgePath.of_rows(x[part != k], y[part != k], bound)
        for ours, theirs in zip(path.solve([1.0, 20.0]), rows.solve([1.0, 20.0]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(path.predict(x, np.array([1.0, 20])), rows.predict(x, np.array([1.0, 20])))


def test_rotated_rows_are_the_cut_features() -> None:
    x, _ = sparse(0)
    made = Rotated.of_rows(x.astype(np.float64), BOUND)
    np.testing.assert_allclose(made.rows @ made.basis.T + made.centre, made.standardiser(x.astype(float)), atol=1e-8)


def test_held_out_predictions_are_those_of_a_probe_that_never_saw_the_rows() -> None:
    """What is cut, and where, is decided without the held-out rows."""
    x, y = sparse(0)
    part = np.r_[np.full(TRAIN, -1), np.zeros(TEST, dtype=int)]
    for task, target in (("regression", y), ("binary", (y > 130).astype(int)), ("ordinal", np.digitize(y, [100, 150]))):
        ours = LinearProbe(task).fit(x, target, holdout=part)  # type: ignore[arg-type]
        alone = LinearProbe(task, strengths=[ours.strength_]).fit(x[:TRAIN], target[:TRAIN])  # type: ignore[arg-type]
        predicted = alone.predict(x[TRAIN:]) if task == "regression" else alone.predict_proba(x[TRAIN:])
        np.testing.assert_allclose(ours.holdout_prediction_[TRAIN:], predicted, atol=2e-3)


def test_rows_far_outside_training_are_told() -> None:
    x, y = sparse(2)
    strange = np.random.default_rng(0).uniform(10, 20, size=(3, x.shape[1])).astype(np.float32)
    for probe in (LinearProbe(), LinearProbe(bound=None), AttentiveProbe(epochs=1)):
        probe.fit(x[:TRAIN], y[:TRAIN])
        assert probe.far_outside(strange).all()
        assert probe.far_outside(x[:TRAIN]).mean() < 0.02
        assert (probe.share_cut(strange) > 0.9).all()


def test_several_targets_have_their_own_range_and_standardisation() -> None:
    x, y = sparse(3)
    targets = np.column_stack([y, y * 2 + 5, np.where(np.arange(len(y)) < 200, y, np.nan)])
    together = LinearProbe(strengths=[50.0]).fit(x[:TRAIN], targets[:TRAIN])
    for t in range(3):
        there = np.isfinite(targets[:TRAIN, t])
        alone = LinearProbe(strengths=[50.0]).fit(x[:TRAIN][there], targets[:TRAIN][there, t])
        np.testing.assert_allclose(together.predict(x)[:, t], alone.predict(x), rtol=1e-6)
    assert together.far_outside(x).shape == (len(x),)


def sample(n: int = 200, d: int = 6, seed: int = 0, cuts: tuple[float, ...] = (-1.5, 0.0, 1.0)) -> tuple:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    score = (x - x.mean(axis=0)) / x.std(axis=0) @ np.linspace(1, -0.5, d)
    return x, np.digitize(score + rng.logistic(size=n) * 0.5, cuts)


def brute_force(x: np.ndarray, y: np.ndarray, c: float, weight: np.ndarray | None = None) -> np.ndarray:
    """Probabilities of the textbook model, fitted by a general optimiser on differences of logistic functions."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    k = y.max() + 1
    weight = np.ones(len(y)) if weight is None else weight

    def probabilities(flat: np.ndarray) -> np.ndarray:
        cutpoints = np.cumsum(np.r_[flat[0], np.exp(flat[1 : k - 1])])
        below = expit(cutpoints - (z @ flat[k - 1 :])[:, None])
        return np.diff(np.column_stack([np.zeros(len(z)), below, np.ones(len(z))]), axis=1)

    def loss(flat: np.ndarray) -> float:
        own = np.maximum(probabilities(flat)[np.arange(len(y)), y], 1e-300)
        return -c * (weight * np.log(own)).sum() + 0.5 * np.square(flat[k - 1 :]).sum()

    found = minimize(loss, np.r_[-1.0, np.zeros(k - 2 + x.shape[1])], tol=1e-12, options={"gtol": 1e-8})
    return probabilities(found.x)


@parametrize_with_checks(
    [LinearProbe("ordinal")],
    expected_failed_checks=lambda _: {
        "check_classifiers_train": "the prediction is the median class, not the likeliest"
    },
)
def test_keeps_the_scikit_learn_contract(estimator: LinearProbe, check: Callable[[LinearProbe], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("classes", [3, 4])
def test_equals_a_brute_force_fit(c: float, classes: int) -> None:
    x, y = sample(cuts=(-1.5, 0.0, 1.0)[: classes - 1])
    ours = LinearProbe("ordinal", strengths=[c], bound=None).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), brute_force(x, y, c), atol=1e-5)
    assert (np.diff(ours.intercept_) < 0).all()


def test_class_weights_equal_a_brute_force_fit_of_weighted_rows() -> None:
    x, y = sample()
    weight = np.array([1.0, 3.0, 0.5, 2.0])
    ours = LinearProbe("ordinal", strengths=[0.3], bound=None, class_weight=dict(enumerate(weight))).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), brute_force(x, y, 0.3, weight[y]), atol=1e-5)


@pytest.mark.parametrize("n", [15, 200], ids=["fewer rows than features", "more rows than features"])
@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_two_classes_equal_logistic_regression(n: int, c: float) -> None:
    x, y = sample(n, 20, cuts=(0.0,))
    ordinal, binary = (LinearProbe(task, strengths=[c]).fit(x, y) for task in ("ordinal", "binary"))
    np.testing.assert_allclose(ordinal.predict_proba(x), binary.predict_proba(x), atol=1e-6)
    np.testing.assert_allclose(ordinal.coef_, binary.coef_, atol=1e-5)
    np.testing.assert_array_equal(ordinal.predict(x), binary.predict(x))


def test_gradient_equals_finite_differences() -> None:
    rng = np.random.default_rng(0)
    score, labels, weight = rng.normal(size=30) * 3, rng.integers(0, 4, 30), rng.uniform(0.5, 2, 30)
    cutpoints = np.array([-1.0, 0.5, 0.6])
    _, by_score, by_cutpoint = ordinal_loss(score, cutpoints, labels, weight)
    numeric = approx_fprime(score, lambda s: ordinal_loss(s, cutpoints, labels, weight)[0], 1e-7)
    np.testing.assert_allclose(by_score, numeric, atol=1e-5)
    numeric = approx_fprime(cutpoints, lambda c: ordinal_loss(score, c, labels, weight)[0], 1e-7)
    np.testing.assert_allclose(by_cutpoint, numeric, rtol=1e-4)


def test_loss_is_finite_far_from_the_cutpoints_and_infinite_where_they_do_not_ascend() -> None:
    score, labels, weight = np.array([-800.0, 0.0, 800.0]), np.array([2, 1, 0]), np.ones(3)
    loss, by_score, _ = ordinal_loss(score, np.array([-1.0, 1.0]), labels, weight)
    assert np.isfinite(loss)
    np.testing.assert_allclose(by_score, [-1, 0, 1], atol=1e-12)
    assert ordinal_loss(score, np.array([1.0, 1.0]), labels, weight)[0] == np.inf


def test_a_step_over_cutpoints_that_do_not_ascend_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample()
    path = OrdinalPath(Rotated.of_rows(x, np.inf), y, np.ones(len(y)), 4)
    step, start = np.ones(len(path.rotated.spectrum)), np.array([-0.1, 0.0, 0.1])
    infinite = 0

    def counted(*given: np.ndarray) -> tuple:
        nonlocal infinite
        loss, *rest = ordinal_loss(*given)
        infinite += np.isinf(loss)
        return loss, *rest

    monkeypatch.setattr(solvers, "ordinal_loss", counted)
    # Cutpoints close together, and variables so badly scaled that the first steps go too far.
    weights, cutpoints = path._minimise(np.zeros(len(step)), start, step, np.eye(3) * 300, 1.0, 1e-7)
    assert infinite
    (coef, intercept), *_ = path.solve([1.0], tolerance=1e-7)
    np.testing.assert_allclose(path.rotated.basis @ weights, coef[0], atol=1e-6)
    np.testing.assert_allclose(-cutpoints - coef[0] @ path.rotated.centre, intercept, atol=1e-6)


def test_strength_has_the_smallest_held_out_log_loss() -> None:
    x, y = sample()
    part = np.arange(len(x)) % 3
    probe = LinearProbe("ordinal").fit(x, y, holdout=part)
    losses = []
    for strength in probe.strengths_:
        own = np.empty(len(x))
        for k in range(3):
            fitted = LinearProbe("ordinal", strengths=[strength]).fit(x[part != k], y[part != k])
            own[part == k] = fitted.predict_proba(x[part == k])[np.arange((part == k).sum()), y[part == k]]
        losses.append(-np.log(own).mean())
    np.testing.assert_allclose(probe.grid_, losses, rtol=1e-3)
    assert probe.strength_ == probe.strengths_[int(np.argmin(losses))]


def test_prediction_is_the_median_class() -> None:
    probability = np.array([[0.4, 0.0, 0.1, 0.5], [0.5, 0.2, 0.3, 0.0], [0.1, 0.3, 0.2, 0.4]])
    assert median_class(probability).tolist() == [2, 0, 2]
    x, y = sample()
    probe = LinearProbe("ordinal").fit(x, y * 10)
    np.testing.assert_array_equal(probe.predict(x), median_class(probe.predict_proba(x)) * 10)


@pytest.mark.parametrize(
    "probe", [LinearProbe("ordinal"), KNNProbe("ordinal"), AttentiveProbe("ordinal", epochs=5)], ids=lambda p: p.name
)
def test_every_probe_takes_an_ordinal_task(probe: BaseProbe) -> None:
    x, y = sample()
    probe.fit(x, y)  # type: ignore[attr-defined]
    probability = probe.predict_proba(x)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    assert probability.shape == (200, 4)
    assert (probability >= 0).all()
    assert np.abs(probe.predict(x) - y).mean() < 1
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(probe)).predict_proba(x), probability)


def test_probabilities_of_logits_add_up() -> None:
    made = ordinal_probabilities(np.array([[2.0, 1.0, -3.0], [900.0, 0.0, -900.0]]))
    np.testing.assert_allclose(made.sum(axis=1), 1)
    np.testing.assert_allclose(made[1], [0, 0.5, 0.5, 0], atol=1e-12)


def test_a_class_of_one_patient_is_named() -> None:
    x, _ = sample(60)
    y = np.where(np.arange(60) == 0, 9, np.arange(60) % 3)
    with pytest.raises(ArgumentError, match=r"class 9 is missing .* at least two patients"):
        LinearProbe("ordinal").fit(x, y)


def test_a_search_that_finds_no_minimum_is_an_error() -> None:
    with pytest.raises(PanEchoEmbedError, match="no minimum after"):
        minimise(lambda point: (float(-point.sum()), -np.ones_like(point)), np.zeros(3), 1e-7)
