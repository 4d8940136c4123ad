"""What all probes share: the scikit-learn contract, targets, and the rows that select the settings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import ClassifierTags, RegressorTags, Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d, validate_data

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.splits import grouped_folds
from panecho_embed.evaluation.targets import KINDS, Kind, median_class


def is_classifier(probe: BaseProbe) -> bool:
    """Whether the probe predicts classes: decides if it has `predict_proba`."""
    return probe.task != "regression"


class ClassHeldOutError(ArgumentError):
    """An inner fold holds out all rows of a class. index: of the class, in the order of `classes_`."""

    def __init__(self, index: int, name: str) -> None:
        super().__init__(
            f"class {name} is missing from the training rows when its patients are held out: every class needs at "
            "least two patients, or a single strength (--strengths)"
        )
        self.index = index


class BaseProbe(BaseEstimator):  # type: ignore[misc]
    """A probe whose `task` says whether it is a regressor or a classifier.

    A minimal subclass takes `task` in `__init__` and has `fit(X, y)` and `predict(X)`, and `predict_proba(X)` for
    classes; `fit` may call `_check_fit`. All else has a default here. A subclass that can be saved also names in
    `saved` the attributes that `predict` needs. `fit` may take `groups`, `holdout` and `bags` (see `LinearProbe.fit`
    and `AttentiveProbe.fit`): whoever calls it asks `accepts`.

    task: "regression", "binary", "multiclass", or "ordinal" (classes whose sorted order is their order).
    """

    saved: ClassVar[tuple[str, ...]] = ()  # what `fit` sets and `predict` needs, as arrays
    pools: ClassVar[bool] = False  # whether `fit` and `predict` take `bags`, and pool the rows of a bag themselves

    task: Kind
    folds: int = 5
    random_state: int = 0
    classes_: npt.NDArray[Any]
    holdout_prediction_: Floats

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if self.task == "regression":
            tags.estimator_type = "regressor"
            tags.regressor_tags = RegressorTags()
        else:
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_class=self.task != "binary")
        return tags

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Predicted value (regression) or class of each row."""
        raise NotImplementedError

    predict_proba: Callable[..., Floats]  # (N, K), of classifiers only

    @property
    def name(self) -> str:
        """What the probe is called in reports; the class name unless a subclass says otherwise."""
        return type(self).__name__

    def methods_sentence(self) -> str:
        """What was fitted, in words of a methods section, without the final full stop.

        How a setting was chosen is in `selection`; of a setting that was not chosen this holds the value.
        """
        return f"{self.name} was fitted to the embeddings"

    def selection(self) -> str:
        """What was chosen in `fit` and by what loss ("its strength minimised the squared error"); "" for nothing."""
        return ""

    def chooses(self) -> bool:
        """Whether `fit` has more than one setting to choose from, for which it needs held-out rows."""
        return False

    def grid_rows(self) -> list[dict[str, Any]]:
        """Every setting tried, its held-out loss, and whether it was chosen: one dict each."""
        return []

    def far_outside(self, X: npt.ArrayLike) -> Bools:
        """Whether each row (N,) is unlike all training rows, so that its prediction is to be distrusted.

        A row is far outside when 5% or more of its features are cut at the bound. Always False for probes without one.
        """
        return np.zeros(len(np.asarray(X)), dtype=np.bool_)

    def saveable(self) -> str:
        """Why the probe can't be saved; "" if it can."""
        if not self.saved:
            return f"{type(self).__name__} names no attributes to save (`saved`)"
        try:
            json.dumps(self.saved_parameters())
        except (TypeError, ValueError) as error:
            return f"a parameter of {type(self).__name__} can't be written as JSON ({error})"
        return ""

    def saved_parameters(self) -> dict[str, Any]:
        """Arguments of `__init__` that make a probe for `restore`, as JSON takes them."""
        return dict(self.get_params(deep=False))

    def fitted_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `predict` needs, to be restored by `restore`."""
        return {name: np.asarray(getattr(self, name)) for name in self._saved_names()}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Make this probe, which has the same settings, predict as the one that the arrays came from."""
        for name in self._saved_names():
            value = arrays[name]
            setattr(self, name, value if value.ndim else value.item())
        return self

    def _saved_names(self) -> tuple[str, ...]:
        return ("n_features_in_", *self.saved, *(("classes_",) if is_classifier(self) else ()))

    def score(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """R2 (regression) or accuracy; for cross-validation by scikit-learn. `evaluate` gives the metrics to report."""
        metric = r2_score if self.task == "regression" else accuracy_score
        return float(metric(y, self.predict(X), sample_weight=sample_weight))

    def _classes_of(self, probability: Floats) -> npt.NDArray[Any]:
        """Class (N,) of probabilities (N, K): the most likely one; of an ordinal task the median class."""
        if self.task != "ordinal":
            return np.asarray(self.classes_[probability.argmax(axis=1)])
        return np.asarray(self.classes_[median_class(probability)])

    def _check_task(self) -> None:
        if self.task not in KINDS:
            raise ArgumentError(f"task is {self.task!r}; allowed are {', '.join(KINDS)} (--task)")

    def _check_fit(self, X: npt.ArrayLike, y: npt.ArrayLike | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """X as (N, D), its precision kept; y as float64 with NaN where missing (regression), or class index (N,)."""
        self._check_task()
        if y is None:
            raise ArgumentError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        x = validate_data(self, X, dtype=[np.float64, np.float32])
        check_consistent_length(x, y)
        if self.task == "regression":
            if not self.__sklearn_tags__().target_tags.multi_output:
                y = column_or_1d(y, warn=True)
            targets = check_array(y, dtype=np.float64, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y")
            if np.isinf(targets).any():
                raise ArgumentError("Input y contains infinity; a missing label is NaN")
            return x, targets
        return x, self._encode_classes(y)

    def _encode_classes(self, y: npt.ArrayLike) -> Ints:
        labels = column_or_1d(y, warn=True)
        check_array(labels, ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ArgumentError(f"y has only one class, {self.classes_[0]!r}; a classifier needs at least two classes")
        if self.task == "binary" and len(self.classes_) > 2:
            kind = type_of_target(labels, input_name="y")
            raise ArgumentError(
                f"Only binary classification is supported. The type of the target is {kind} with {len(self.classes_)} "
                f"classes, {', '.join(map(repr, self.classes_[:5].tolist()))}: use --task multiclass"
            )
        return codes.astype(np.int64)

    def _labelled(
        self, X: npt.ArrayLike, y: npt.ArrayLike, *columns: npt.ArrayLike | None
    ) -> tuple[Bools, npt.NDArray[Any], npt.NDArray[Any], list[npt.NDArray[Any] | None]]:
        """Which rows have a label (N,), and X, y (as `_check_fit` gives it) and optional columns at these rows."""
        x, given = self._check_fit(X, y)
        there = np.isfinite(given)
        if not there.any():
            raise ArgumentError("the target has no labels at all")
        return there, x[there], given[there], [at_rows(column, there) for column in columns]

    def _hold_out(self, there: Bools, predicted: Floats) -> None:
        """Set `holdout_prediction_` from the predictions (L, K) of the rows with a label."""
        held = np.full((len(there), predicted.shape[1]), np.nan)
        held[there] = predicted
        self.holdout_prediction_ = held[:, 0] if self.task == "regression" else held

    def _parts(
        self, y: npt.NDArray[Any], groups: npt.ArrayLike | None, holdout: npt.ArrayLike | None, *, needed: bool
    ) -> Ints:
        """Which part each row is held out in to select the settings, (N,); -1 never."""
        if holdout is not None:
            part = np.asarray(holdout, dtype=np.int64)
            if part.shape != (len(y),) or part.min() < -1 or part.max() < 0:
                raise ArgumentError("holdout must be one whole number a row: -1 never held out, 0, 1, ... the part")
            return part
        if not needed:
            return np.full(len(y), -1, dtype=np.int64)
        owner = np.arange(len(y)) if groups is None else np.asarray(groups)
        if owner.shape != (len(y),):
            raise ArgumentError(f"groups has shape {owner.shape}; one group a row is needed, ({len(y)},)")
        return grouped_folds(owner, y, self.folds, discrete=self.task != "regression", seed=self.random_state)


def accepts(function: Callable[..., Any], argument: str) -> bool:
    """Whether a function takes an argument of this name, or any by name.

    Examples
    --------
    >>> accepts(LinearProbe().fit, "groups"), accepts(LinearProbe().fit, "bags")
    (True, False)
    """
    parameters = inspect.signature(function).parameters
    return argument in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def at_rows(values: npt.ArrayLike | None, rows: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Some rows of an optional column."""
    return None if values is None else np.asarray(values)[rows]
