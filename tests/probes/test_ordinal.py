"""The ordinal probe against a brute-force fit, logistic regression and finite differences."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit
from sklearn.utils.estimator_checks import parametrize_with_checks

from panecho_embed.core.errors import ArgumentError, PanEchoEmbedError
from probes import ordinal
from probes.attentive import AttentiveProbe
from probes.base import BaseProbe, median_class
from probes.knn import KNNProbe
from probes.linear import LinearProbe
from probes.logistic import minimise
from probes.ordinal import OrdinalPath, ordinal_loss, ordinal_probabilities
from probes.standardise import Rotated


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

    monkeypatch.setattr(ordinal, "ordinal_loss", counted)
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
