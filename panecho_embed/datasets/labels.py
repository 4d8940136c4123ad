"""Columns of text -> labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.errors import ArgumentError, ManifestError

if TYPE_CHECKING:
    import pandas as pd

# "None" is a class of several reporting tasks, so it is no missing value.
_MISSING = frozenset({"", "-", ".", "na", "n/a", "nan", "null"})
# A column with this many numbers is one of numbers, and its other cells are mistakes.
_NUMERIC_SHARE = 0.9
# A number that no program may guess: a bound (<40), thousands or a decimal comma (1,234.5), a percentage.
_ALMOST_A_NUMBER = re.compile(r"[<>≤≥=~±]*\s*[+-]?\d[\d.,' ]*%?")
_LISTED = 5

# Columns of these names say whose it is; they are nobody's label. Letters only, in lower case.
_IDENTIFYING = frozenset(
    [
        "patientname",
        "patientid",
        "otherpatientids",
        "issuerofpatientid",
        "patientbirthdate",
        "patientbirthtime",
        "patientbirthname",
        "patientmothersbirthname",
        "patientaddress",
        "patienttelephonenumbers",
        "birthdate",
        "dateofbirth",
        "dob",
        "mrn",
        "ssn",
        "surname",
        "lastname",
        "firstname",
        "accessionnumber",
        "studyid",
        "studyinstanceuid",
        "seriesinstanceuid",
        "sopinstanceuid",
        "stationname",
        "referringphysicianname",
        "performingphysicianname",
        "operatorsname",
        "requestingphysician",
        "institutionname",
        "institutionaddress",
    ]
)


def label_columns(
    frame: pd.DataFrame, without: Sequence[str], path: Path
) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """Every other column as a label: float64 with NaN if all its values are numbers, else str objects.

    Columns that identify people (PatientName, AccessionNumber, MRN, ...) are excluded, with a note. path: the table,
    for messages; the frame's index holds its lines. The second value has a note for every column of text in which
    numbers stand. Raises ManifestError, naming the cells, for a column of numbers (at least 90 % of its filled cells,
    or all but some like "<40" and "1,234.5") in which others stand.
    """
    labels, notes, problems = {}, [], []
    telling = [name for name in frame.columns if name not in without and _is_identifying(name)]
    if telling:
        notes.append(f"{', '.join(telling)} say whose a row is, and are left out of the labels")
    for name in frame.columns:
        if name in without or name in telling:
            continue
        labels[str(name)] = column = parse_label(frame[name])
        if column.dtype.kind == "f":
            continue
        filled = frame[name][column != ""]
        number = _numbers(filled).notna()
        others, cells = filled[~number], ""
        if number.any():
            some = (f"line {line}: {cell!r}" for line, cell in list(others.items())[:_LISTED])
            cells = f"{', '.join(some)}{', ...' if len(others) > _LISTED else ''}"
        if number.any() and (
            number.mean() >= _NUMERIC_SHARE or all(_ALMOST_A_NUMBER.fullmatch(cell) for cell in others)
        ):
            problems.append(f"column {name}: {len(others)} of {len(filled)} cells are no numbers ({cells})")
        elif number.any():
            notes.append(
                f"column {name} is read as text: {len(others)} of {len(filled)} cells are no numbers ({cells})"
            )
    if problems:
        raise ManifestError(
            f"{path}: numbers and other text in one column:\n  " + "\n  ".join(problems) + "\n"
            "Write plain numbers (1234.5), leave the cell empty where nothing was measured, or remove the column"
        )
    return labels, notes


def _is_identifying(name: str) -> bool:
    # StudyID is DICOM's; study_id is the column of this package.
    return re.sub("[^a-z]", "", name.lower()) in _IDENTIFYING and name not in ("study_id", "patient_id")


def parse_label(column: pd.Series[str]) -> npt.NDArray[Any]:
    """A column of text as float64 (NaN where missing) if every value is a number, else as str objects."""
    missing = column.str.lower().isin(_MISSING)
    numbers = _numbers(column.where(~missing, None))
    if bool((numbers.notna() | missing).all()):
        return numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    text: npt.NDArray[Any] = column.where(~missing, "").to_numpy(dtype=object)
    return text


def parse_number(name: str, text: str) -> float | None:
    """The number in a cell of the column `name`: None if it is empty; ArgumentError if it is not a number."""
    if text.lower() in _MISSING:
        return None
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"{name} is {text!r}; it must be a number, or empty") from None


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    return pd.to_numeric(column, errors="coerce")
