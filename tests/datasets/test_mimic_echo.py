"""MIMIC-IV-ECHO from its files to a probe: ids, selection by header, tables, and what goes wrong."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pydicom
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError, ManifestError, StoreError
from panecho_embed.datasets import mimic_headers, read_manifest
from panecho_embed.datasets.mimic_echo import read_records, read_views, split_of
from panecho_embed.datasets.mimic_prepare import find_root, prepare_mimic
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.phantoms import write_studies

PATIENTS = 12
PAGE = Path(__file__).parents[2] / "docs" / "mimic.md"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mimic") / "set"
    write_studies(root, "mimic-iv-echo", PATIENTS, 1, num_frames=3, size=64)
    return root


@pytest.fixture
def dataset(phantoms, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(phantoms, tmp_path / "set"))


def run(*words, expect=0):
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == expect, result.output
    return result


def with_headers(root: Path, **elements: str) -> None:
    for path in root.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        data.save_as(path)


HEADERS = {
    "full": {
        "PatientID": "MRN-7",
        "PatientName": "Doe^Jane",
        "StudyInstanceUID": "1.2.3",
        "AccessionNumber": "A-1",
        "StudyDate": "20180102",
    },
    "blank id": {"PatientID": ""},
    "blank": {"PatientID": "", "StudyInstanceUID": "", "SeriesInstanceUID": "", "SOPInstanceUID": ""},
}


@pytest.mark.parametrize("case", HEADERS)
def test_ids_are_the_sets_own_whatever_the_headers_hold(dataset, case):
    with_headers(dataset, **HEADERS[case])
    found = read_manifest(dataset)
    assert found.layout == "mimic-iv-echo"
    assert len(found) == 2 * PATIENTS
    first = found.videos[0]
    assert (first.video_id, first.study_id, first.patient_id) == ("90000001_0000", "90000001", "10000001")
    assert len({video.patient_id for video in found.videos}) == len({v.study_id for v in found.videos}) == PATIENTS
    assert {video.origin for video in found.videos} == {None}
    below = read_manifest(dataset / "echo-record-list.csv")
    assert {(v.video_id, v.study_id, v.patient_id, v.split) for v in below.videos} == {
        (v.video_id, v.study_id, v.patient_id, v.split) for v in found.videos
    }
    assert below.labels == {}


def test_a_folder_inside_the_set_is_refused_with_the_right_path(phantoms):
    with pytest.raises(ManifestError, match=r"lies in MIMIC-IV-ECHO, whose echo-record-list.csv is in \S+set: give"):
        read_manifest(phantoms / "files/p10/p10000001/s90000001")


def test_the_table_of_a_manifest_keeps_the_ids(phantoms, tmp_path):
    run("manifest", phantoms, "-o", tmp_path / "list.csv")
    listed, found = read_manifest(tmp_path / "list.csv"), read_manifest(phantoms)
    assert [replace(video, fps=None) for video in listed.videos] == list(found.videos)


def test_a_row_whose_path_is_of_another_patient_is_an_error(dataset):
    table = dataset / "echo-record-list.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:3], lines[3].replace("10000002,", "10000001,"), *lines[4:]]) + "\n")
    with pytest.raises(ManifestError, match="line 4: subject_id is 10000001, and its dicom_filepath is of 10000002"):
        read_manifest(dataset)


def test_a_record_list_without_paths_names_the_files_of_its_studies(dataset):
    table = pd.read_csv(dataset / "echo-record-list.csv")
    expected = read_records(dataset)
    table.drop(columns="dicom_filepath").to_csv(dataset / "echo-record-list.csv", index=False)
    assert read_records(dataset) == expected


def test_what_is_not_downloaded_is_left_out_and_told(dataset):
    shutil.rmtree(dataset / "files/p10/p10000003")
    found = read_manifest(dataset)
    assert len(found) == 2 * PATIENTS - 2
    assert any("2 of 24 objects are not downloaded" in note for note in found.notes)
    shutil.rmtree(dataset / "files")
    with pytest.raises(ManifestError, match="none of the 24"):
        read_manifest(dataset)


def test_splits_are_by_patient_and_seed():
    patients = [str(number) for number in range(10_000_000, 10_004_000)]
    splits = [split_of(patient) for patient in patients]
    assert splits == [split_of(patient) for patient in patients]
    assert splits != [split_of(patient, 1) for patient in patients]
    shares = [splits.count(name) / len(splits) for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.02)


def digests(root: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def test_from_the_files_to_a_probe_of_a_measured_ejection_fraction(phantoms, tmp_path, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        save_checkpoint(PanEcho(pretrained=False, width=1 / 12), tmp_path / "panecho.pt")
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(tmp_path / "panecho.pt"))
    before, out, file = digests(phantoms), tmp_path / "tables", tmp_path / "mimic.h5"
    # Of the seeds, one with patients in every split.
    said = run("mimic", phantoms, "--hosp", phantoms / "hosp", "-o", out, "--seed", 1).output
    assert "24 headers read: 12 B-mode, 12 still" in said
    assert "lvef (measured) of 12 studies" in said
    labels, probe = out / "labels.csv", tmp_path / "tables-lvef"
    last = said.splitlines()[-1]
    assert last.startswith(
        f"then: panecho-embed probe linear {tmp_path / 'tables.h5'} --labels {labels} --target lvef "
    )
    assert last.endswith(f" --target lvef --level study -o {probe}")
    run("extract", out / "videos.csv", "-o", file, "--image-size", 32, "--clips", 1, "--workers", 0)
    # As docs/mimic.md joins a file with the set's own list of studies.
    (code,) = re.findall(r"```python\n(import pandas.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, pd.DataFrame] = {}
    exec(code.replace("mimic.h5", str(file)).replace("/data/mimic-iv-echo/1.0", str(phantoms)), names)
    assert set(names["joined"]["subject_id"]) == {str(10_000_000 + i) for i in range(1, PATIENTS + 1)}
    assert (names["joined"]["subject_id"] == names["joined"]["patient_id"]).all()
    assert not (tmp_path / "mimic.h5.ids.csv").exists()
    run("probe", "linear", file, "--labels", out / "labels.csv", "--target", "lvef", "-o", tmp_path / "lvef")
    metrics = json.loads((tmp_path / "lvef" / "metrics.json").read_text())
    assert "lvef" in json.dumps(metrics)
    assert digests(phantoms) == before
    assert run("verify", file).exit_code == 0


def test_labels_have_the_values_of_the_tables(phantoms, tmp_path):
    found = prepare_mimic(phantoms, tmp_path / "out", hosp=phantoms / "hosp")
    long_table = pd.read_csv(phantoms / "structured-measurement.csv.gz")
    tapse = long_table[long_table["measurement"] == "tapse"]["result"].astype(float).to_numpy()
    assert (tapse > 5).sum() == 4  # those in mm
    labels = pd.read_csv(tmp_path / "out" / "labels.csv")
    assert labels["tapse"].to_numpy() == pytest.approx([v / 10 if v > 5 else v for v in tapse])
    assert labels["lvef_upper"].isna().sum() == 0
    assert set(labels["mitral_regurg"]) <= {"trivial", "mild", "moderate", "moderate-severe", "severe"}
    assert labels["death_event"].sum() > 0
    assert labels["patient_id"].tolist() == [10_000_000 + i for i in range(1, PATIENTS + 1)]
    assert found.columns is not None
    orders = found.columns.set_index("column")["grades"]
    assert orders["mitral_regurg"] == "trivial,mild,mild-moderate,moderate,moderate-severe,severe"


def test_a_dry_run_counts_and_writes_no_table(phantoms, tmp_path):
    said = run("mimic", phantoms, "-o", tmp_path / "out", "--dry-run").output
    assert "to embed: 12 videos in B-mode, 0.0 minutes" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["headers"]
    assert "24 headers read, 24 of them before" in run("mimic", phantoms, "-o", tmp_path / "out").output


def test_colour_doppler_spectra_and_broken_files_are_not_chosen(dataset, tmp_path):
    loops = sorted(dataset.rglob("*_0001.dcm"))
    data = pydicom.dcmread(loops[3])
    for keyword in ("FrameTime", "CineRate", "RecommendedDisplayFrameRate"):
        delattr(data, keyword)
    data.save_as(loops[3])
    for path, spatial_format, data_type in ((loops[0], 1, 2), (loops[1], 3, 3)):
        data = pydicom.dcmread(path)
        data.SequenceOfUltrasoundRegions[0].RegionSpatialFormat = spatial_format
        data.SequenceOfUltrasoundRegions[0].RegionDataType = data_type
        data.save_as(path)
    data = pydicom.dcmread(loops[2])
    data.Rows = 4
    data.save_as(loops[2])
    found = prepare_mimic(dataset, tmp_path / "out")
    assert found.selection.counts == {"B-mode": 9, "colour Doppler": 1, "spectral Doppler": 1, "still": 12}
    assert [line.partition(":")[0] for line in found.selection.unreadable] == [loops[2].stem]
    assert {Path(video.path) for video in found.chosen} == set(loops[3:])
    assert found.selection.without_rate == 1


def test_headers_that_were_read_before_a_kill_are_not_read_again(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(mimic_headers, "_PART", 5)
    count = 0

    def stop(*_):
        nonlocal count
        count += 1
        if count == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_mimic(phantoms, tmp_path / "out", dry_run=True, progress=stop)
    read = []
    plain = mimic_headers._header
    monkeypatch.setattr(mimic_headers, "_header", lambda video: read.append(video.video_id) or plain(video))
    found = prepare_mimic(phantoms, tmp_path / "out", dry_run=True)
    assert len(read) == 14
    assert found.selection.reused == 10
    assert len(found.chosen) == 12
    assert found.selection.hours == pytest.approx(sum(3 / one for one in rates(phantoms)) / 3600)


def rates(root: Path) -> list[float]:
    return [float(pydicom.dcmread(path).CineRate) for path in root.rglob("*_0001.dcm")]


def test_a_second_run_reads_the_long_table_no_more_and_replaces_only_when_asked(dataset, tmp_path, monkeypatch):
    prepare_mimic(dataset, tmp_path / "out")
    with pytest.raises(StoreError, match="--overwrite"):
        prepare_mimic(dataset, tmp_path / "out")
    first = digests(tmp_path / "out")
    monkeypatch.setattr("panecho_embed.datasets.mimic_prepare.pivot_measurements", None)
    prepare_mimic(dataset, tmp_path / "out", overwrite=True)
    assert digests(tmp_path / "out") == first
    compact = tmp_path / "out" / "measurements.npz"
    compact.write_bytes(compact.read_bytes()[:-40] + b"x" * 40)
    with pytest.raises(StoreError, match="damaged"):
        prepare_mimic(dataset, tmp_path / "out", overwrite=True)


def test_views_of_other_sets_become_views(phantoms, tmp_path):
    table = tmp_path / "views.csv"
    table.write_text("clip,best\nfiles/p10/p10000001/s90000001/90000001_0001.dcm,A4C\n90000002_0001,PLAX\n99_1,A2C\n")
    said = run("mimic", phantoms, "-o", tmp_path / "out", "--views", table, "--view-columns", "clip, best").output
    assert "2 of 12 videos have a view from views.csv" in said
    assert "views: A4C 1, PLAX 1" in said
    videos = pd.read_csv(tmp_path / "out" / "videos.csv", index_col="video_id", na_filter=False)
    assert videos["view"].head(3).tolist() == ["A4C", "PLAX", ""]
    question = {"videos": ["mimic-iv-echo/0.1/files/p10/p10000003/s90000003/90000003_0001.mp4"], "view": "A2C"}
    (tmp_path / "MIMICEchoQA.json").write_text(json.dumps([question]))
    assert read_views(tmp_path / "MIMICEchoQA.json") == {"90000003_0001": "A2C"}


@pytest.mark.parametrize(
    ("name", "text", "columns", "why"),
    [
        ("v.csv", "clip,best\n90000001_0001,A4C\n", None, r"--view-columns FILE,VIEW; the table has clip, best"),
        ("v.csv", "clip,best\n90000001_0001,A4C\n", ("clip", "view"), "no column view"),
        ("v.csv", "clip,best\n5_1,A4C\n", ("clip", "best"), r"none of its 1 objects \(such as 5_1\) is one of the 12"),
        ("v.csv", "clip,best\n5_1,A4C\n5_1,A2C\n", ("clip", "best"), "5_1 has several views"),
        ("v.json", "{", None, "can't be read as MIMICEchoQA's list"),
    ],
)
def test_a_table_of_views_that_does_not_fit_is_an_error(phantoms, tmp_path, name, text, columns, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=why):
        prepare_mimic(phantoms, tmp_path / "out", views=tmp_path / name, view_columns=columns)


@pytest.mark.parametrize("lost", ["echo-record-list.csv", "echo-study-list.csv", "structured-measurement.csv.gz"])
def test_a_set_without_one_of_its_tables_is_an_error_that_names_it(dataset, tmp_path, lost):
    (dataset / lost).unlink()
    with pytest.raises(ManifestError, match=f"no {lost}"):
        prepare_mimic(dataset, tmp_path / "out")


def test_a_long_table_that_is_cut_leaves_no_tables(dataset, tmp_path):
    path = dataset / "structured-measurement.csv.gz"
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ManifestError, match=r"structured-measurement.csv.gz: the table is cut or damaged"):
        prepare_mimic(dataset, tmp_path / "out")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["headers"]
    # Cut where a row ends, only the set's own digest tells.
    digest = hashlib.sha256(gzip.compress(whole, mtime=0)).hexdigest()
    (dataset / "SHA256SUMS.txt").write_text(f"{digest} {path.name}\n")
    path.write_bytes(gzip.compress(b"\n".join(whole.split(b"\n")[:40]) + b"\n"))
    with pytest.raises(ManifestError, match=r"SHA256SUMS.txt says"):
        prepare_mimic(dataset, tmp_path / "out")


def test_a_rule_that_finds_nothing_and_options_that_do_not_fit_are_errors(dataset, tmp_path):
    path = dataset / "structured-measurement.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("\n".join([*(x for x in lines if ",lvesd," not in x), ""]).encode()))
    with pytest.raises(ArgumentError, match=r"teichholz finds no ejection fraction .* measured 12, reported 12"):
        prepare_mimic(dataset, tmp_path / "out", lvef="teichholz")
    assert not (tmp_path / "out" / "labels.csv").exists()
    with pytest.raises(ArgumentError, match="--views"):
        prepare_mimic(dataset, tmp_path / "out", view_columns=("a", "b"))


def test_the_set_is_found_below_a_folder_and_two_are_an_error(dataset, tmp_path):
    deep = tmp_path / "physionet.org" / "files" / "mimic-iv-echo" / "1.0"
    deep.parent.mkdir(parents=True)
    dataset.rename(deep)
    assert find_root(tmp_path) == deep
    other = tmp_path / "copy"
    other.mkdir()
    shutil.copy(deep / "echo-record-list.csv", other)
    with pytest.raises(ManifestError, match=r"2 folders have a echo-record-list.csv; give one of them:\n  /"):
        find_root(tmp_path)


def without_roots_privilege():
    # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH let root read everything; dropped, root is a user like any other.
    if os.geteuid() == 0:
        for capability in (1, 2):
            assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0


_PREPARE = """
import sys
from pathlib import Path
from panecho_embed.core.errors import ManifestError
from panecho_embed.datasets.mimic_prepare import find_root, prepare_mimic
source, out, *locked = map(Path, sys.argv[1:])
for path in locked:
    path.chmod(0)
    try:
        print(find_root(source) if path.is_relative_to(source / "a") else prepare_mimic(source, out).root)
    except ManifestError as error:
        print(error)
    path.chmod(0o700)
"""


def test_what_can_not_be_entered_is_passed_over_and_what_can_not_be_read_is_named(dataset, tmp_path):
    tables = [dataset / name for name in ("echo-record-list.csv", "echo-study-list.csv")]
    tables += [dataset / "structured-measurement.csv.gz", dataset / "files/p10/p10000001"]
    search = tmp_path / "search"
    (search / "a" / "locked").mkdir(parents=True)

    def said(source: Path, *locked: Path) -> str:
        command = [sys.executable, "-c", _PREPARE, source, tmp_path / "out", *locked]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=without_roots_privilege)
        assert done.returncode == 0, done.stderr
        return done.stdout

    answers = said(dataset, *tables).splitlines()
    assert answers[:3] == [f"{path}: it can't be read: Permission denied" for path in tables[:3]]
    assert answers[3].startswith(f"{tables[3]}/")
    assert answers[3].endswith("it can't be read: Permission denied")
    assert said(search, search / "a" / "locked").splitlines() == [
        f"{search}: no echo-record-list.csv there or up to 4 levels below; give the folder of MIMIC-IV-ECHO",
        f"  {search / 'a' / 'locked'} can't be entered",
    ]
    dataset.rename(search / "b")
    assert said(search, search / "a" / "locked") == f"{search / 'b'}\n"
