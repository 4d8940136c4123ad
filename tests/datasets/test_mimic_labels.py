"""Which report a study is given, what the LVEF rules say, and what happened after it."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.datasets.mimic_labels import (
    LVEF_RULES,
    check_rules,
    lvef,
    match,
    measured_labels,
    read_studies,
)
from panecho_embed.datasets.mimic_measurements import Measurements, grades, quantities
from panecho_embed.datasets.mimic_outcomes import read_outcomes

NAN = np.nan


def numbers(n=1, **known):
    return {one.name: np.array(known.get(one.name, [NAN] * n), dtype=float) for one in quantities()}


def reports(*rows: tuple[str, str, str, str], **known) -> Measurements:
    """Rows of measurement_id, subject_id, time, test_type."""
    ids, subjects, times, types = (np.array(column) for column in zip(*rows, strict=True))
    grade = {name: np.full(len(rows), -1, dtype=np.int8) for name in grades()}
    return Measurements(ids, subjects, types, times.astype("datetime64[s]"), numbers(len(rows), **known), grade)


def study_list(*rows: tuple[str, ...]) -> pd.DataFrame:
    names = ("study_id", "subject_id", "study_datetime", "measurement_id")[: len(rows[0])]
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    return frame.assign(study_datetime=pd.to_datetime(frame["study_datetime"], format="mixed").astype("datetime64[ns]"))


@pytest.mark.parametrize(
    ("known", "measured", "reported", "teichholz"),
    [
        ({"lvef": [55], "lvef_upper": [60]}, 57.5, 55, NAN),
        ({"lvef": [55]}, 55, 55, NAN),
        ({"lvef": [55], "lvef_upper": [100]}, 55, 55, NAN),
        ({"lvef": [55], "lvef_upper": [85]}, 70, 55, NAN),
        ({"lvef": [55], "lvef_upper": [50]}, 55, 55, NAN),
        ({"lvef_upper": [60]}, NAN, 60, NAN),
        ({"lvef_upper": [100]}, NAN, NAN, NAN),
        ({"lvef": [55], "biplane_lvef": [48], "lvef_3d": [50]}, 48, 55, NAN),
        ({"biplane_lvef": [99], "lvef_3d": [50]}, 50, 50, NAN),
        ({"rest_lvef": [40], "stress_lvef": [60]}, NAN, 40, NAN),
        # 7 / 7.4 * 125 = 118.24 and 7 / 5.4 * 27 = 35 mL
        ({"lvedd": [5], "lvesd": [3]}, NAN, NAN, 100 * (1 - 35 / (7 / 7.4 * 125))),
        ({"lvedd": [3], "lvesd": [5]}, NAN, NAN, NAN),
    ],
)
def test_the_three_rules_of_the_ejection_fraction(known, measured, reported, teichholz):
    found = {rule: lvef(numbers(**known), rule)[0] for rule in LVEF_RULES}
    expected = {"measured": measured, "reported": reported, "teichholz": teichholz}
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_rule_that_finds_nothing_says_what_the_others_find():
    found = reports(("7", "1", "2150-01-01", "tte"), lvef=[55])
    matched = match(study_list(("10", "1", "2150-01-01", "7")), found)
    with pytest.raises(ArgumentError, match=r"teichholz finds no .* measured 1, reported 1, teichholz 0 \(--lvef\)"):
        measured_labels(matched, found, "teichholz")
    assert measured_labels(matched, found)[0]["lvef"].tolist() == [55]


def test_upper_bounds_that_are_none_are_counted():
    rows = [(str(i), "1", "2150-01-01", "tte") for i in range(5)]
    found = reports(*rows, lvef=[55, 55, 55, NAN, 55], lvef_upper=[100, 60, 50, 100, NAN])
    matched = match(study_list(*((f"1{i}", "1", "2150-01-01", str(i)) for i in range(5))), found)
    labels, notes = measured_labels(matched, found)
    assert labels["lvef"].tolist() == pytest.approx([55, 57.5, 55, NAN, 55], nan_ok=True)
    assert labels["lvef_upper"].tolist() == pytest.approx([100, 60, 50, 100, NAN], nan_ok=True)
    assert notes == ("2 studies have an lvef_upper above 85 % or below lvef: not used as a bound",)
    assert measured_labels(matched, found, "reported")[1] == ()


def test_an_empty_measurement_id_names_no_report():
    found = reports(("", "1", "2150-01-01", "tte"), ("7", "1", "2150-01-01", "tte"))
    matched = match(study_list(("10", "1", "2150-01-01", ""), ("11", "1", "2150-01-01", "7")), found)
    assert matched.row.tolist() == [-1, 1]
    assert matched.studies["measurement_id"].tolist() == ["", "7"]


@pytest.mark.parametrize(("rule", "window"), [("biplane", 2), ("measured", 0), ("measured", NAN)])
def test_rules_are_checked(rule, window):
    with pytest.raises(ArgumentError, match=r"--lvef|--window"):
        check_rules(rule, window)


def test_a_list_of_version_1_0_names_the_report_and_the_window_holds():
    found = reports(("7", "1", "2150-01-03T00", "tte"), ("8", "2", "2150-01-02T12", "stress"))
    studies = study_list(
        ("10", "1", "2150-01-01", "7.0"), ("11", "2", "2150-01-01", "8"), ("12", "2", "2150-01-01", ""),
        ("13", "2", "2150-01-01", "99"),
    )  # fmt: skip
    matched = match(studies, found)
    assert matched.row.tolist() == [0, 1, -1, -1]
    assert matched.studies["hours"].tolist() == pytest.approx([48, 36, NAN, NAN], nan_ok=True)
    assert matched.studies["test_type"].tolist() == ["tte", "stress", "", ""]
    assert matched.notes == (
        "WARNING: 1 of 3 studies with a measurement_id that the table of measurements does not have; "
        "is the table whole?",
    )
    assert match(studies, found, 1.5).row.tolist() == [-1, 1, -1, -1]
    with pytest.raises(ManifestError, match=r"none of the 4 studies .* within 1 days \(--window\)"):
        match(studies, found, 1)


def test_a_list_of_version_0_1_takes_the_nearest_transthoracic_report_of_the_patient():
    found = reports(
        ("1", "1", "2150-01-02", "tte"),
        ("2", "1", "2150-01-01T06", "tee"),
        ("3", "1", "2149-12-31", "tte"),
        ("4", "2", "2150-01-01", "tte"),
        ("5", "3", "2150-01-09", "tte"),
    )
    studies = study_list(
        ("10", "1", "2150-01-01"), ("11", "1", "2150-01-01T06"), ("12", "3", "2150-01-01"), ("13", "9", "2150-01-01")
    )
    assert match(studies, found).row.tolist() == [2, 0, -1, -1]


def test_the_report_of_another_patient_is_an_error():
    found = reports(("7", "1", "2150-01-01", "tte"))
    with pytest.raises(ManifestError, match="1 study with the measurements of another patient: 10"):
        match(study_list(("10", "2", "2150-01-01", "7")), found)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["1,10,2150-01-01", "1,10,2150-01-02"], "line 3: study_id 10 stands in an earlier line"),
        (["1,10,never"], "line 2: subject_id, study_id or study_datetime"),
        ([",10,2150-01-01"], "line 2: subject_id"),
    ],
)
def test_a_list_of_studies_that_can_not_be_trusted_is_an_error(tmp_path, lines, why):
    (tmp_path / "echo-study-list.csv").write_text("\n".join(["subject_id,study_id,study_datetime", *lines]) + "\n")
    with pytest.raises(ManifestError, match=why):
        read_studies(tmp_path)


PATIENTS = """subject_id,gender,anchor_age,anchor_year,dod
1,F,60,2149,2150-01-31
2,M,91,2150,
3,F,50,2150,2150-06-01
4,M,40,2150,
5,F,30,2150,2149-01-01
"""
ADMISSIONS = """subject_id,hadm_id,admittime,dischtime,deathtime
1,20,2149-12-30 08:00:00,2150-01-05 08:00:00,
2,21,2149-12-30 08:00:00,2150-01-05 08:00:00,
2,22,2150-01-20 08:00:00,2150-01-25 08:00:00,
3,23,2150-05-20 08:00:00,2150-05-31 08:00:00,2150-05-31 07:00:00
"""
# Days from 2150-01-01 to the last discharge + 365.
END_OF_2 = 24 + 365


@pytest.fixture
def hosp(tmp_path):
    (tmp_path / "patients.csv").write_text(PATIENTS)
    (tmp_path / "admissions.csv").write_text(ADMISSIONS)
    return tmp_path


def test_outcomes_have_a_time_an_event_and_yes_or_no(hosp):
    studies = study_list(*((str(10 + i), str(i), "2150-01-01 10:00:00") for i in (1, 2, 3, 4, 5, 6)))
    found, notes = read_outcomes(hosp, studies)
    expected = {
        # dod; alive and censored; deathtime a day before dod; no admission, so no follow-up; before the study; unknown
        "death_days": [30, END_OF_2, 150, NAN, NAN, NAN],
        "death_event": [1, 0, 1, NAN, NAN, NAN],
        "death_30d": [1, 0, 0, NAN, NAN, NAN],
        "death_1y": [1, 0, 1, NAN, NAN, NAN],
        # patient 1 died on day 30 without one: not known at 1 year
        "admission_days": [30, 19, 139, NAN, NAN, NAN],
        "admission_event": [0, 1, 1, NAN, NAN, NAN],
        "admission_30d": [0, 1, 0, NAN, NAN, NAN],
        "admission_1y": [NAN, 1, 1, NAN, NAN, NAN],
        "age_years": [61, 91, 50, 40, 30, NAN],
    }
    for name, values in expected.items():
        assert found[name].astype(float).tolist() == pytest.approx(values, nan_ok=True), name
    assert found["sex"].tolist() == ["F", "M", "F", "M", "F", ""]
    assert [note.split()[:2] for note in notes] == [["1", "study"]] * 3


def test_an_outcome_is_not_known_beyond_follow_up(hosp):
    # A year after the last discharge is 2151-01-25.
    studies = study_list(("12", "2", "2151-01-05"), ("13", "2", "2151-02-01"))
    found, _ = read_outcomes(hosp, studies)
    assert found["death_days"].tolist() == pytest.approx([20, NAN], nan_ok=True)
    assert found["death_event"].tolist() == pytest.approx([0, NAN], nan_ok=True)
    assert found["death_30d"].isna().all()
    assert found["death_1y"].isna().all()


def test_hosp_tables_that_are_missing_cut_or_of_others_are_errors(hosp):
    studies = study_list(("10", "1", "2150-01-01"))
    with pytest.raises(ManifestError, match="none of the 1 patients"):
        read_outcomes(hosp, study_list(("10", "77", "2150-01-01")))
    (hosp / "admissions.csv").write_text("subject_id,hadm_id\n1,2\n")
    with pytest.raises(ManifestError, match="no column admittime, dischtime, deathtime"):
        read_outcomes(hosp, studies)
    (hosp / "admissions.csv.gz").write_bytes(gzip.compress(ADMISSIONS.encode())[:-30])
    with pytest.raises(ManifestError, match=r"admissions.csv.gz: the table is cut or damaged"):
        read_outcomes(hosp, studies)
    (hosp / "admissions.csv.gz").unlink()
    (hosp / "admissions.csv").unlink()
    with pytest.raises(ManifestError, match=r"no admissions.csv.gz; .*\(--hosp\)"):
        read_outcomes(hosp, studies)
