"""Features that a new patient can blow up: sparse, nearly silent in training, loud in a test patient."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, r2_score

from probes.attentive import AttentiveProbe
from probes.linear import LinearProbe
from probes.ridge import RidgePath, ridge_paths
from probes.standardise import BOUND, FLOOR, Rotated, Standardiser, prediction_range

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
    monkeypatch.setattr("probes.standardise.FLOOR", max(floor, 1e-9))
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
