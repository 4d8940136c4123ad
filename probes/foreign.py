"""Probes made of scikit-learn estimators: anything with `fit` and `predict`, evaluated and reported like our own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.base import is_classifier as is_sklearn_classifier
from sklearn.base import is_regressor as is_sklearn_regressor
from sklearn.model_selection import PredefinedSplit
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.evaluation.splits import grouped_folds
from panecho_embed.evaluation.targets import Kind
from probes.base import BaseProbe, accepts, at_rows, is_classifier

_TRUSTED = ("sklearn.", "numpy.", "scipy.")  # packages whose classes are loaded from a saved file


def adapted(estimator: BaseEstimator, task: Kind, *, folds: int = 5, random_state: int = 0) -> SklearnProbe:
    """A probe that fits a scikit-learn estimator.

    Parameters
    ----------
    estimator : regressor, classifier, Pipeline or search such as GridSearchCV
        Cloned before each fit. A classifier needs `predict_proba`.
    task : "regression", "binary", "multiclass" or "ordinal"
        A regressor takes "regression", a classifier one of the others. "ordinal": the prediction is the median class.
    folds : int, default 5
        Grouped folds: for the held-out predictions of a classifier, and for an estimator's own cross-validation.
    random_state : int
        Seed of the folds.

    Examples
    --------
    >>> evaluate(problem, adapted(make_pipeline(StandardScaler(), SVR()), "regression"))
    """
    return SklearnProbe(estimator, task, folds=folds, random_state=random_state)


def as_probe(probe: BaseProbe | BaseEstimator, task: Kind) -> BaseProbe:
    """A probe as it is, any other scikit-learn estimator as a probe for a task."""
    return probe if isinstance(probe, BaseProbe) else adapted(probe, task)


@dataclass(eq=False, repr=False)
class SklearnProbe(BaseProbe):
    """A scikit-learn estimator as a probe; made by `adapted`, which explains the arguments.

    Patients stay together in the estimator's own cross-validation: `groups` is passed on where the estimator takes it,
    and where its `cv` is a number or None (in a search, RidgeCV and the like, also as a step of a pipeline), grouped
    folds take its place.

    After `fit`: `estimator_`, the fitted copy; `holdout_prediction_`, of rows while held out: from inner grouped folds
    for a classifier (so that a decision threshold can be chosen), from `holdout` if given; otherwise NaN.
    """

    estimator: BaseEstimator | None = None
    task: Kind = "regression"
    _: KW_ONLY
    folds: int = 5
    random_state: int = 0

    @property
    def name(self) -> str:
        """Class name of the estimator."""
        return type(self.estimator).__name__

    def methods_sentence(self) -> str:
        """As in `BaseProbe`."""
        estimator = self.estimator
        package = type(estimator).__module__.partition(".")[0]
        whose = "scikit-learn's " if package == "sklearn" else ""
        whence = "" if package == "sklearn" else f" of the package {package}"
        return f"{whose}{_in_words(estimator)}{whence} was fitted to the embeddings"

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        holdout: npt.ArrayLike | None = None,
    ) -> Self:
        """Fit a copy of the estimator to the rows with a label.

        X: (N, D). y: (N,), NaN in a regression where a label is missing. groups, holdout: as `LinearProbe.fit`.
        """
        self._check_estimator()
        there, x, given, (owner, parts) = self._labelled(X, y, groups, holdout)
        self.estimator_ = self._fitted(x, given, owner)
        self._hold_out(there, self._held_out(x, given, owner, parts))
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Value or class (N,) of each row of X (N, D)."""
        if self.task == "regression":
            return self._outputs_of(X)[:, 0]
        return self._classes_of(self.predict_proba(X))

    @available_if(is_classifier)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Probability of each class, (N, K), in the order of `classes_`."""
        return self._outputs_of(X)

    def saveable(self) -> str:
        """As in `BaseProbe`: it takes the package skops, and an estimator of scikit-learn's own types."""
        if (skops := _skops()) is None:
            return f"a scikit-learn estimator ({self.name}) is saved with the package skops: pip install skops"
        if not hasattr(self, "estimator_"):
            return ""
        try:
            strange = _untrusted(skops, skops.dumps(self.estimator_))
        except Exception as error:  # skops raises whatever the estimator does when it is taken apart
            return f"skops can't save {self.name} ({type(error).__name__}: {error})"
        if strange:
            return f"{self.name} holds what is not a class of scikit-learn, NumPy or SciPy: {', '.join(strange)}"
        return ""

    def saved_parameters(self) -> dict[str, Any]:
        """As in `BaseProbe`; the estimator is among the arrays."""
        return {"task": self.task, "folds": self.folds, "random_state": self.random_state}

    def fitted_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The estimator as bytes in skops' format, and the classes. Raises ArgumentError when it is not `saveable`."""
        if reason := self.saveable():
            raise ArgumentError(reason)
        written = _skops().dumps(self.estimator_)
        return super().fitted_arrays() | {"skops": np.frombuffer(written, dtype=np.uint8)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """As in `BaseProbe`. Raises StoreError without skops, or for types of other packages, which are not loaded."""
        if (skops := _skops()) is None:
            raise StoreError("a saved scikit-learn estimator is loaded with the package skops: pip install skops")
        data = np.asarray(arrays["skops"], dtype=np.uint8).tobytes()
        if strange := _untrusted(skops, data):
            raise StoreError(
                f"the saved estimator holds what is not a class of scikit-learn, NumPy or SciPy: {', '.join(strange)}"
            )
        super().restore(arrays)
        self.estimator_ = skops.loads(data, trusted=skops.get_untrusted_types(data=data))
        self.estimator = clone(self.estimator_)
        return self

    def _check_estimator(self) -> None:
        self._check_task()
        fits = is_sklearn_regressor if self.task == "regression" else is_sklearn_classifier
        if self.estimator is None or not fits(self.estimator):
            raise ArgumentError(
                f"the estimator is {self.estimator!r}; task {self.task!r} takes a "
                f"{'regressor' if self.task == 'regression' else 'classifier'}"
            )
        if is_classifier(self) and not hasattr(self.estimator, "predict_proba"):
            raise ArgumentError(
                f"{self.name} has no predict_proba; wrap it: CalibratedClassifierCV({self.name}()) of "
                "sklearn.calibration"
            )

    def _outputs_of(self, X: npt.ArrayLike) -> Floats:
        check_is_fitted(self, "estimator_")
        return self._outputs(self.estimator_, validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))

    def _fitted(self, x: npt.NDArray[Any], given: npt.NDArray[Any], owner: npt.NDArray[Any] | None) -> Any:
        """A copy of the estimator, fitted to values, or to classes as they were given."""
        estimator = clone(self.estimator)
        target = given if self.task == "regression" else self.classes_[given]
        if owner is None:
            return estimator.fit(x, target)
        for step in _steps(estimator):
            if hasattr(step, "cv") and isinstance(step.cv, int | None):
                folds = step.cv or self.folds
                step.set_params(cv=PredefinedSplit(self._grouped(given, owner, folds)))
        last = _steps(estimator)[-1]
        if _accepts_groups(last):
            key = f"{estimator.steps[-1][0]}__groups" if isinstance(estimator, Pipeline) else "groups"
            return estimator.fit(x, target, **{key: owner})
        return estimator.fit(x, target)

    def _grouped(self, given: npt.NDArray[Any], owner: npt.NDArray[Any], folds: int) -> Ints:
        folds = min(folds, len(np.unique(owner)))
        return grouped_folds(owner, given, folds, discrete=is_classifier(self), seed=self.random_state)

    def _held_out(
        self, x: npt.NDArray[Any], given: npt.NDArray[Any], owner: npt.NDArray[Any] | None, holdout: Any
    ) -> Floats:
        """Predictions (N, K) or (N, 1) of rows while held out; NaN where a class would be missing from training."""
        part = self._parts(given, owner, holdout, needed=is_classifier(self))
        outputs = np.full((len(x), len(self.classes_) if is_classifier(self) else 1), np.nan)
        for k in range(part.max() + 1):
            out = part == k
            if is_classifier(self) and len(np.unique(given[~out])) < len(self.classes_):
                continue
            outputs[out] = self._outputs(self._fitted(x[~out], given[~out], at_rows(owner, ~out)), x[out])
        return outputs

    def _outputs(self, estimator: Any, x: npt.NDArray[Any]) -> Floats:
        values = estimator.predict_proba(x) if is_classifier(self) else estimator.predict(x)
        return np.asarray(values, dtype=np.float64).reshape(len(x), -1)


def _accepts_groups(estimator: Any) -> bool:
    """Whether `fit` of a scikit-learn estimator takes `groups`, by its signature or by its metadata routing."""
    if "groups" in inspect.signature(estimator.fit).parameters:
        return True
    if not accepts(estimator.fit, "groups"):
        return False
    try:
        return "groups" in get_routing_for_object(estimator).consumes("fit", ["groups"])
    except (AttributeError, RecursionError):  # estimators without routing; RidgeCV of scikit-learn 1.9 recurses
        return False


def _steps(estimator: Any) -> list[Any]:
    """The steps of a pipeline, or the estimator itself."""
    if not isinstance(estimator, Pipeline):
        return [estimator]
    return [step for _, step in estimator.steps if step is not None and step != "passthrough"]


def _in_words(estimator: Any) -> str:
    """An estimator and the settings that somebody chose: "Ridge (alpha=2)", "pipeline of PCA and Ridge (alpha=1.0)"."""
    if isinstance(estimator, Pipeline):
        *most, last = map(_in_words, _steps(estimator))
        return f"pipeline of {', '.join(most)} and {last}" if most else last
    kind = type(estimator)
    settings = estimator.get_params(deep=False)
    wrapped = settings.pop("estimator", None)
    inside = f" of {_in_words(wrapped)}" if isinstance(wrapped, BaseEstimator) else ""
    searched = settings.pop("param_grid", settings.pop("param_distributions", None))
    over = f" over {', '.join(searched)}" if isinstance(searched, Mapping) else ""
    defaults = {name: p.default for name, p in inspect.signature(kind.__init__).parameters.items()}
    # scikit-learn's first parameter, where it is a number, is the one that matters: alpha, C, n_neighbors
    first = next(iter(inspect.signature(kind).parameters), "")
    shown = [
        f"{name}={value!r}"
        for name, value in settings.items()
        if isinstance(value, int | float | str)
        and not isinstance(value, bool)
        and value == value  # not NaN
        and (value != defaults.get(name) or (name == first and not isinstance(value, str)))
    ]
    values = f" ({', '.join(shown)})" if shown else ""
    return f"{kind.__name__}{inside}{over}{values}"


def _skops() -> Any:
    """The module skops.io, or None where skops is not installed."""
    try:
        return importlib.import_module("skops.io")
    except ImportError:
        return None


def _untrusted(skops: Any, data: bytes) -> list[str]:
    """Types in a skops file that skops does not know, and that are not classes of a trusted package."""
    # Functions of these packages are not trusted: a file could have `numpy.load` called with arguments of its choice.
    return [name for name in skops.get_untrusted_types(data=data) if not _is_trusted_class(name)]


def _is_trusted_class(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if not name.startswith(_TRUSTED):
        return False
    try:
        return isinstance(getattr(importlib.import_module(module), attribute, None), type)
    except ImportError:
        return False
