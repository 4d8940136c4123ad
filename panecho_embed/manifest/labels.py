"""Columns of text -> labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError

if TYPE_CHECKING:
    import pandas as pd

# "None" is a class of several reporting tasks, so it is no missing value.
_MISSING = frozenset({"", "na", "n/a", "nan", "null"})


def label_columns(frame: pd.DataFrame, without: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Every other column as a label: float64 with NaN if all its values are numbers, else str objects."""
    return {str(name): parse_label(frame[name]) for name in frame.columns if name not in without}


def parse_label(column: pd.Series[str]) -> npt.NDArray[Any]:
    """A column of text as float64 (NaN where missing) if every value is a number, else as str objects."""
    import pandas as pd

    missing = column.str.lower().isin(_MISSING)
    numbers = pd.to_numeric(column.where(~missing, None), errors="coerce")
    if bool((numbers.notna() | missing).all()):
        return numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    text: npt.NDArray[Any] = column.where(~missing, "").to_numpy(dtype=object)
    return text


def parse_number(name: str, text: str) -> float | None:
    """The number in a cell of the column `name`: None if it is empty; ArgumentError if it is no number."""
    if text.lower() in _MISSING:
        return None
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"{name} is {text!r}; it must be a number, or empty") from None
