"""Synthetic studies in MIMIC-IV-ECHO's tables: lists, the long table of measurements, and MIMIC-IV's hosp tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import get_args

from panecho_embed.phantoms.patients import PhantomPatient, View

_Row = Mapping[str, object]

BLANK = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
)
"""What the headers of a de-identified set do not say."""

_LONG_TABLE = "structured-measurement.csv.gz"


def _subject(patient: PhantomPatient) -> int:
    return 10_000_000 + patient.number


def _study(patient: PhantomPatient) -> int:
    return 90_000_000 + patient.number


def _file(patient: PhantomPatient, number: int) -> str:
    """Path of an object of the patient's study; number 0 is its still."""
    subject, study = _subject(patient), _study(patient)
    return f"files/p{subject // 1_000_000}/p{subject}/s{study}/{study}_{number:04d}.dcm"


def mimic_place(patient: PhantomPatient, view: View, take: int) -> str:
    """Path of one video."""
    return _file(patient, 1 + get_args(View).index(view) + len(get_args(View)) * take)


def still_place(patient: PhantomPatient) -> str:
    """Path of the still of one study."""
    return _file(patient, 0)


def mimic_rows(path: str, patient: PhantomPatient, first: bool) -> list[tuple[str, _Row]]:
    """The line of a video in the record list; with a study's first video, all that the tables say of the study."""
    when = _when(patient)
    ids = {"subject_id": _subject(patient), "study_id": _study(patient)}
    record = ids | {"acquisition_datetime": when.isoformat(" ")}
    lines: list[tuple[str, _Row]] = [("echo-record-list.csv", record | {"dicom_filepath": path})]
    if not first:
        return lines
    report = {"measurement_id": 80_000_000 + patient.number, "measurement_datetime": (when + timedelta(hours=3))}
    lines.append(("echo-record-list.csv", record | {"dicom_filepath": still_place(patient)}))
    lines.append(
        (
            "echo-study-list.csv",
            ids | {"study_datetime": when, "note_id": "", "note_seq": "", "note_charttime": ""} | report,
        )
    )
    about = {"subject_id": ids["subject_id"]} | report | {"test_type": "tte"}
    for name, description, result, unit in _report(patient):
        cells = {"measurement": name, "measurement_description": description, "result": result, "unit": unit}
        lines.append((_LONG_TABLE, about | cells))
    return lines + _hospital(patient, when)


def _when(patient: PhantomPatient) -> datetime:
    return datetime(2110 + patient.number % 80, 1 + patient.number % 12, 1 + patient.number % 28, 10)


def _report(patient: PhantomPatient) -> list[tuple[str, str, str, str]]:
    """Name, description, result and unit: what a sonographer would have measured of this heart."""
    ef = patient.ef_percent
    tapse_cm = 1.2 + ef / 60
    in_mm = patient.number % 3 == 0
    found = [
        ("lvef", "Left Ventricle - Ejection Fraction", f"{5 * int(ef // 5)}", "%"),
        ("lvef_upper", "Left Ventricle - Ejection Fraction Upper", f"{5 * int(ef // 5) + 5}", "%"),
        ("lvedd", "Left Ventricle - End Diastolic Dimension", f"{patient.lvidd_cm:.2f}", "cm"),
        ("lvesd", "Left Ventricle - End Systolic Dimension", f"{patient.lvids_cm:.2f}", "cm"),
        ("septal_thickness", "Left Ventricle - Septal Wall Thickness", f"{patient.septum_cm:.2f}", "cm"),
        (
            "inf_lat_thickness",
            "Left Ventricle - Inferolateral Wall Thickness",
            f"{patient.posterior_wall_cm:.2f}",
            "cm",
        ),
        ("tapse", "Right Ventricle - TAPSE", f"{tapse_cm * (10 if in_mm else 1):.1f}", "cm"),
        ("resting_hr", "Resting Heart Rate", f"{patient.heart_rate_bpm:.0f}", "bpm"),
        ("mitral_regurg", "Mitral Valve - Regurgitation", _regurgitation(ef), ""),
        ("quality", "Technical Quality", "Good", ""),
    ]
    # Of two studies in three, the two report systems give the fraction by biplane, or as bounds only.
    if patient.number % 3:
        found.insert(2, ("biplane_lvef", "Left Ventricle - Biplane Ejection Fraction", f"{ef:.1f}%", "%"))
    return found


def _regurgitation(ef: float) -> str:
    grades = ("Severe (4+)", "Moderate-severe (3+)", "Mod [2+]", "Mild (1+)", "Trivial")
    return grades[min(int((ef - 15) // 12), len(grades) - 1)]


def _hospital(patient: PhantomPatient, when: datetime) -> list[tuple[str, _Row]]:
    """One stay around the study; the weakest hearts die, some of the others come back."""
    died = when + timedelta(days=20 + 4 * patient.number) if patient.ef_percent < 30 else None
    stays = [(when - timedelta(days=1), when + timedelta(days=4))]
    if patient.number % 4 == 0 and died is None:
        stays.append((when + timedelta(days=60), when + timedelta(days=63)))
    who: dict[str, object] = {
        "subject_id": _subject(patient),
        "gender": patient.sex,
        "anchor_age": int(patient.age_years),
    }
    who |= {"anchor_year": when.year, "anchor_year_group": "2017 - 2019", "dod": died.date() if died else ""}
    lines: list[tuple[str, _Row]] = [("hosp/patients.csv.gz", who)]
    for i, (arrived, left) in enumerate(stays):
        stay = {"subject_id": _subject(patient), "hadm_id": 20_000_000 + 10 * patient.number + i}
        lines.append(("hosp/admissions.csv.gz", stay | {"admittime": arrived, "dischtime": left, "deathtime": ""}))
    return lines
