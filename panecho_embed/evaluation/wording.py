"""What metrics are called, and what a reader is warned of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.wording import counted

FEW_PATIENTS = 30  # below, percentile intervals of the bootstrap cover clearly less than they say (docs/statistics.md)
FEW_OF_A_CLASS = 20  # the same of the rarer side (docs/statistics.md)
TOO_NARROW = f"intervals from fewer than {FEW_PATIENTS} patients, or {FEW_OF_A_CLASS} of a class, may be too narrow"


def few_tested(patients: npt.NDArray[Any], truth: npt.NDArray[np.float64], classes: Sequence[str]) -> str:
    """How many patients there are, or how many of the rarest class among them, where too few; else "".

    patients, truth: (N,) id, and value or index in `classes`, of the rows tested. classes: () of a regression.
    """
    who = patients.astype(str)
    count = len(np.unique(who))
    few = counted(count, "patient") if count < FEW_PATIENTS else ""
    if not classes:
        return few
    of_class = {classes[int(i)]: len(np.unique(who[truth == i])) for i in np.unique(truth)}
    rarest, fewest = min(of_class.items(), key=lambda item: item[1])
    if fewest >= FEW_OF_A_CLASS:
        return few
    return f"{few} ({fewest} of class {rarest})" if few else f"{counted(fewest, 'patient')} of class {rarest}"


def caution_of(few: str) -> str:
    """The warning that belongs to what `few_tested` said; "" without one."""
    return f"Only {few} {'was' if few == '1 patient' else 'were'} tested: {TOO_NARROW}." if few else ""
