"""Labels of MIMIC-IV-ECHO: the measurements and outcomes of each study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.wording import counted
from panecho_embed.datasets.mimic_measurements import Measurements, grades, quantities
from panecho_embed.datasets.reading import raise_problems, read_table, require_columns

if TYPE_CHECKING:
    import pandas as pd

LvefRule = Literal["measured", "reported", "teichholz"]
LVEF_RULES: tuple[LvefRule, ...] = get_args(LvefRule)

STUDY_LIST = "echo-study-list.csv"
WINDOW_DAYS = 2.0
"""Days between a study and its measurements, before or after: the rule of the set's own list."""

_PLAUSIBLE_LVEF = (10.0, 85.0)
_REPORTED = ("lvef", "biplane_lvef", "rest_lvef", "rest_biplane_lvef", "lvef_3d", "lvef_upper")
_FIRST_SHOWN = 5


def lvef(numbers: Mapping[str, Floats], rule: LvefRule) -> Floats:
    """The ejection fraction in percent, NaN where the rule finds none between 10 and 85 %.

    Parameters
    ----------
    numbers : mapping of str to (N,) float64
        See `Measurements`.
    rule : {"measured", "reported", "teichholz"}
        measured: biplane, else 3-D, else the midpoint of lvef and lvef_upper (lvef itself where there is no upper
        bound; one above 85 % or below lvef is none). reported: the first of lvef (a lower bound where there is an upper
        one), biplane, at rest, at rest by biplane, 3-D, lvef_upper. teichholz: by the volumes 7 / (2.4 + D) D^3 of the
        diameters D (cm) at end-diastole and end-systole (Teichholz et al., American Journal of Cardiology 1976).
    """
    if rule == "teichholz":
        volume = {name: 7 / (2.4 + numbers[name]) * numbers[name] ** 3 for name in ("lvedd", "lvesd")}
        with np.errstate(divide="ignore", invalid="ignore"):
            candidates = [100 * (volume["lvedd"] - volume["lvesd"]) / volume["lvedd"]]
    elif rule == "measured":
        upper = np.where(_is_bound(numbers), numbers["lvef_upper"], numbers["lvef"])
        candidates = [numbers["biplane_lvef"], numbers["lvef_3d"], (numbers["lvef"] + upper) / 2]
    else:
        candidates = [numbers[name] for name in _REPORTED]
    low, high = _PLAUSIBLE_LVEF
    found = np.full(len(candidates[0]), np.nan)
    for candidate in candidates:
        found = np.where(np.isnan(found) & (candidate >= low) & (candidate <= high), candidate, found)
    return found


def _is_bound(numbers: Mapping[str, Floats]) -> npt.NDArray[np.bool_]:
    """Whether lvef_upper bounds lvef: most of the set's implausible ones are 100, which would shift the midpoint."""
    upper = numbers["lvef_upper"]
    return (upper >= numbers["lvef"]) & (upper <= _PLAUSIBLE_LVEF[1])


def check_rules(rule: str, window_days: float) -> None:
    """Raise ArgumentError for an LVEF rule that is not known, or a window that is not above 0 days."""
    if rule not in LVEF_RULES:
        raise ArgumentError(f"the LVEF rule is {rule!r}; allowed are {', '.join(LVEF_RULES)} (--lvef)")
    if not window_days > 0:
        raise ArgumentError(f"the window is {window_days} days; it must be above 0 (--window)")


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Which report each study takes its measurements from.

    studies: study_id, subject_id, study_datetime, and measurement_id, measurement_datetime, test_type and hours (from
    the study to the report), empty where there is none; sorted by study_id. row: (N,) row of `Measurements`, -1 where
    there is none.
    """

    studies: pd.DataFrame
    row: Any
    notes: tuple[str, ...] = ()


def read_studies(root: Path) -> pd.DataFrame:
    """The list of studies of the set at `root`, sorted by study_id; measurement_id only in a list of version 1.0.

    Raises ManifestError if it is missing, and for lines with an empty, repeated or unreadable value.
    """
    path = root / STUDY_LIST
    if not path.is_file():
        raise ManifestError(
            f"{root}: no {STUDY_LIST}, which says whose studies there are; download it into this folder"
        )
    import pandas as pd

    table = read_table(path)
    require_columns(table, ["subject_id", "study_id", "study_datetime"])
    frame = table.frame.copy()
    problems = dict(table.problems)
    frame["study_datetime"] = pd.to_datetime(frame["study_datetime"], errors="coerce", format="mixed")
    for line, row in frame.iterrows():
        if not row["subject_id"] or not row["study_id"] or pd.isna(row["study_datetime"]):
            problems.setdefault(int(str(line)), "subject_id, study_id or study_datetime is empty or can't be read")
    for line in frame.index[frame["study_id"].duplicated()]:
        problems.setdefault(int(line), f"study_id {frame.loc[line, 'study_id']} stands in an earlier line already")
    raise_problems(path, [f"line {line}: {text}" for line, text in sorted(problems.items())])
    frame["study_datetime"] = frame["study_datetime"].astype("datetime64[ns]")
    kept = [name for name in ("study_id", "subject_id", "study_datetime", "measurement_id") if name in frame.columns]
    return frame[kept].sort_values("study_id", ignore_index=True)


def match(studies: pd.DataFrame, found: Measurements, window_days: float = WINDOW_DAYS) -> Matched:
    """Find the report of each study.

    It is the one whose measurement_id the list of studies names; a list without that column (version 0.1) is given the
    transthoracic report of the patient that is nearest in time. None is taken beyond the window.

    Raises
    ------
    ManifestError
        If a study names the report of another patient, or no study finds one.
    """
    import pandas as pd

    index = pd.Index(found.measurement_id)
    notes = []
    if "measurement_id" in studies.columns:
        # A list that a data frame wrote has 123.0 for 123 where others are empty.
        named = studies["measurement_id"].str.removesuffix(".0")
        row = np.where(named == "", -1, index.get_indexer(pd.Index(named)))
        lost = int(((row < 0) & (named != "")).sum())
        if lost:
            notes.append(
                f"WARNING: {lost} of {int((named != '').sum())} studies with a measurement_id that the table of "
                "measurements does not have; is the table whole?"
            )
        others = (row >= 0) & (found.subject_id[row] != studies["subject_id"].to_numpy())
        if others.any():
            some = ", ".join(studies["study_id"][others].head(_FIRST_SHOWN))
            raise ManifestError(
                f"{counted(int(others.sum()), 'study')} with the measurements of another patient: {some}; the list of "
                "studies and the table of measurements are not of one release"
            )
    else:
        row = _nearest(studies, found)
    hours = np.where(row >= 0, _hours(studies, found, row), np.nan)
    far = np.abs(hours) > 24 * window_days
    if far.any():
        notes.append(
            f"{counted(int(far.sum()), 'study')} with measurements more than {window_days:g} days away: not used"
        )
    unknown = (row >= 0) & np.isnan(hours)
    if unknown.any():
        notes.append(f"{counted(int(unknown.sum()), 'report')} without a readable measurement_datetime: not used")
    row = np.where(far | unknown, -1, row)
    if not (row >= 0).any():
        raise ManifestError(
            f"none of the {len(studies)} studies finds its measurements within {window_days:g} days (--window); "
            "the tables are of other patients, or of other releases"
        )
    there = row >= 0
    about = studies.drop(columns="measurement_id", errors="ignore").assign(
        measurement_id=np.where(there, found.measurement_id[row], ""),
        measurement_datetime=pd.Series(found.time[row].astype("datetime64[ns]")).where(there),
        test_type=np.where(there, found.test_type[row], ""),
        hours=np.round(np.where(there, hours, np.nan), 2),
    )
    return Matched(about, row, tuple(notes))


def _hours(studies: pd.DataFrame, found: Measurements, row: Any) -> Floats:
    import pandas as pd

    difference = pd.Series(found.time[row].astype("datetime64[ns]")) - studies["study_datetime"]
    return np.asarray(difference.dt.total_seconds().to_numpy() / 3600, dtype=np.float64)


def _nearest(studies: pd.DataFrame, found: Measurements) -> Any:
    """The transthoracic report of the same patient nearest to each study, the earlier of two; -1 for none."""
    import pandas as pd

    usable = np.flatnonzero((np.char.lower(found.test_type) == "tte") & ~np.isnat(found.time))
    time = found.time[usable].astype("datetime64[ns]")
    right = pd.DataFrame({"subject_id": found.subject_id[usable], "time": time, "row": usable})
    right = right.sort_values(["time", "row"]).astype({"subject_id": str})
    left = studies[["subject_id", "study_datetime"]].rename_axis("study").reset_index()
    left = left.sort_values("study_datetime").astype({"subject_id": str})
    sides = [
        pd.merge_asof(left, right, left_on="study_datetime", right_on="time", by="subject_id", direction=direction)
        .set_index("study")
        .reindex(studies.index)
        for direction in ("backward", "forward")
    ]
    before, after = ((side["time"] - studies["study_datetime"]).abs() for side in sides)
    take_after = before.isna() | (after < before)
    chosen = sides[1]["row"].where(take_after, sides[0]["row"])
    return chosen.fillna(-1).to_numpy(dtype=np.int64)


def measured_labels(
    matched: Matched, found: Measurements, rule: LvefRule = "measured"
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The measurements of each study as columns, and notes.

    Columns: lvef by the rule, numbers in their units, grades as text. The set's own lvef becomes lvef_reported.
    Raises ArgumentError if the rule finds no ejection fraction.
    """
    import pandas as pd

    there = matched.row >= 0
    numbers = {one.name: np.where(there, found.numbers[one.name][matched.row], np.nan) for one in quantities()}
    by_rule = {name: lvef(numbers, name) for name in LVEF_RULES}
    if np.isnan(by_rule[rule]).all():
        counts = ", ".join(f"{name} {int((~np.isnan(values)).sum())}" for name, values in by_rule.items())
        raise ArgumentError(
            f"the LVEF rule {rule} finds no ejection fraction in {counted(int(there.sum()), 'study')} with "
            f"measurements; the rules find: {counts} (--lvef)"
        )
    both = ~np.isnan(numbers["lvef"]) & ~np.isnan(numbers["lvef_upper"])
    notes: tuple[str, ...] = ()
    if rule == "measured" and (without := int((both & ~_is_bound(numbers)).sum())):
        notes = (
            f"{without} studies have an lvef_upper above {_PLAUSIBLE_LVEF[1]:g} % or below lvef: not used as a bound",
        )
    columns = {"lvef": by_rule[rule], "lvef_reported": numbers.pop("lvef"), **numbers}
    texts = {name: np.where(there, found.graded(name)[matched.row], "") for name in grades()}
    return pd.DataFrame({**columns, **texts}, index=matched.studies.index), notes


def described_columns(labels: pd.DataFrame) -> pd.DataFrame:
    """What each label is: column, unit, grades (the lowest first, as --order takes them), studies with a value."""
    import pandas as pd

    units = {one.name: one.unit for one in quantities()} | {"lvef_reported": "%", "age_years": "years"}
    units |= dict.fromkeys(("death_days", "admission_days"), "days")
    rows = [
        {
            "column": name,
            "unit": units.get(str(name), ""),
            "grades": ",".join(grades().get(str(name), ())),
            "studies": int(((column != "") & column.notna()).sum()),
        }
        for name, column in labels.items()
    ]
    return pd.DataFrame(rows)
