"""The linear probe against scikit-learn, by value and by contract."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from panecho_embed.core.errors import ArgumentError
from probes.linear import LinearProbe


def features(n: int, d: int = 20, seed: int = 0) -> np.ndarray:
    """Correlated features of different scales and means."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * np.logspace(-0.4, 0.4, d) + rng.normal(size=d) * 10


def target(x: np.ndarray, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return 50 + z[:, :3] @ [4.0, -3.0, 2.0] + rng.normal(size=len(x)) * 3


def sklearn_pipeline(model: Any, x: np.ndarray, y: np.ndarray) -> Pipeline:
    return make_pipeline(StandardScaler(), model).fit(x, y)


@parametrize_with_checks([LinearProbe("regression"), LinearProbe("binary"), LinearProbe("multiclass")])
def test_keeps_the_scikit_learn_contract(estimator: LinearProbe, check: Callable[[LinearProbe], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("n", [15, 200], ids=["fewer rows than features", "more rows than features"])
@pytest.mark.parametrize("alpha", [0.1, 30.0, 1e4])
def test_ridge_equals_sklearn(n: int, alpha: float) -> None:
    x = features(n)
    y = target(x)
    ours = LinearProbe(strengths=[alpha]).fit(x, y)
    theirs = sklearn_pipeline(Ridge(alpha=alpha), x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-8)
    np.testing.assert_allclose(ours.coef_, theirs[-1].coef_, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("c", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weight", [None, "balanced"])
def test_logistic_equals_sklearn(c: float, classes: int, weight: str | None) -> None:
    x = features(150)
    y = np.digitize(target(x), [47.0, 56.0][: classes - 1])
    ours = LinearProbe("multiclass", strengths=[c], class_weight=weight).fit(x, y)
    model = LogisticRegression(C=c, class_weight=weight, tol=1e-10, max_iter=10_000, solver="newton-cg")
    theirs = sklearn_pipeline(model, x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5)
    np.testing.assert_allclose(ours.coef_, theirs[-1].coef_, atol=1e-4)


def test_logistic_with_fewer_rows_than_features_equals_sklearn() -> None:
    x = features(14)
    y = (target(x) > 50).astype(int)
    ours = LinearProbe("binary", strengths=[1.0]).fit(x, y)
    theirs = sklearn_pipeline(LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000), x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("n", [18, 160])
def test_ridge_grid_equals_a_cross_validated_grid_search(n: int) -> None:
    x = features(n)
    y, part = target(x), np.arange(n) % 4
    ours = LinearProbe().fit(x, y, holdout=part)
    pipeline = make_pipeline(StandardScaler(), Ridge())
    theirs = GridSearchCV(
        pipeline, {"ridge__alpha": ours.strengths_}, cv=PredefinedSplit(part), scoring="neg_mean_squared_error"
    ).fit(x, y)
    sizes = np.bincount(part)
    splits = [theirs.cv_results_[f"split{k}_test_score"] * sizes[k] for k in range(4)]
    np.testing.assert_allclose(ours.grid_, -np.sum(splits, axis=0) / n, rtol=1e-8)


def test_held_out_predictions_are_those_of_a_probe_that_never_saw_the_rows() -> None:
    x = features(80)
    y, part = target(x), np.r_[np.full(60, -1), np.zeros(20, dtype=int)]
    ours = LinearProbe().fit(x, y, holdout=part)
    alone = LinearProbe(strengths=[ours.strength_]).fit(x[:60], y[:60])
    np.testing.assert_allclose(ours.holdout_prediction_[60:], alone.predict(x[60:]))
    assert np.isnan(ours.holdout_prediction_[:60]).all()


def test_chosen_strength_has_the_smallest_held_out_loss() -> None:
    x = features(80)
    for probe, y in ((LinearProbe(), target(x)), (LinearProbe("binary"), target(x) > 50)):
        rows = probe.fit(x, y).grid_rows()
        assert min(rows, key=lambda row: row["loss"])["chosen"]
        assert sum(row["chosen"] for row in rows) == 1


def test_refit_uses_all_rows() -> None:
    x = features(80)
    y, part = target(x), np.r_[np.full(60, -1), np.zeros(20, dtype=int)]
    ours = LinearProbe().fit(x, y, holdout=part)
    np.testing.assert_allclose(ours.coef_, LinearProbe(strengths=[ours.strength_]).fit(x, y).coef_)


def test_several_targets_equal_one_after_the_other_where_labels_are_missing() -> None:
    x = features(90)
    y = np.column_stack([target(x, seed) for seed in range(4)])
    y[:20, 1] = y[:20, 2] = np.nan
    y[50:, 3] = np.nan
    groups = np.arange(90) // 2
    together = LinearProbe().fit(x, y, groups=groups)
    for t in range(4):
        there = np.isfinite(y[:, t])
        part = np.full(90, -1)
        part[there] = np.arange(there.sum()) % 3
        alone = LinearProbe().fit(x[there], y[there, t], holdout=part[there])
        same = LinearProbe(strengths=[alone.strength_]).fit(x, y)
        np.testing.assert_allclose(same.coef_[t], alone.coef_)
        assert together.strength_[t] in together.strengths_


def test_inner_folds_keep_groups_together() -> None:
    """Labels that belong to the group alone: a fold that splits groups would call the weakest strength the best."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    x = rng.normal(size=(40, 60))[groups] + rng.normal(size=(200, 60)) * 0.01
    y = rng.normal(size=40)[groups]
    assert LinearProbe().fit(x, y, groups=groups).strength_ > LinearProbe().fit(x, y).strength_


def test_constant_feature_counts_for_nothing() -> None:
    x = features(60)
    y = target(x)
    with_constant = LinearProbe().fit(np.column_stack([x, np.full(60, 1e6)]), y)
    np.testing.assert_allclose(
        with_constant.predict(np.column_stack([x, np.zeros(60)])), LinearProbe().fit(x, y).predict(x)
    )


def test_survives_pickle_and_clone() -> None:
    x = features(60)
    probe = LinearProbe("binary", strengths=[0.1, 1]).fit(x, target(x) > 50)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(probe)).predict_proba(x), probe.predict_proba(x))
    assert clone(probe).get_params() == probe.get_params()


@pytest.mark.parametrize("task", ["regression", "several", "binary", "multiclass", "ordinal"])
@pytest.mark.parametrize("bound", [None, 2.0])
def test_a_restored_probe_predicts_the_same(task: str, bound: float | None) -> None:
    x = features(60)
    y = target(x)
    labels = {"regression": y, "several": np.column_stack([y, -y]), "binary": y > 50}.get(
        task, np.digitize(y, [48, 52])
    )
    probe = LinearProbe("regression" if task == "several" else task, bound=bound).fit(x, labels)  # type: ignore[arg-type]
    same = LinearProbe(**probe.saved_parameters()).restore(probe.fitted_arrays())
    np.testing.assert_array_equal(same.predict(x * 3), probe.predict(x * 3))
    np.testing.assert_array_equal(same.share_cut(x * 3), probe.share_cut(x * 3))


def test_classes_can_be_text() -> None:
    x = features(60)
    y = np.where(target(x) > 50, "high", "low").astype(object)
    probe = LinearProbe("binary").fit(x, y)
    assert probe.classes_.tolist() == ["high", "low"]
    assert probe.score(x, y) > 0.7


@pytest.mark.parametrize(
    ("probe", "y", "message"),
    [
        (LinearProbe("rank"), np.arange(20.0), r"task is 'rank'; allowed are regression, binary, multiclass, ordinal"),  # type: ignore[arg-type]
        (LinearProbe(bound=0.0), np.arange(20.0), r"bound is 0.0; it must be above 0, or None for no bound"),
        (LinearProbe(strengths=[0.0]), np.arange(20.0), r"strengths is \[0.0\]; one or more numbers above 0"),
        (LinearProbe("binary"), np.arange(20) % 3, r"Only binary classification is supported.*--task multiclass"),
        (LinearProbe("binary"), np.zeros(20, dtype=int), r"only one class, np.int64\(0\)|only one class, 0"),
        (LinearProbe("binary"), np.r_[1, np.zeros(19, dtype=int)], r"class .*1.* is missing .* at least two patients"),
        (LinearProbe("binary", class_weight="sqrt"), np.arange(20) % 2, r"class_weight is 'sqrt'"),
        (LinearProbe(folds=30), np.arange(20.0), r"30 folds need at least 30 patients; there are 20"),
    ],
)
def test_bad_arguments_say_what_is_allowed(probe: LinearProbe, y: np.ndarray, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        probe.fit(features(20), y)


def test_a_target_without_labels_is_named() -> None:
    x = features(20)
    with pytest.raises(ArgumentError, match="target 1 has no labels"):
        LinearProbe().fit(x, np.column_stack([target(x), np.full(20, np.nan)]))
