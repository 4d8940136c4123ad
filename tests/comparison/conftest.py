"""The phantom data sets and narrow weights files of the fine-tuning tests."""

from __future__ import annotations

from tests.finetune.conftest import dynamic, lvh, pediatric, starts, table, weights

__all__ = ["dynamic", "lvh", "pediatric", "starts", "table", "weights"]
