"""The learning rate over the steps of a training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from panecho_embed.finetune.recipe import ScheduleSettings


class Rate:
    """A factor on every layer's learning rate: warm-up, then constant, cosine or stepwise down on a plateau."""

    def __init__(self, settings: ScheduleSettings, *, higher_is_better: bool) -> None:
        self._settings = settings
        # torch's scheduler wants an optimiser; this one's rate is the factor.
        self._factor = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        self._plateau = ReduceLROnPlateau(
            self._factor,
            mode="max" if higher_is_better else "min",
            factor=settings.factor,
            patience=settings.patience,
        )

    def factor(self, epochs_done: float, step: float = 0.0) -> float:
        """The factor after so many epochs, whole and in part; with "plateau" as of the last `epoch_ended`.

        step: what part of an epoch the step is that ends there. The cosine is taken at its middle: at its end, the last
        step would learn nothing.
        """
        settings = self._settings
        if epochs_done < settings.warmup_epochs:
            return epochs_done / settings.warmup_epochs
        if settings.name == "cosine":
            share = (epochs_done - step / 2 - settings.warmup_epochs) / (settings.epochs - settings.warmup_epochs)
            return 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))
        return float(self._factor.param_groups[0]["lr"])

    def epoch_ended(self, monitored: float) -> None:
        """Tell how good the epoch was."""
        if self._settings.name == "plateau":
            self._plateau.step(monitored)

    def state(self) -> dict[str, Any]:
        """To be given to `restore`."""
        return {"factor": self._factor.param_groups[0]["lr"], "plateau": self._plateau.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._factor.param_groups[0]["lr"] = state["factor"]
        self._plateau.load_state_dict(state["plateau"])
