"""The attentive probe: by contract, and where looking at the right row is what counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from panecho_embed.core.errors import ArgumentError
from probes.attentive import AttentiveProbe
from probes.linear import LinearProbe


def needle(bags: int = 200, rows: int = 12, d: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row of each bag is marked, and it alone tells the label."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(bags, rows, d))
    y = rng.normal(size=bags)
    marked = rng.integers(0, rows, bags)
    x[np.arange(bags), marked, 0] = 6
    x[np.arange(bags), marked, 1] = y * 2
    return x.reshape(-1, d), y.repeat(rows), np.arange(bags).repeat(rows)


def quick(task: str) -> AttentiveProbe:
    return AttentiveProbe(task, epochs=12, folds=2, learning_rate=0.02)  # type: ignore[arg-type]


@parametrize_with_checks([quick(task) for task in ("regression", "binary", "multiclass")])
def test_keeps_the_scikit_learn_contract(estimator: AttentiveProbe, check: Callable[[AttentiveProbe], None]) -> None:
    check(estimator)


def test_finds_the_row_that_tells_the_label() -> None:
    x, y, bags = needle()
    test = bags >= 150
    probe = AttentiveProbe(epochs=60, learning_rate=0.02).fit(x[~test], y[~test], bags=bags[~test])
    mean = np.array([x[bags == b].mean(axis=0) for b in range(200)])
    linear = LinearProbe().fit(mean[:150], y[::12][:150])
    ours = np.abs(probe.predict(x[test], bags=bags[test]) - y[test]).mean()
    assert ours < 0.6 * np.abs(linear.predict(mean[150:]) - y[::12][150:]).mean()


def test_prediction_is_equal_within_a_bag_and_indifferent_to_the_order_of_rows() -> None:
    x, y, bags = needle(60)
    probe = quick("regression").fit(x, y, bags=bags)
    predicted = probe.predict(x, bags=bags)
    assert all(np.ptp(predicted[bags == b]) == 0 for b in range(60))
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_allclose(probe.predict(x[order], bags=bags[order]), predicted[order])


def test_prediction_equals_attention_written_in_torch() -> None:
    x, y, bags = needle(50)
    probe = quick("multiclass").fit(x, np.digitize(y, [-0.5, 0.5]), bags=bags)
    z = torch.from_numpy(((x - probe.mean_) / probe.scale_).clip(-probe.bound_, probe.bound_)).reshape(50, 12, -1)
    share = (z @ torch.from_numpy(probe.attention_).T).softmax(dim=1)
    pooled = (share.transpose(1, 2) @ z).flatten(1).numpy()
    logits = torch.from_numpy(pooled @ probe.coef_.T + probe.intercept_)
    np.testing.assert_allclose(probe.predict_proba(x, bags=bags)[::12], logits.softmax(dim=1).numpy(), atol=1e-6)


def test_a_restored_probe_predicts_the_same() -> None:
    x, y, bags = needle(40)
    probe = quick("regression").fit(x, y, bags=bags)
    same = AttentiveProbe(**probe.saved_parameters()).restore(probe.fitted_arrays())
    np.testing.assert_array_equal(same.predict(x, bags=bags), probe.predict(x, bags=bags))
    assert same.far_outside(x * 100).all()


def test_same_seed_same_probe() -> None:
    x, y, bags = needle(40)
    first, second = (quick("regression").fit(x, y, bags=bags).predict(x, bags=bags) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_bags_of_different_sizes_are_padded_without_effect() -> None:
    x, y, bags = needle(40)
    keep = np.random.default_rng(0).random(len(x)) < 0.7
    probe = quick("regression").fit(x[keep], y[keep], bags=bags[keep])
    alone = [probe.predict(x[keep & (bags == b)], bags=bags[keep & (bags == b)])[0] for b in range(40)]
    np.testing.assert_allclose(alone, [probe.predict(x[keep], bags=bags[keep])[bags[keep] == b][0] for b in range(40)])


def test_number_of_epochs_has_the_smallest_held_out_loss() -> None:
    x, y, bags = needle(60)
    probe = quick("regression").fit(x, y, bags=bags, holdout=np.where(bags < 20, 0, -1))
    assert probe.epochs_ == int(np.argmin(probe.grid_)) + 1
    assert np.isnan(probe.holdout_prediction_[bags >= 20]).all()


def test_different_labels_in_one_bag_are_refused() -> None:
    x, y, bags = needle(40)
    y = y.copy()
    y[0] += 1
    with pytest.raises(ArgumentError, match="rows of a bag have different labels"):
        quick("regression").fit(x, y, bags=bags)


def test_sizes_below_one_are_refused() -> None:
    x, y, bags = needle(40)
    with pytest.raises(ArgumentError, match="heads, epochs and batch_size must be 1 or more"):
        AttentiveProbe(heads=0).fit(x, y, bags=bags)
