"""Outcomes after an echo, from MIMIC-IV's hosp tables: death and the next admission, as time and event.

MIMIC-IV shifts the dates of each patient by another number of years; only dates of one patient are compared.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.errors import ManifestError
from panecho_embed.core.wording import counted

if TYPE_CHECKING:
    import pandas as pd

FOLLOW_UP_DAYS = 365
"""Days after the last discharge within which MIMIC-IV knows of a death."""

HORIZONS = {"30d": 30, "1y": 365}
"""Name -> days of the yes-or-no outcomes."""

COLUMNS = (
    "death_days",
    "death_event",
    *(f"death_{name}" for name in HORIZONS),
    "admission_days",
    "admission_event",
    *(f"admission_{name}" for name in HORIZONS),
    "age_years",
    "sex",
)

_PATIENTS = ("subject_id", "gender", "anchor_age", "anchor_year", "dod")
_ADMISSIONS = ("subject_id", "hadm_id", "admittime", "dischtime", "deathtime")


def read_outcomes(hosp: Path, studies: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Outcomes of each study (columns `COLUMNS`, index of `studies`), and notes.

    Times are in days from the day of the study. Death: the earlier of dod and deathtime; whoever has neither is
    censored at the last discharge + 1 year, because MIMIC-IV records no later death. Admission: the first whose
    admittime is after the study; censored at death or at the same end of follow-up. Yes or no (1, 0) at 30 days and at
    1 year: missing where follow-up ends before. Without an admission there is no follow-up, and both are missing
    unless the patient died.

    Parameters
    ----------
    hosp : Path
        Folder with patients.csv and admissions.csv, compressed (.gz) or not.
    studies : DataFrame
        subject_id (str) and study_datetime (datetime64).

    Returns
    -------
    DataFrame, tuple of str

    Raises
    ------
    ManifestError
        For a table that is missing, damaged or lacks a column, and if it has none of the patients.
    """
    import pandas as pd

    patients = _read(hosp, "patients", _PATIENTS).drop_duplicates("subject_id").set_index("subject_id")
    admissions = _read(hosp, "admissions", _ADMISSIONS)
    known = studies["subject_id"].isin(patients.index)
    if not known.any():
        raise ManifestError(f"{hosp}: its patients table has none of the {studies['subject_id'].nunique()} patients")
    admissions = admissions[admissions["subject_id"].isin(studies["subject_id"])]
    times = {name: _times(admissions[name]) for name in ("admittime", "dischtime", "deathtime")}
    by_patient = pd.DataFrame({"subject_id": admissions["subject_id"], **times})
    last = by_patient.groupby("subject_id")[["dischtime", "deathtime"]].agg({"dischtime": "max", "deathtime": "min"})
    subject = studies["subject_id"]
    day = studies["study_datetime"].dt.normalize()

    def days(moment: pd.Series) -> pd.Series[float]:
        return pd.Series((moment.dt.normalize() - day).dt.days, dtype="float64")

    dod = days(_times(subject.map(patients["dod"])))
    death = _earlier(dod, days(pd.to_datetime(subject.map(last["deathtime"]))))
    end = days(pd.to_datetime(subject.map(last["dischtime"]))) + FOLLOW_UP_DAYS
    before = death < 0
    admitted = days(_next_admission(studies, by_patient[["subject_id", "admittime"]]))
    found = pd.DataFrame(index=studies.index)
    _add(found, "death", death.mask(before), end.mask(before))
    _add(found, "admission", admitted.mask(before), _earlier(death, end).mask(before))
    age = pd.to_numeric(subject.map(patients["anchor_age"]), errors="coerce")
    years = day.dt.year - pd.to_numeric(subject.map(patients["anchor_year"]), errors="coerce")
    found["age_years"] = age + years
    found["sex"] = subject.map(patients["gender"]).fillna("")
    notes = []
    if strangers := int((~known).sum()):
        notes.append(f"{counted(strangers, 'study')} of patients who are not in {hosp.name}: no outcomes")
    if before.any():
        notes.append(f"{counted(int(before.sum()), 'study')} later than the patient's death: no outcomes")
    without = int((found["death_event"].isna() & known & ~before).sum())
    if without:
        notes.append(
            f"{counted(without, 'study')} without follow-up (no discharge, or more than a year after the last one): "
            "no outcomes"
        )
    return found[list(COLUMNS)], tuple(notes)


def _add(found: pd.DataFrame, name: str, event: pd.Series, end: pd.Series) -> None:
    """Time, event and the yes-or-no columns of an outcome; event, end: days until it, and until follow-up ends."""
    happened = event.notna() & ~(event > end)
    # A death is known by its own date; follow-up need not reach it.
    if name == "death":
        happened = event.notna()
    days = event.where(happened, end)
    days = days.mask(days < 0)
    flag = happened.astype("float64").mask(days.isna())
    found[f"{name}_days"], found[f"{name}_event"] = days, flag
    for horizon, limit in HORIZONS.items():
        yes = (flag == 1) & (days <= limit)
        no = (days > limit) | ((flag == 0) & (days == limit))
        found[f"{name}_{horizon}"] = yes.astype("float64").where(yes | no)


def _earlier(one: pd.Series[float], other: pd.Series[float]) -> pd.Series[float]:
    """The smaller of two columns, or the one that is there."""
    return one.where(~(other < one) & one.notna(), other)


def _next_admission(studies: pd.DataFrame, admissions: pd.DataFrame) -> pd.Series:
    """When the patient of each study was admitted next, NaT if never."""
    import pandas as pd

    left = studies[["subject_id", "study_datetime"]].rename_axis("row").reset_index()
    left = left[left["study_datetime"].notna()].sort_values("study_datetime")
    right = admissions[admissions["admittime"].notna()].sort_values("admittime")
    joined = pd.merge_asof(
        left.astype({"subject_id": str}),
        right.astype({"subject_id": str}),
        left_on="study_datetime",
        right_on="admittime",
        by="subject_id",
        direction="forward",
        allow_exact_matches=False,
    )
    return joined.set_index("row")["admittime"].reindex(studies.index)


def _times(column: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(column.replace("", None), errors="coerce", format="mixed").astype("datetime64[ns]")


def check_hosp(hosp: Path) -> None:
    """Raise ManifestError unless a folder has the tables that outcomes need."""
    for name in ("patients", "admissions"):
        _located(hosp, name)


def _located(hosp: Path, name: str) -> Path:
    path = next((path for suffix in (".csv.gz", ".csv") if (path := hosp / f"{name}{suffix}").is_file()), None)
    if path is None:
        raise ManifestError(f"{hosp}: no {name}.csv.gz; outcomes need MIMIC-IV's hosp folder (--hosp)")
    return path


def _read(hosp: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    path = _located(hosp, name)
    try:
        table = pd.read_csv(path, dtype=str, na_filter=False, usecols=lambda column: column in columns)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise ManifestError(f"{path}: the table is cut or damaged: {error}") from error
    except OSError as error:
        raise ManifestError(f"{path}: it can't be read: {error.strerror or error} (--hosp)") from error
    if missing := [column for column in columns if column not in table.columns]:
        raise ManifestError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(columns)}")
    return table
