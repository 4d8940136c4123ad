"""Anybody's probe: a minimal subclass, a scikit-learn estimator, one that a package registers."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from typing import Any, Self

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeClassifier, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import parametrize_with_checks

from panecho_embed.core.errors import ArgumentError, StoreError
from probes.attentive import AttentiveProbe
from probes.base import BaseProbe, accepts
from probes.foreign import SklearnProbe, adapted
from probes.knn import FaissKNNProbe, KNNProbe
from probes.linear import LinearProbe
from probes.registry import known_probes, probe_class, probe_id


def sample(n: int = 120, d: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x, 50 + 5 * x[:, 0] + rng.normal(size=n), np.arange(n) // 3


class MeanProbe(BaseProbe):
    """As little as a probe can be."""

    def __init__(self, task: str = "regression") -> None:
        self.task = task  # type: ignore[assignment]

    def fit(self, X: Any, y: Any) -> Self:
        _, targets = self._check_fit(X, y)
        self.mean_ = float(np.nanmean(targets))
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.full(len(X), self.mean_)


class KeptProbe(MeanProbe):
    saved = ("mean_",)
    name = "Mean of the labels"


def test_a_minimal_subclass_says_everything_a_report_asks() -> None:
    x, y, _ = sample()
    probe = MeanProbe().fit(x, y)
    assert probe.name == "MeanProbe"
    assert probe.methods_sentence() == "MeanProbe was fitted to the embeddings"
    assert probe.selection() == ""
    assert not probe.chooses()
    assert probe.grid_rows() == []
    assert not probe.far_outside(x).any()
    assert "names no attributes to save" in probe.saveable()


def test_a_registered_probe_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = sample()
    probe = KeptProbe().fit(x, y)
    assert probe_id(probe) == ""
    register(monkeypatch, "kept", f"{__name__}:KeptProbe")
    assert probe.saveable() == ""
    assert probe_id(probe) == "kept"
    same = probe_class("kept")(**probe.saved_parameters()).restore(probe.fitted_arrays())
    np.testing.assert_array_equal(same.predict(x), probe.predict(x))


def test_accepts_tells_which_arguments_fit_takes() -> None:
    assert not accepts(MeanProbe().fit, "groups")
    assert accepts(LinearProbe().fit, "holdout")
    assert not accepts(LinearProbe().fit, "bags")
    assert accepts(AttentiveProbe().fit, "bags")
    assert accepts(lambda X, **rest: None, "groups")


@pytest.mark.parametrize(
    ("probe", "name", "methods", "selection"),
    [
        (
            LinearProbe(),
            "Linear probe",
            "Ridge regression was fitted to features standardised on the training data and cut at 5 standard "
            "deviations",
            "its strength minimised the squared error",
        ),
        (
            LinearProbe("ordinal", bound=None, class_weight="balanced"),
            "Linear probe",
            "Proportional-odds (cumulative logit) regression with an L2 penalty was fitted to features standardised on "
            "the training data, classes weighted by their inverse frequency",
            "its strength minimised the log loss",
        ),
        (
            LinearProbe("binary", strengths=[2.0], bound=None),
            "Linear probe",
            "Logistic regression with an L2 penalty was fitted to features standardised on the training data; its "
            "strength was fixed (C = 2)",
            "",
        ),
        (
            KNNProbe(weights="distance", metric="euclidean"),
            "Nearest-neighbour probe",
            "A nearest-neighbour probe averaged the labels of the k nearest embeddings by euclidean distance with "
            "distance weights",
            "k minimised the squared error",
        ),
        (
            AttentiveProbe("binary"),
            "Attentive probe",
            "A single attention-pooling layer (4 heads) with a linear read-out was trained with AdamW",
            "the number of epochs minimised the log loss",
        ),
    ],
)
def test_own_probes_say_what_they_do(probe: BaseProbe, name: str, methods: str, selection: str) -> None:
    assert (probe.name, probe.methods_sentence(), probe.selection()) == (name, methods, selection)
    json.dumps(probe.saved_parameters())
    assert probe.saveable() == ""
    assert probe_class(probe_id(probe)) is type(probe)


# --- scikit-learn's estimators


@parametrize_with_checks(
    [
        SklearnProbe(Ridge()),
        SklearnProbe(LogisticRegression(), "multiclass"),
        SklearnProbe(LogisticRegression(), "binary"),
    ]
)
def test_an_adapted_estimator_keeps_the_scikit_learn_contract(estimator: SklearnProbe, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(alpha=2),
        make_pipeline(StandardScaler(), PCA(4, random_state=0), SVR()),
        RandomForestRegressor(10, random_state=0),
        GridSearchCV(Ridge(), {"alpha": [1, 10]}, cv=GroupKFold(3)),
        make_pipeline(StandardScaler(), GridSearchCV(Ridge(), {"alpha": [1, 10]}, cv=GroupKFold(3))),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_regressor_predicts_as_it_does_by_itself(estimator: Any) -> None:
    x, y, groups = sample()
    y = np.where(np.arange(120) < 100, y, np.nan)
    ours = adapted(estimator, "regression").fit(x, y, groups=groups)
    if "GridSearchCV" not in repr(estimator):
        np.testing.assert_allclose(ours.predict(x), estimator.fit(x[:100], y[:100]).predict(x), rtol=1e-6)
    assert ours.score(x[:100], y[:100]) > 0.6
    assert np.isnan(ours.holdout_prediction_).all()
    assert not hasattr(ours, "predict_proba")


@pytest.mark.parametrize(
    ("estimator", "inner"),
    [
        (GridSearchCV(Ridge(), {"alpha": [1e-3, 1e3]}, cv=5), lambda e: e.best_params_["alpha"]),
        (GridSearchCV(Ridge(), {"alpha": [1e-3, 1e3]}), lambda e: e.best_params_["alpha"]),
        (RidgeCV([1e-3, 1e3]), lambda e: e.alpha_),
        (make_pipeline(StandardScaler(), RidgeCV([1e-3, 1e3])), lambda e: e[-1].alpha_),
    ],
    ids=["search", "search without cv", "RidgeCV", "pipeline"],
)
def test_an_estimators_own_folds_keep_patients_together(estimator: Any, inner: Any) -> None:
    """Labels that belong to the patient alone: folds that split patients would choose the weakest penalty."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(40), 5))
    x = rng.normal(size=(40, 60))[groups] + rng.normal(size=(200, 60)) * 0.01
    y = rng.normal(size=40)[groups]
    probe = adapted(estimator, "regression")
    assert inner(probe.fit(x, y, groups=groups).estimator_) == 1e3
    assert inner(probe.fit(x, y).estimator_) == 1e-3


def test_a_classifiers_held_out_predictions_come_from_grouped_folds() -> None:
    x, y, groups = sample()
    labels = (y > 50).astype(int)
    probe = adapted(KNeighborsClassifier(1), "binary").fit(np.repeat(x[::3], 3, axis=0), labels[::3].repeat(3), groups)
    assert probe.score(np.repeat(x[::3], 3, axis=0), labels[::3].repeat(3)) == 1
    held_out = probe.holdout_prediction_[:, 1].round().astype(int)
    assert 0.5 < (held_out == labels[::3].repeat(3)).mean() < 0.98


def test_given_holdout_rows_are_predicted_without_them() -> None:
    x, y, _ = sample()
    part = np.where(np.arange(120) < 80, -1, 0)
    for estimator, task, labels in ((Ridge(), "regression", y), (LogisticRegression(), "binary", y > 50)):
        probe = adapted(estimator, task).fit(x, labels, holdout=part)  # type: ignore[arg-type]
        alone = estimator.fit(x[:80], labels[:80])
        expected = alone.predict(x[80:]) if task == "regression" else alone.predict_proba(x[80:])
        np.testing.assert_allclose(probe.holdout_prediction_[80:], expected, rtol=1e-5)
        assert np.isnan(probe.holdout_prediction_[:80]).all()


def test_a_class_of_one_patient_leaves_its_fold_without_held_out_predictions() -> None:
    x, _, _ = sample(30)
    y = np.where(np.arange(30) == 0, 2, np.arange(30) % 2)
    probe = adapted(LogisticRegression(), "multiclass").fit(x, y)
    assert np.isnan(probe.holdout_prediction_[0]).all()
    assert np.isfinite(probe.holdout_prediction_).all(axis=1).sum() == 24


def test_an_ordinal_task_predicts_the_median_class_and_classes_can_be_text() -> None:
    x, y, _ = sample()
    grades = np.digitize(y, [46, 50, 54])
    forest = adapted(RandomForestClassifier(20, random_state=0), "ordinal").fit(x, grades)
    below = np.cumsum(forest.predict_proba(x), axis=1)
    np.testing.assert_array_equal(forest.predict(x), (below >= 0.5 - 1e-12).argmax(axis=1))
    names = np.where(y > 50, "high", "low").astype(object)
    assert adapted(LogisticRegression(), "binary").fit(x, names).score(x, names) > 0.8


@pytest.mark.parametrize(
    ("estimator", "name", "sentence"),
    [
        (Ridge(), "Ridge", "scikit-learn's Ridge (alpha=1.0) was fitted to the embeddings"),
        (SVR(kernel="linear", C=3), "SVR", "scikit-learn's SVR (C=3, kernel='linear') was fitted to the embeddings"),
        (
            make_pipeline(StandardScaler(), PCA(10), Ridge(alpha=3)),
            "Pipeline",
            "scikit-learn's pipeline of StandardScaler, PCA (n_components=10) and Ridge (alpha=3) was fitted to the "
            "embeddings",
        ),
        (
            GridSearchCV(Ridge(), {"alpha": [1, 2]}),
            "GridSearchCV",
            "scikit-learn's GridSearchCV of Ridge (alpha=1.0) over alpha was fitted to the embeddings",
        ),
    ],
)
def test_an_adapted_estimator_is_described(estimator: Any, name: str, sentence: str) -> None:
    probe = adapted(estimator, "regression")
    assert probe.name == name
    assert probe.methods_sentence() == sentence
    assert probe.selection() == ""


@pytest.mark.parametrize(
    ("estimator", "task", "message"),
    [
        (LogisticRegression(), "regression", r"task 'regression' takes a regressor"),
        (Ridge(), "ordinal", r"the estimator is Ridge\(\); task 'ordinal' takes a classifier"),
        (RidgeClassifier(), "binary", r"RidgeClassifier has no predict_proba; wrap it: CalibratedClassifierCV"),
        (None, "regression", r"the estimator is None"),
    ],
)
def test_an_estimator_that_does_not_fit_the_task_is_refused(estimator: Any, task: str, message: str) -> None:
    x, y, _ = sample()
    with pytest.raises(ArgumentError, match=message):
        adapted(estimator, task).fit(x, y > 50)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("estimator", "task"),
    [
        (make_pipeline(StandardScaler(), PCA(4), Ridge()), "regression"),
        (GridSearchCV(SVR(), {"C": [1, 10]}), "regression"),
        (RandomForestClassifier(5, random_state=0), "multiclass"),
        (GridSearchCV(Ridge(), {"alpha": [1, 10]}, cv=GroupKFold(3)), "regression"),
        (LogisticRegressionCV(l1_ratios=(0,), scoring="neg_log_loss", use_legacy_attributes=False), "ordinal"),
        (CalibratedClassifierCV(RidgeClassifier()), "binary"),
    ],
    ids=lambda e: e if isinstance(e, str) else type(e).__name__,
)
def test_an_adapted_estimator_is_saved_by_skops_and_predicts_the_same(estimator: Any, task: str) -> None:
    pytest.importorskip("skops.io")
    x, y, groups = sample()
    y = y if task == "regression" else np.digitize(y, [50] if task == "binary" else [48, 52])
    probe = adapted(estimator, task).fit(x, y, groups=groups)  # type: ignore[arg-type]
    assert probe.saveable() == ""
    parameters = json.loads(json.dumps(probe.saved_parameters()))
    same = probe_class(probe_id(probe))(**parameters).restore(probe.fitted_arrays())
    np.testing.assert_array_equal(same.predict(x), probe.predict(x))
    assert same.methods_sentence() == probe.methods_sentence()


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (FunctionTransformer(double), f"{__name__}.double"),
        (FunctionTransformer(inverse_func=np.load, check_inverse=False), "numpy.load"),
    ],
    ids=["other package", "function"],
)
def test_what_is_no_class_of_a_trusted_package_is_neither_saved_nor_loaded(
    step: FunctionTransformer, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skops.io")
    x, y, _ = sample()
    probe = adapted(make_pipeline(step, Ridge()), "regression").fit(x, y)
    assert f"Pipeline holds what is not a class of scikit-learn, NumPy or SciPy: {named}" in probe.saveable()
    with pytest.raises(ArgumentError, match="holds what is not a class"):
        probe.fitted_arrays()
    with monkeypatch.context() as patch:
        patch.setattr(SklearnProbe, "saveable", lambda self: "")
        arrays = probe.fitted_arrays()
    with pytest.raises(StoreError, match=rf"the saved estimator holds what is not a class .*{named}"):
        SklearnProbe(**probe.saved_parameters()).restore(arrays)


def test_without_skops_saving_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = sample()
    monkeypatch.setitem(sys.modules, "skops.io", None)
    probe = adapted(Ridge(), "regression").fit(x, y)
    assert "a scikit-learn estimator (Ridge) is saved with the package skops: pip install skops" in probe.saveable()
    with pytest.raises(StoreError, match="pip install skops"):
        SklearnProbe().restore({"skops": np.zeros(3, dtype=np.uint8)})


# --- probes of other packages


def register(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry = EntryPoint(name, value, "panecho_embed.probes")
    monkeypatch.setattr("probes.registry.entry_points", lambda group: [entry])


def test_own_probes_are_known_by_name() -> None:
    own = {"linear": LinearProbe, "knn": KNNProbe, "faiss": FaissKNNProbe, "attentive": AttentiveProbe}
    assert list(known_probes()) == list(own)
    assert {name: probe_class(name) for name in own} == own


def test_an_entry_point_adds_a_probe_but_takes_no_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "mean", f"{__name__}:MeanProbe")
    assert list(known_probes()) == ["linear", "knn", "faiss", "attentive", "mean"]
    assert probe_class("mean") is MeanProbe
    register(monkeypatch, "linear", f"{__name__}:MeanProbe")
    assert probe_class("linear") is LinearProbe


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "no_such_module:Probe",
            r"the probe 'broken' \(no_such_module:Probe\) can't be loaded: ModuleNotFoundError",
        ),
        ("probes.linear:NoProbe", r"can't be loaded: AttributeError"),
        ("probes.linear:BOUND", r"is not a subclass of BaseProbe"),
    ],
)
def test_a_broken_entry_point_is_an_error_only_when_it_is_asked_for(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "broken", value)
    assert probe_class("linear") is LinearProbe
    assert "broken" in known_probes()
    with pytest.raises(ArgumentError, match=message):
        probe_class("broken")


def test_a_probe_that_is_not_installed_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"no probe is called 'magic'; installed are linear, knn, faiss, attentive"):
        probe_class("magic")
