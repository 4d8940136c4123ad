"""The attentive probe: which rows of a study to look at is learned together with what to read from them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn import functional

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import plural
from panecho_embed.evaluation.targets import Kind
from probes.base import BaseProbe, at_rows, is_classifier
from probes.solvers import BOUND, FAR_SHARE, Standardiser, check_bound, prediction_range, probabilities

_ROWS_PER_BATCH = 65_536


@dataclass(eq=False, repr=False)
class AttentiveProbe(BaseProbe):
    """One layer of attention pooling over the rows of a bag (the clips or frames of a study), and a linear read-out.

    Each head weighs the rows of a bag by a softmax of one learned direction and averages them; the read-out is linear
    in the heads' averages. It starts as the linear probe on the mean of the rows. Trained with AdamW on the squared
    error or the log loss; the number of epochs is chosen on held-out bags (Ilse et al., ICML 2018; here without a
    hidden layer).

    Features are standardised on the training rows and cut at a bound (see `probes.solvers.Standardiser`);
    predicted values are cut to twice the range of the training labels, around its centre.

    task: "regression", "binary", "multiclass" or "ordinal" (trained as multiclass; the prediction is the median class).
    heads: of attention. epochs: at most. learning_rate, weight_decay, batch_size (in bags): of AdamW. bound: standard
    deviations at which features are cut, None for no bound. folds: grouped folds inside `fit` that choose the epochs.
    random_state: of folds, batches and starting point.

    After `fit`: `epochs_`; `grid_`, the held-out loss after each epoch; `attention_` (H, D), `coef_` (K, H * D) and
    `intercept_` (K,) on standardised, cut features; `mean_`, `scale_` (D,) and `bound_`, which standardise them;
    `range_` (2,), lowest and highest prediction of a regression; `holdout_prediction_` per row, equal within a bag.
    """

    name = "Attentive probe"
    pools = True
    saved = ("attention_", "coef_", "intercept_", "mean_", "scale_", "bound_", "range_")

    task: Kind = "regression"
    _: KW_ONLY
    heads: int = 4
    epochs: int = 50
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 64
    bound: float | None = BOUND
    folds: int = 5
    random_state: int = 0

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        holdout: npt.ArrayLike | None = None,
        bags: npt.ArrayLike | None = None,
    ) -> Self:
        """Choose the number of epochs on held-out bags, then train that long on all of them.

        X: (N, D) rows. y: (N,), the same in all rows of a bag; NaN in a regression where a label is missing. bags: (N,)
        which bag a row belongs to; each row its own without. groups, holdout: as `LinearProbe.fit`.
        """
        if min(self.heads, self.epochs, self.batch_size) < 1:
            raise ArgumentError("heads, epochs and batch_size must be 1 or more")
        self.bound_ = check_bound(self.bound)
        there, x, given, (of_group, out_in, owner) = self._labelled(X, y, groups, holdout, bags)
        bag, first = _number_bags(np.arange(len(x)) if owner is None else owner)
        targets = given[first]
        if (targets[bag] != given).any():
            raise ArgumentError("the rows of a bag have different labels; a bag has one")
        part = self._parts(targets, at_rows(of_group, first), at_rows(out_in, first), needed=True)
        held_out = np.full((self.epochs, len(targets), self._outputs()), np.nan)
        for k in range(part.max() + 1):
            rest = part != k
            rows = rest[bag]
            inside = np.flatnonzero(~rows)
            _, out_bag = np.unique(bag[inside], return_inverse=True)
            train_bag = np.cumsum(rest)[bag[rows]] - 1
            for epoch, _ in enumerate(self._train(x[rows], train_bag, targets[rest], self.epochs)):
                held_out[epoch, ~rest] = self._pooled(x[inside], out_bag)
        self._choose(held_out, targets)
        for _ in self._train(x, bag, targets, self.epochs_):
            pass
        outputs = held_out[self.epochs_ - 1]
        self._hold_out(there, (outputs if self.task == "regression" else probabilities(outputs))[bag])
        return self

    def predict(self, X: npt.ArrayLike, bags: npt.ArrayLike | None = None) -> npt.NDArray[Any]:
        """Value or class (N,) of each row, equal within a bag."""
        if self.task == "regression":
            return self._rows(X, bags)[:, 0]
        return self._classes_of(self.predict_proba(X, bags))

    @available_if(is_classifier)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: npt.ArrayLike, bags: npt.ArrayLike | None = None) -> Floats:
        """Probability of each class, (N, K), equal within a bag."""
        return probabilities(self._rows(X, bags))

    def far_outside(self, X: npt.ArrayLike) -> Bools:
        """Whether each row (N,), of X (N, D), is far outside the training rows: 5% or more of its features are cut."""
        return np.asarray(self.share_cut(X) >= FAR_SHARE)

    def share_cut(self, X: npt.ArrayLike) -> Floats:
        """Share of the features of each row (N,) that are cut at the bound."""
        check_is_fitted(self)
        return self._standardiser().share_cut(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))

    def methods_sentence(self) -> str:
        """As in `BaseProbe`."""
        layer = f"A single attention-pooling layer ({self.heads} {plural('head', self.heads)})"
        return f"{layer} with a linear read-out was trained with AdamW"

    def selection(self) -> str:
        """As in `BaseProbe`."""
        loss = "squared error" if self.task == "regression" else "log loss"
        return f"the number of epochs minimised the {loss}"

    def chooses(self) -> bool:
        """True: the number of epochs."""
        return True

    def grid_rows(self) -> list[dict[str, Any]]:
        """The held-out loss after each epoch, and where training was stopped."""
        return [
            {"epochs": i + 1, "loss": float(loss), "chosen": i + 1 == self.epochs_} for i, loss in enumerate(self.grid_)
        ]

    def _standardiser(self) -> Standardiser:
        return Standardiser(self.mean_, self.scale_, self.bound_)

    def _outputs(self) -> int:
        return 1 if self.task == "regression" or len(self.classes_) == 2 else len(self.classes_)

    def _rows(self, X: npt.ArrayLike, bags: npt.ArrayLike | None) -> Floats:
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        bag, _ = _number_bags(np.arange(len(x)) if bags is None else np.asarray(bags))
        return self._pooled(x, bag)[bag]

    def _pooled(self, x: npt.NDArray[Any], bag: Ints) -> Floats:
        """Outputs (B, K) of bags numbered 0..B-1: values, or logits."""
        order = np.argsort(bag, kind="stable")
        starts = np.searchsorted(bag[order], np.arange(bag.max() + 1))
        z = self._standardiser()(x)[order]
        logits = z @ self.attention_.T
        weight = np.exp(logits - np.maximum.reduceat(logits, starts)[bag[order]])
        weight /= np.add.reduceat(weight, starts)[bag[order]]
        pooled = [np.add.reduceat(z * share[:, None], starts) for share in weight.T]
        outputs = np.concatenate(pooled, axis=1) @ self.coef_.T + self.intercept_
        return np.asarray(np.clip(outputs, *self.range_) if self.task == "regression" else outputs)

    def _train(self, x: npt.NDArray[Any], bag: Ints, targets: npt.NDArray[Any], epochs: int) -> Any:
        """Train from the start; after each epoch the attributes are set, and control returns to the caller."""
        standardiser = Standardiser.of_rows(x, self.bound_)
        self.mean_, self.scale_ = standardiser.mean, standardiser.scale
        self.range_ = prediction_range(targets) if self.task == "regression" else np.empty(0)
        z = torch.from_numpy(standardiser(x).astype(np.float32))
        index, mask = _padded(bag)
        y, centre, spread = self._target_tensor(targets)
        generator = torch.Generator().manual_seed(self.random_state)
        size = self.heads * x.shape[1]
        attention = (torch.randn(self.heads, x.shape[1], generator=generator) / size).requires_grad_()
        coef, intercept = (torch.zeros(self._outputs(), n).requires_grad_() for n in (size, 1))
        groups: list[dict[str, Any]] = [{"params": [attention, coef]}, {"params": [intercept], "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)
        per_batch = max(1, min(self.batch_size, _ROWS_PER_BATCH // index.shape[1]))
        for _ in range(epochs):
            for batch in torch.randperm(len(index), generator=generator).split(per_batch):
                rows = z[index[batch]]
                share = (rows @ attention.T).masked_fill(~mask[batch][..., None], -torch.inf).softmax(dim=1)
                pooled = torch.einsum("blh,bld->bhd", share, rows).flatten(1)
                output = pooled @ coef.T + intercept.T
                optimiser.zero_grad()
                self._loss(output, y[batch]).backward()
                optimiser.step()
            self.attention_ = attention.detach().numpy().astype(np.float64)
            self.coef_ = coef.detach().numpy().astype(np.float64) * spread
            self.intercept_ = intercept.detach().numpy()[:, 0].astype(np.float64) * spread + centre
            yield

    def _target_tensor(self, targets: npt.NDArray[Any]) -> tuple[torch.Tensor, float, float]:
        """Targets to train on, and the mean and spread that turn outputs back into values."""
        if self.task != "regression":
            return torch.from_numpy(targets), 0.0, 1.0
        centre, spread = float(targets.mean()), float(targets.std()) or 1.0
        return torch.from_numpy(((targets - centre) / spread).astype(np.float32)), centre, spread

    def _loss(self, output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.task == "regression":
            return functional.mse_loss(output[:, 0], y)
        if output.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(output[:, 0], y.to(output.dtype))
        return functional.cross_entropy(output, y)

    def _choose(self, held_out: Floats, targets: npt.NDArray[Any]) -> None:
        out = np.isfinite(held_out[0, :, 0])
        if self.task == "regression":
            self.grid_ = np.square(held_out[:, out, 0] - targets[out]).mean(axis=1)
        else:
            likelihood = [probabilities(epoch)[np.arange(out.sum()), targets[out]] for epoch in held_out[:, out]]
            self.grid_ = -np.log(np.maximum(likelihood, 1e-15)).mean(axis=1)
        self.epochs_ = int(self.grid_.argmin()) + 1


def _number_bags(owner: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Bag number 0..B-1 of each row, and the first row of each bag."""
    _, first, bag = np.unique(owner, return_index=True, return_inverse=True)
    return bag.astype(np.int64), first.astype(np.int64)


def _padded(bag: Ints) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers (B, L) of each bag, the first row repeated as padding, and which of them are rows (B, L)."""
    order = np.argsort(bag, kind="stable")
    sizes = np.bincount(bag)
    place = np.arange(sizes.max())
    mask = place < sizes[:, None]
    starts = np.cumsum(sizes) - sizes
    index = order[np.where(mask, starts[:, None] + place, starts[:, None])]
    return torch.from_numpy(index), torch.from_numpy(mask)
