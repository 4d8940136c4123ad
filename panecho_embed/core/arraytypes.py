"""Types of NumPy arrays, each under one name."""

from __future__ import annotations

from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.floating[Any]]
"""Floats of any size."""
Texts = npt.NDArray[np.object_]
UInt8Array = npt.NDArray[np.uint8]

DAMAGED_HEADER = (ValueError, SyntaxError, TokenError)
"""What NumPy raises on the header of a damaged .npy file, a piece of Python source."""
