"""How many labels are needed: a probe trained on few patients, drawn again and again, tested on the same patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from panecho_embed.evaluation.splits import Draw, Size

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class LabelEfficiency:
    """metric: the task's primary one. unit: "fraction" of training patients, or "shots" (per class, or patients).

    sizes: (S,). values: (S, R) of the metric in each repeat. n_patients: (S,) trained on, mean over folds and repeats.
    """

    target: str
    metric: str
    unit: Size
    sizes: tuple[float, ...]
    values: npt.NDArray[np.float64]
    n_patients: npt.NDArray[np.float64]
    draws: tuple[Draw, ...]

    @property
    def caption(self) -> str:
        """What is seen in the curve and its table."""
        return f"Label efficiency: mean of {self.values.shape[1]} draws, and the range of 95 % of them."

    def band(self) -> pd.DataFrame:
        """Mean over the repeats, and the range that 95 % of them lie in, one row a size."""
        import pandas as pd

        low, high = np.percentile(self.values, [2.5, 97.5], axis=1)
        columns = {"target": self.target, "metric": self.metric, self.unit: self.sizes, "n_patients": self.n_patients}
        return pd.DataFrame(columns | {"mean": self.values.mean(axis=1), "low": low, "high": high})
