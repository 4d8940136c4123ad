"""How far a training is, in plain values that a checkpoint can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from panecho_embed.finetune.history import Row
from panecho_embed.records import Failure


@dataclass(slots=True)
class Progress:
    """How far a training is.

    epoch: the running one, from 1; step: how many of its steps are done; steps_done: of all epochs. loss_sum,
    loss_count: of the running epoch, over its clips that could be decoded. seconds: spent before this process began.
    best: the best monitored value, of epoch best_epoch; waited: epochs since. failures: videos that can't be decoded,
    by id. left_out: ids of those known when the running epoch began, which its steps do without.
    """

    epoch: int = 1
    step: int = 0
    steps_done: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    best: float = math.nan
    best_epoch: int = 0
    waited: int = 0
    history: list[Row] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def epoch_ended(self, row: Row, monitored: float, *, higher_is_better: bool) -> bool:
        """Take an epoch's numbers in and turn to the next one; returns whether it was the best so far."""
        better = math.isnan(self.best) or (monitored > self.best if higher_is_better else monitored < self.best)
        if better:
            self.best, self.best_epoch, self.waited = monitored, self.epoch, 0
        else:
            self.waited += 1
        self.history.append(row | {"best": float(better)})
        self.epoch, self.step, self.loss_sum, self.loss_count = self.epoch + 1, 0, 0.0, 0
        self.left_out = sorted(self.failures)
        return better

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Read what `state` gave."""
        failures = {name: Failure(**fields) for name, fields in state["failures"].items()}
        return cls(**{**state, "failures": failures})
