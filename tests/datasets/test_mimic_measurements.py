"""The long table of measurements: units, grades, what is left out, damage, memory."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys

import numpy as np
import pytest

from panecho_embed.core.errors import ManifestError, StoreError
from panecho_embed.core.outputs import written_run
from panecho_embed.datasets import mimic_measurements
from panecho_embed.datasets.mimic_measurements import Measurements, grades, pivot_measurements

HEADER = "subject_id,measurement_id,measurement_datetime,test_type,measurement,measurement_description,result,unit"
Row = tuple[str, str, str, str]

# What the set's strings mean, written down apart from the package's table.
GRADES = {
    "mitral_regurg": {
        "Physiologic": "trivial",
        "Trivial": "trivial",
        "Mild (1+)": "mild",
        "Mild-moderate (1-2+)": "mild-moderate",
        "Mod [2+]": "moderate",
        "Moderate-severe (3+)": "moderate-severe",
        "Severe (4+)": "severe",
        "Present, can't qualify": "",
    },
    "tricuspid_regurg": {
        "Physiologic": "trivial",
        "Mild [1+]": "mild",
        "Mild-mod [1-2+]": "mild-moderate",
        "Mod [2+]": "moderate",
        "Mod-severe [3+]": "moderate-severe",
        "Severe [4+]": "severe",
    },
    "aortic_regurg": {
        "Trace": "trivial",
        "Trace (NL for prosthesis)": "trivial",
        "Severe [4+]": "severe",
        "Present": "",
    },
    "aortic_stenosis": {
        "None, incr vel high output": "none",
        "Minimal": "minimal",
        "Mild (>1.5cm2)": "mild",
        "Mod (1.0-1.5cm2)": "moderate",
        "Severe (<0.6cm2/m2)": "severe",
        "Low flow/low gradient severe": "severe",
        "Very severe (>5m/s;>60mmHg)": "very severe",
        "Cannot exclude": "",
    },
    "la_size": {
        "Mild LAVI (34-41ml/m2) ": "mild",
        "Severe LAVI(>48ml/m2)": "severe",
        "Sev LAE (PLA >=6.0cm)": "severe",
        "Nl (PLA <4.1cm)": "normal",
        "Not well seen": "",
    },
    "ivc": {
        "<2.2cm, >50% (0-5mmHg)": "0-5 mmHg",
        "IVC<=2.1cm, <50% collapse (5-10mmHg)": "5-10 mmHg",
        ">2.1cm, >50% (10-15mmHg)": "10-15 mmHg",
        ">2.1cm, <50% (>15mmHg)": "above 15 mmHg",
        "NL IVC <2.2 cmd": "",
    },
    "rv_function": {"Severe global hypo": "severely reduced", "Basal RV hypo (McConnell's sign)": ""},
    "lv_wall_thickness": {"Severe symmetric (>1.7cm)": "severe"},
    "phtn_severity": {"Severe (TR >60mmHg)": "severe"},
    "pericardial_effusion": {"Very small (<0.5cm)": "very small", "Large (>2.0cm)": "large"},
}


def line(
    report: str, name: str, result: str, unit: str, subject="1", time="2150-01-02 03:04:05", test_type="tte"
) -> str:
    cells = (subject, report, time, test_type, name, "Some - Thing", result, unit)
    return ",".join(f'"{cell}"' if "," in cell else cell for cell in cells)


def long_table(path, rows: list[Row], end="\n"):
    text = "\n".join([HEADER, *(line(*row) for row in rows)]) + end
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "result", "unit", "value"),
    [
        ("tapse", "1.8", "cm", 1.8),
        ("tapse", "18", "cm", 1.8),
        ("tapse", "18", "mm", 1.8),
        ("tapse", "18", "", 1.8),
        ("tapse", "22", "furlong", np.nan),
        ("tapse", "4.5", "cm", np.nan),  # between the two: neither cm nor mm of a heart
        ("lvedd", "47", "mm", 4.7),
        ("lvedd", "4.7", "", 4.7),
        ("av_pk_vel", "120", "cm/sec", 1.2),
        ("av_mean_grad", "40", "mm Hg", 40),
        ("lvef", "63%", "%", 63),
        ("biplane_lvef", " 63.5 % ", "", 63.5),
        ("mv_e_decel", "0.2", "s", 200),
        ("mv_peak_e", "0.8", "", np.nan),  # m/s or cm/s? The row does not say.
        ("septal_thickness", "11", "mm", 1.1),
        ("septal_thickness", "5", "cm", np.nan),
        ("lvedd", "48", "cm", np.nan),
        ("lvedd", "4.8", "mm", np.nan),
        ("inf_lat_thickness", "11", "", np.nan),
        ("ivc_diam", "12", "", np.nan),
        ("lvot_diam", "20", "cm", np.nan),
        ("tr_velocity", "280", "", np.nan),
        ("tr_velocity", "280", "cm/s", 2.8),
        ("av_pk_vel", "250", "", np.nan),
        ("av_pk_vel", "6.1", "m/s", 6.1),
        ("mv_peak_e", "80", "m/s", np.nan),
        ("sept_e_prime", "7", "m/s", np.nan),
        ("lat_e_prime", "7", "cm/s", 0.07),
        ("lvef", ">70", "%", np.nan),
        ("la_vol", "50", "furlong", np.nan),
    ],
)
def test_a_number_is_in_the_unit_of_its_column(tmp_path, name, result, unit, value):
    found = pivot_measurements(long_table(tmp_path / "long.csv", [("7", name, result, unit)]))
    assert found.numbers[name].tolist() == [pytest.approx(value, nan_ok=True)]
    assert bool(found.notes) == np.isnan(value)
    assert found.measurement_id.tolist() == ["7"]
    assert found.time.tolist() == [np.datetime64("2150-01-02T03:04:05").astype(object)]


@pytest.mark.parametrize("name", GRADES)
def test_a_result_has_the_grade_that_its_own_words_say(tmp_path, name):
    rows = [(f"{i:03d}", name, result, "") for i, result in enumerate(GRADES[name])]
    found = pivot_measurements(long_table(tmp_path / "long.csv", rows))
    assert found.graded(name).tolist() == list(GRADES[name].values())
    assert found.notes == ()


def test_grades_are_ordered():
    assert grades()["mitral_regurg"] == ("trivial", "mild", "mild-moderate", "moderate", "moderate-severe", "severe")
    assert grades()["aortic_stenosis"] == ("none", "minimal", "mild", "moderate", "severe", "very severe")
    assert grades()["ivc"] == ("0-5 mmHg", "5-10 mmHg", "10-15 mmHg", "above 15 mmHg")


def test_another_valves_spelling_is_not_guessed_but_named(tmp_path):
    rows = [("1", "mitral_regurg", "Mild [1+]", ""), ("1", "lvef", "<40", "%"), ("2", "la_vol", "9", "oz")]
    found = pivot_measurements(long_table(tmp_path / "long.csv", rows))
    assert found.graded("mitral_regurg").tolist() == ["", ""]
    assert sorted(found.notes) == [
        "1 row of la_vol skipped: the unit 'oz' is not known",
        "1 row of lvef skipped: the result '<40' can't be read",
        "1 row of mitral_regurg skipped: the result 'Mild [1+]' can't be read",
    ]


def test_several_values_of_a_report_become_their_mean_and_their_highest_grade(tmp_path):
    rows = [("1", "lvedd", "4", "cm"), ("1", "lvedd", "50", "mm"), ("1", "tricuspid_regurg", "Severe [4+]", "")]
    rows.append(("1", "tricuspid_regurg", "Mild [1+]", ""))
    found = pivot_measurements(long_table(tmp_path / "long.csv", rows))
    assert found.numbers["lvedd"].tolist() == [4.5]
    assert found.graded("tricuspid_regurg").tolist() == ["severe"]


def many_rows() -> list[Row]:
    chance = random.Random(0)
    names = ["lvef", "tapse", "lvedd", "something_else"]
    rows = [(str(80 + i % 37), names[i % 4], f"{chance.uniform(1, 3):.2f}", "") for i in range(400)]
    return [*rows, *((str(80 + i), "mitral_regurg", "Mod [2+]", "") for i in range(0, 37, 2))]


def assert_same(one: Measurements, other: Measurements):
    assert one.measurement_id.tolist() == other.measurement_id.tolist()
    for name, column in one.numbers.items():
        np.testing.assert_array_equal(column, other.numbers[name])
    for name, column in one.grade.items():
        np.testing.assert_array_equal(column, other.grade[name])


def test_neither_order_nor_chunks_nor_compression_change_anything(tmp_path, monkeypatch):
    rows = many_rows()
    whole = pivot_measurements(long_table(tmp_path / "long.csv", rows))
    assert len(whole) == 37
    assert np.isfinite(whole.numbers["lvef"]).sum() > 9
    random.Random(1).shuffle(rows)
    monkeypatch.setattr(mimic_measurements, "_CHUNK_ROWS", 60)
    monkeypatch.setattr(mimic_measurements, "_FIRST_ROWS", 2)
    assert_same(whole, pivot_measurements(long_table(tmp_path / "long.csv.gz", rows)))


def test_every_diameter_and_velocity_has_limits_and_what_is_beyond_is_counted(tmp_path):
    lengths = [one for one in mimic_measurements.quantities() if one.unit == "m/s" or one.name.endswith("_diam")]
    assert len(lengths) == 14
    assert all(0 < one.low < one.high <= 15 for one in lengths)
    found = pivot_measurements(long_table(tmp_path / "long.csv", [("7", "lvedd", "48", "cm"), ("8", "lvedd", "5", "")]))
    assert found.numbers["lvedd"].tolist() == pytest.approx([np.nan, 5], nan_ok=True)
    assert found.notes == ("1 row of lvedd skipped: not in 0.5 to 15 cm",)


def shuffled(tmp_path, monkeypatch, lines):
    """What is read of lines in each of four orders, in chunks of two."""
    monkeypatch.setattr(mimic_measurements, "_CHUNK_ROWS", 2)
    for seed in range(4):
        random.Random(seed).shuffle(lines)
        (tmp_path / "long.csv").write_text("\n".join([HEADER, *lines, ""]))
        yield lambda: pivot_measurements(tmp_path / "long.csv")


def test_a_report_of_two_patients_is_an_error_in_any_order(tmp_path, monkeypatch):
    ids = ("7", "7", "8", "8", "9")
    lines = [line(one, "lvedd", str(4 + i), "", subject=s) for i, (one, s) in enumerate(zip(ids, "12345", strict=True))]
    for read in shuffled(tmp_path, monkeypatch, lines):
        with pytest.raises(ManifestError, match=r"long.csv: 2 measurement_ids have rows of several subject_ids: 7, 8$"):
            read()


def test_the_earliest_time_and_the_first_type_of_a_report_are_used_in_any_order(tmp_path, monkeypatch):
    about = [
        ("7", "2150-01-03", "tte"), ("7", "2150-01-02 12:00:00", "stress"), ("7", "never", ""), ("7", "", "tte"),
        ("8", "2150-01-05", "tte"), ("8", "2150-01-05", "tte"),
    ]  # fmt: skip
    lines = [line(report, "lvedd", "4", "", time=time, test_type=kind) for report, time, kind in about]
    for read in shuffled(tmp_path, monkeypatch, lines):
        found = read()
        assert found.time.astype(str).tolist() == ["2150-01-02T12:00:00", "2150-01-05T00:00:00"]
        assert found.test_type.tolist() == ["stress", "tte"]
        assert found.notes == (
            "1 report with rows of several measurement_datetimes: the earliest is used",
            "1 report with rows of several test_types: the first in alphabetical order is used",
        )


def test_rows_without_a_measurement_id_are_left_out_and_counted(tmp_path, monkeypatch):
    lines = [line(one, "lvedd", str(4 + i), "", subject=str(i)) for i, one in enumerate(("", " ", "7", ""))]
    for read in shuffled(tmp_path, monkeypatch, lines):
        found = read()
        assert (found.measurement_id.tolist(), found.subject_id.tolist()) == (["7"], ["2"])
        assert found.numbers["lvedd"].tolist() == [6]
        assert found.notes == ("3 rows skipped: no measurement_id",)


@pytest.mark.parametrize("name", ["long.csv", "long.csv.gz"])
def test_a_table_that_is_cut_is_an_error(tmp_path, name):
    path = long_table(tmp_path / name, many_rows())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ManifestError, match=r"long.csv.*: the table is cut or damaged after about .* rows"):
        pivot_measurements(path)


def test_a_table_that_ends_within_quotes_is_an_error(tmp_path):
    path = long_table(tmp_path / "long.csv", [("1", "ivc", "<2.2cm, >50% (0-5mmHg)", "")])
    path.write_text(path.read_text()[:-14])
    with pytest.raises(ManifestError, match="cut or damaged"):
        pivot_measurements(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("a,b\n1,2\n", "no column subject_id, measurement_id"),
        (
            f"{HEADER}\n{line('1', 'something_else', '3', '')}\n",
            "none of its 1 rows has a measurement_id and a measurement",
        ),
        (f"{HEADER}\n{line('', 'lvef', '55', '')}\n", "none of its 1 rows has a measurement_id and a measurement"),
        (f"{HEADER}\n", "none of its 0 rows has"),
    ],
)
def test_another_table_is_an_error(tmp_path, text, why):
    (tmp_path / "long.csv").write_text(text)
    with pytest.raises(ManifestError, match=why):
        pivot_measurements(tmp_path / "long.csv")


def test_the_compact_file_comes_back_and_is_of_one_table(tmp_path):
    source = long_table(tmp_path / "long.csv", many_rows())
    made = pivot_measurements(source)
    with written_run(tmp_path / "out") as new:
        made.save(new / "measurements.npz", source)
    compact = tmp_path / "out" / "measurements.npz"
    again = Measurements.read(compact, source)
    assert again is not None
    assert_same(made, again)
    assert (again.sha256, again.notes) == (made.sha256, made.notes)
    assert again.time.tolist() == made.time.tolist()
    content = compact.read_bytes()
    compact.write_bytes(content[:300] + b"x" + content[301:])
    with pytest.raises(StoreError, match="damaged"):
        Measurements.read(compact, source)
    compact.write_bytes(content)
    long_table(source, many_rows()[:-1])
    assert Measurements.read(compact, source) is None


def test_a_table_that_is_read_otherwise_is_read_anew(tmp_path, monkeypatch):
    source = long_table(tmp_path / "long.csv", many_rows())
    with written_run(tmp_path / "out") as new:
        pivot_measurements(source).save(new / "measurements.npz", source)
    monkeypatch.setattr(mimic_measurements, "_TAPSE_MM", (6.0, 40.0))
    assert Measurements.read(tmp_path / "out" / "measurements.npz", source) is None


_PEAK = """
import resource, sys
from pathlib import Path
from panecho_embed.datasets.mimic_measurements import pivot_measurements
found = pivot_measurements(Path(sys.argv[1]))
print(len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_five_million_rows_are_pivoted_in_bounded_memory(tmp_path):
    path, reports = tmp_path / "long.csv", 50_000
    names = [one.name for one in mimic_measurements.quantities()] + [f"other_{i}" for i in range(59)]
    with path.open("w") as stream:
        stream.write(HEADER + "\n")
        for report in range(reports):
            stream.writelines(line(str(report), name, f"{1 + report % 97 / 50}", "") + "\n" for name in names)
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    count, peak_kib = map(int, done.stdout.split())
    assert count == reports
    # Measured 203 MiB, of which 106 are Python with pandas; read whole, the table takes several GB.
    assert peak_kib < 350 * 1024
