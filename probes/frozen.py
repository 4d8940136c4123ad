"""The linear probe as `panecho-embed grid` sets it beside fine-tuning: same patients, same parts, no refit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.targets import Kind
from probes.linear import LinearProbe


def linear_probe(values: Floats, truth: Floats, split: npt.NDArray[np.str_], *, task: Kind) -> Floats:
    """Fit to the training rows, its strength chosen on the validation rows, and predict the test rows.

    values: (N, D). truth: (N,) value or class index. split: (N,) "train", "val" or "test". Returns (n,) values or
    (n, K) probabilities. Unlike `evaluate`, it is not fitted again to training and validation rows: fine-tuning learns
    only from the training rows, and stops early by the validation rows. Raises ArgumentError if a class has no
    training row.
    """
    train, test = split == "train", split == "test"
    known = ~test
    labels = truth if task == "regression" else np.nan_to_num(truth).astype(np.int64)
    if task != "regression":
        _check_classes(labels[train], labels[known])
    holdout = np.where(split[known] == "val", 0, -1)
    chosen = LinearProbe(task).fit(values[known], labels[known], holdout=holdout)
    probe = LinearProbe(task, strengths=(float(chosen.strength_),)).fit(values[train], labels[train])
    return np.asarray(probe.predict(values[test]) if task == "regression" else probe.predict_proba(values[test]))


def _check_classes(trained: Ints, known: Ints) -> None:
    if missing := sorted(set(known.tolist()) - set(trained.tolist())):
        raise ArgumentError(f"no training row has class {', '.join(map(str, missing))}")
