"""The threshold of a yes-or-no decision: chosen by a stated rule on rows that are not tested, then frozen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.predictions import Predictions

_Name = Literal["youden", "sensitivity", "specificity", "fixed"]

_ALLOWED = "allowed are youden, sensitivity=0.9, specificity=0.9, or a number such as 0.5 (--threshold)"


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """How the threshold is chosen.

    Parameters
    ----------
    name : {"youden", "sensitivity", "specificity", "fixed"}
        Largest sensitivity plus specificity (Youden, Cancer 1950; 3: 32-35); the highest threshold that reaches a
        sensitivity; the lowest that reaches a specificity; or a number stated beforehand.
    value : float
        The sensitivity or specificity to reach, or the number.
    """

    name: _Name = "youden"
    value: float = float("nan")

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """The rule in "youden", "sensitivity=0.9", "specificity=0.9" or "0.5"; ArgumentError for anything else."""
        name, _, number = text.strip().lower().partition("=")
        if name == "youden" and not number:
            return cls()
        try:
            value = float(number if number else name)
        except ValueError:
            raise ArgumentError(f"the threshold is {text!r}; {_ALLOWED}") from None
        if not 0 < value < 1 or (number and name not in ("sensitivity", "specificity")):
            raise ArgumentError(f"the threshold is {text!r}; {_ALLOWED}, all between 0 and 1")
        if not number:
            return cls("fixed", value)
        return cls("sensitivity" if name == "sensitivity" else "specificity", value)

    def __str__(self) -> str:
        if self.name == "youden":
            return "youden"
        return f"{self.value:g}" if self.name == "fixed" else f"{self.name}={self.value:g}"

    def sentence(self, whose: str) -> str:
        """How the threshold came about, for a methods section; whose: "the validation patients"."""
        if self.name == "fixed":
            return f"The decision threshold was set to {self.value:g} beforehand."
        if self.name == "youden":
            return f"The decision threshold maximised sensitivity plus specificity on {whose} (Youden)."
        return f"The decision threshold was chosen for a {self.name} of {self.value:g} on {whose}."

    def choose(self, truth: Floats, probability: Floats) -> float:
        """The threshold of a yes-or-no question.

        Parameters
        ----------
        truth : (N,) class index
        probability : (N,) of the positive class, NaN in rows that were not held out

        Returns
        -------
        float
            Halfway between two neighbouring predictions; NaN where fewer than two classes have a prediction.
        """
        if self.name == "fixed":
            return self.value
        there = np.isfinite(probability) & np.isfinite(truth)
        p, y = probability[there], truth[there] == 1
        if not y.any() or y.all():
            return float("nan")
        order = np.argsort(p, kind="stable")
        p, y = p[order], y[order]
        # Between row i and i + 1: who is above is called positive. Equal predictions can't be separated.
        between = np.flatnonzero(np.diff(p) > 0)
        cut = (p[between] + p[between + 1]) / 2
        specificity = np.cumsum(~y)[between] / (~y).sum()
        sensitivity = 1 - np.cumsum(y)[between] / y.sum()
        # Below and above all rows: everybody, or nobody, is positive.
        cut = np.r_[np.nextafter(p[0], -1), cut, np.nextafter(p[-1], 2)]
        specificity, sensitivity = np.r_[0.0, specificity, 1.0], np.r_[1.0, sensitivity, 0.0]
        if self.name == "youden":
            best = int(np.round(sensitivity + specificity, 12).argmax())  # equal sums are equal
        elif self.name == "sensitivity":
            best = int(np.flatnonzero(sensitivity >= self.value - 1e-12)[-1])
        else:
            best = int(np.flatnonzero(specificity >= self.value - 1e-12)[0])
        return float(cut[best])


def with_threshold(predictions: Predictions, rule: ThresholdRule, given: float | None = None) -> Predictions:
    """The predictions with the threshold of a yes-or-no decision: `given`, or chosen by the rule on rows of split val.

    Predictions of other kinds are returned as they are.
    """
    if predictions.target.kind != "binary":
        return predictions
    held_out = predictions.of_split("val")
    chosen = rule.choose(held_out.truth, held_out.prediction) if given is None else given
    return replace(predictions, threshold=np.full(len(predictions), chosen))
