"""How training goes: a row an epoch, as a table, as a figure, and for TensorBoard."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panecho_embed.core.errors import NotInstalledError
from panecho_embed.core.outputs import write_text

try:
    from tensorboardX import SummaryWriter
except ImportError as error:
    raise NotInstalledError("tensorboardX", "finetune") from error

Row = dict[str, float]


def history_text(rows: Sequence[Row]) -> str:
    """The rows as CSV, numbers in full precision, empty where not defined."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if math.isnan(value) else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def write_history(rows: Sequence[Row], folder: Path) -> None:
    """history.csv and history.svg of a run folder. Raises OSError."""
    from panecho_embed.evaluation.plots import history

    write_text(folder / "history.csv", history_text(rows))
    columns = {name: np.array([row[name] for row in rows]) for name in ("epoch", "train_loss", "val_loss")}
    curves = {"training": columns["train_loss"], "validation": columns["val_loss"]}
    drawn = io.StringIO()
    history(columns["epoch"], curves, "loss").savefig(drawn, format="svg")
    write_text(folder / "history.svg", drawn.getvalue())


class Board:
    """Scalars for TensorBoard; from a resumed step on, what stood there is forgotten."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: SummaryWriter = SummaryWriter(str(folder), purge_step=step)

    def step(self, step: int, loss: float, rate: float) -> None:
        """The loss of one step, NaN where no video could be decoded, and its learning rate."""
        if math.isfinite(loss):
            self._writer.add_scalar("step/loss", loss, step)
        self._writer.add_scalar("step/lr", rate, step)

    def epoch(self, row: Row, step: int) -> None:
        """The numbers of an epoch that ended at `step`."""
        for name, value in row.items():
            if name != "epoch" and np.isfinite(value):
                self._writer.add_scalar(f"epoch/{name.replace(':', '/')}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
