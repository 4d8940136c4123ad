"""Every public data set from a tiny tree of its own: the right patients, studies, views, labels, splits and units."""

from __future__ import annotations

import math
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import Manifest
from panecho_embed.datasets import detect_layout, read_manifest
from panecho_embed.datasets.layouts import Layout, known_layouts
from panecho_embed.media import read_frames
from tests.datasets.trees import WRITERS, nifti, sector, touch

NAN = math.nan

# video_id: study, patient, view, split, fps, path below the data set (None where the file is missing)
VIDEOS = {
    "echonet-dynamic": {
        "0X1A": ("0X1A", "0X1A", "A4C", "val", 50, "Videos/0X1A.avi"),
        "0X2B": ("0X2B", "0X2B", "A4C", "train", 30, "Videos/0X2B.avi"),
        "0X9Z": ("0X9Z", "0X9Z", "A4C", "test", 30, None),
    },
    "echonet-pediatric": {
        "A4C/CR1-S7-001": ("CR1-S7", "CR1", "A4C", "0", None, "A4C/Videos/CR1-S7-001.avi"),
        "PSAX/CR1-S7-002": ("CR1-S7", "CR1", "PSAX", "0", None, "PSAX/Videos/CR1-S7-002.avi"),
        "PSAX/CR2-S9-001": ("CR2-S9", "CR2", "PSAX", "9", None, None),
    },
    "echonet-lvh": {
        "0XA": ("0XA", "0XA", "PLAX", "train", 40, "Batch1/0XA.avi"),
        "0XB": ("0XB", "0XB", "PLAX", "test", 40, "Batch3/0XB.avi"),
        "0XC": ("0XC", "0XC", "PLAX", "val", 40, None),
    },
    "tmed-2": {
        "7s2_0.png": ("7s2", "7", "A4C", "test", None, "view_and_diagnosis_labeled_set/labeled/7s2_0.png"),
        "12s1_0.png": ("12s1", "12", "PLAX", "train", None, "view_and_diagnosis_labeled_set/labeled/12s1_0.png"),
        "12s1_1.png": ("12s1", "12", "PSAX", "train", None, "view_and_diagnosis_labeled_set/labeled/12s1_1.png"),
        "30s1_4.png": ("30s1", "30", "A4CorA2CorOther", "", None, None),
    },
    "camus": {
        f"patient000{n}_{view}CH_half_sequence": (
            f"patient000{n}",
            f"patient000{n}",
            f"A{view}C",
            split,
            {2: 41.5, 4: 50}[view],
            None
            if (n, view) == (2, 4)
            else f"database_nifti/patient000{n}/patient000{n}_{view}CH_half_sequence.nii.gz",
        )
        for n, split in ((1, "test"), (2, "train"))
        for view in (2, 4)
    },
    "hmc-qu": {
        "ES0001 _4CH_1": ("ES0001", "ES0001", "A4C", "", None, "HMC-QU/A4C/ES0001_4CH_1.avi"),
        "ES0001_CH2_1": ("ES0001", "ES0001", "A2C", "", None, "HMC-QU/A2C/ES0001_CH2_1.avi"),
        "ES0002_4CH_1": ("ES0002", "ES0002", "A4C", "", None, "HMC-QU/A4C/ES0002_4CH_1.avi"),
        "ES0003_2CH_1": ("ES0003", "ES0003", "A2C", "", None, "HMC-QU/A2C/ES0003_2CH_1.avi"),
        "ES0009_4CH_1": ("ES0009", "ES0009", "A4C", "", None, None),
    },
    "segrwma": {
        "patient1-2D-A4C": ("patient1", "patient1", "A4C", "", None, "wallMotion/patient1-2D-A4C_image.nii.gz"),
        "patient1-MCE-A2C": ("patient1", "patient1", "A2C", "", None, "wallMotion/patient1-MCE-A2C_image.nii.gz"),
        "patient2-LVO-A3C": ("patient2", "patient2", "A3C", "", None, "wallMotion/patient2-LVO-A3C_image.nii.gz"),
        "patient3-2D-A4C": ("patient3", "patient3", "A4C", "", None, None),
    },
    "cardiacnet": {
        f"{disease}/{folder}/{place}/{stem}": (
            f"{disease}/{patient}",
            f"{disease}/{patient}",
            view,
            "",
            None,
            f"CardiacNet-{disease}/{folder}/{place}_image.nii/{stem}_image.nii",
        )
        for disease, folder, place, stem, patient, view in (
            ("ASD", "ASD", "001", "patient-2-4", "patient-2", "A4C"),
            ("ASD", "Non-ASD", "001", "patient23-4", "patient23", "A4C"),
            ("ASD", "Non-ASD", "002", "P79-2", "P79", ""),
            ("ASD", "Non-ASD", "003", "PHI01", "PHI01", ""),
            ("PAH", "Non-PAH", "007", "x99", "x99", ""),
            ("PAH", "PAH", "001", "patient-2-4", "patient-2", "A4C"),
            ("PAH", "PAH", "002", "patient-2", "patient-2", ""),
        )
    },
    "cardiacuda": {
        f"{patient}-{number}": (patient, patient, view, "", None, f"{patient}-{number}_image.nii.gz")
        for patient, number, view in (
            ("Site_G_100/patient1", 2, "view 2"),
            ("Site_G_100/patient1", 4, "A4C"),
            ("Site_R_52/patient1", 4, "A4C"),
            ("label_all_frame/normal-1", 4, "A4C"),
        )
    },
    "rvenet": {
        "0001_A_1": ("0001_A", "0001_A", "A4C", "train", 50, "0001_A_1.dcm"),
        "0001_A_2": ("0001_A", "0001_A", "A4C", "train", 50, "0001_A_2.dcm"),
        "0002_B_1": ("0002_B", "0002_B", "A4C", "val", 43, "0002_B_1.dcm"),
        "0003_C_1": ("0003_C", "0003_C", "A4C", "train", 50, None),
    },
    "mimic-iv-echo": {
        f"{study}_{number}": (
            study,
            subject,
            "",
            split,
            None,
            f"files/p{subject[:2]}/p{subject}/s{study}/{study}_{number}.dcm",
        )
        for study, number, subject, split in (
            ("90000004", "0001", "10000001", "train"),
            ("90000004", "0002", "10000001", "train"),
            ("90000005", "0001", "10000001", "train"),
            ("90000006", "0001", "19999987", "val"),
        )
    },
}

# In the order of the videos above.
LABELS = {
    "echonet-dynamic": {
        "EF": [78.5, 59.1, 60],
        "ESV": [14.9, 40.4, 40],
        "EDV": [69.2, 98.7, 100],
        "ed_frame": [46, 20, NAN],
        "es_frame": [61, 7, NAN],
    },
    "echonet-pediatric": {
        "EF": [61.2, 60.8, 44],
        "Sex": ["F", "F", "M"],
        "Age": [9, 9, 3],
        "Weight": [30, 30, 12],
        "Height": [130, 130, 90],
        "ed_frame": [30, 5, NAN],
        "es_frame": [12, NAN, NAN],
    },
    "echonet-lvh": {"IVSd": [0.9, NAN, NAN], "LVIDd": [4.8, 5.5, NAN], "LVPWd": [NAN, NAN, 0.9]},
    "tmed-2": {
        "diagnosis_label": ["no_AS", "severe_AS", "severe_AS", "Not_Provided"],
        "AS": [0, 1, 1, NAN],
        "DEV479 fold 0 diagnosis": ["test", "train", "train", ""],
        "DEV479 fold 0 view": ["test", "train", "val", ""],
        "DEV165 fold 1 view": ["", "train", "", ""],
    },
    "camus": {
        "EF": [53, 53, 38, 38],
        "Age": [56, 56, 71, 71],
        "Sex": ["F", "F", "M", "M"],
        "ImageQuality": ["Good", "Poor", "Good", "Poor"],
        "ed_frame": [0, 0, 3, 3],
        "es_frame": [3, 3, 0, 0],
    },
    "hmc-qu": {
        "MI": [1, 0, 0, NAN, 1],
        "SEG1": ["non-MI", "", "non-MI", "", "MI"],
        "SEG4": ["", "non-MI", "", "", ""],
        "SEG7": ["MI", "non-MI", "non-MI", "", "MI"],
        "Reference Frame": [3, 5, 1, 4, 2],
        "End of Cycle": [27, 30, 25, 33, 20],
    },
    "segrwma": {
        "mode": ["2D", "MCE", "LVO", "2D"],
        "first_annotated_frame_index": [5, 7, NAN, 2],
        "n_frames": [71, 90, NAN, 80],
        "apex": [1, 0, NAN, 0],
    },
    "cardiacnet": {
        "ASD": [1, 0, 0, 0, NAN, NAN, NAN],
        "PAH": [NAN, NAN, NAN, NAN, 0, 1, 1],
        "source": ["own", "own", "own", "PHI", "own", "own", "own"],
    },
    "cardiacuda": {"site": ["Site_G_100", "Site_G_100", "Site_R_52", "label_all_frame"]},
    "rvenet": {"RVEF": [52.1, 52.1, 38.4, 60], "HR": [70, 71, 66, 60], "VideoQuality": [3, 4, 2, 1]},
    "mimic-iv-echo": {},
}

UNITS = {
    "echonet-dynamic": {"EF": "%", "ESV": "mL", "EDV": "mL"},
    "echonet-pediatric": {"EF": "%", "Age": "years", "Weight": "kg", "Height": "cm"},
    "echonet-lvh": {"IVSd": "cm", "LVIDd": "cm", "LVPWd": "cm"},
    "camus": {"EF": "%", "Age": "years", "ed_frame": "frame from 0"},
    "hmc-qu": {"Reference Frame": "frame from 1"},
    "rvenet": {"RVEF": "%"},
}

# What the notes have to tell: rows without files, files without rows, and what is special of the set.
NOTES = {
    "echonet-dynamic": ["as failed: 0X9Z.avi", "in the table: 0X3C.avi"],
    "echonet-pediatric": ["as failed: CR2-S9-001.avi", "in the table: CR3-S1-001.avi"],
    "echonet-lvh": ["as failed: 0XC.avi", "in the table: 0XD.avi"],
    "tmed-2": ["as failed: 30s1_4.png", "in the table: 50s1_0.png", "split is that of DEV479 fold 0 diagnosis"],
    "camus": ["as failed: patient0002_4CH", "1 patient of the splits without a folder: patient0077"],
    "hmc-qu": ["as failed: ES0009_4CH_1.avi", "in the table: ES0044_2CH_1.avi"],
    "segrwma": ["as failed: patient3-2D-A4C_image.nii.gz"],
    "cardiacnet": ["WARNING: 1 file called PHI", "1 unknown file name, each taken for a patient: x99"],
    "cardiacuda": [],
    "rvenet": ["as failed: 0003_C_1.dcm", "in the table: 0007_X_1.dcm"],
    "mimic-iv-echo": ["1 of 5 objects are not downloaded", "in the table: 90000009_0001.dcm", "`panecho-embed mimic`"],
}


def same(column: np.ndarray, values: list[object]) -> bool:
    if column.dtype.kind == "f":
        return bool(np.allclose(column, np.array(values, dtype=float), rtol=0, atol=1e-12, equal_nan=True))
    return column.tolist() == values


def by_name(manifest: Manifest) -> dict[str, object]:
    """Everything that must not depend on the order of files, rows and columns."""
    return {
        "videos": {video.video_id: video for video in manifest.videos},
        "order": [video.video_id for video in manifest.videos],
        "labels": {name: repr(column.tolist()) for name, column in manifest.labels.items()},
        "notes": manifest.notes,
        "units": dict(manifest.units),
    }


@pytest.mark.parametrize("name", WRITERS)
def test_a_set_is_read_by_name_wherever_it_lies(name, tmp_path):
    root = tmp_path / "downloads 2024" / "renamed" / "once more"
    WRITERS[name](root, None)
    (root / "LICENSE.txt").write_text("x")
    touch(root / "._hidden.avi")
    touch(root.parent / "__MACOSX" / "FileList.csv")
    manifest = read_manifest(tmp_path / "downloads 2024")
    assert manifest.layout == name
    found = {
        video.video_id: (
            video.study_id,
            video.patient_id,
            video.view,
            video.split,
            video.fps,
            Path(video.path).relative_to(root).as_posix() if Path(video.path).exists() else None,
        )
        for video in manifest.videos
    }
    assert found == VIDEOS[name]
    assert [video.video_id for video in manifest.videos] == list(VIDEOS[name])
    for label, values in LABELS[name].items():
        assert same(manifest.labels[label], values), (label, manifest.labels[label])
    for label, unit in UNITS.get(name, {}).items():
        assert manifest.units[label] == unit
    for text in NOTES[name]:
        assert any(text in note for note in manifest.notes), (text, manifest.notes)
    assert not any("not used" in note or "one patient" in note for note in manifest.notes)
    assert all(video.origin is None for video in manifest.videos)  # plain ids, and no header was asked


@pytest.mark.parametrize("name", WRITERS)
def test_the_order_of_rows_columns_and_lines_changes_nothing(name, tmp_path):
    WRITERS[name](tmp_path / "set", None)
    whole = by_name(read_manifest(tmp_path / "set"))
    for seed in range(3):
        shutil.rmtree(tmp_path / "set")
        WRITERS[name](tmp_path / "set", random.Random(seed))
        mixed = by_name(read_manifest(tmp_path / "set"))
        assert mixed == whole


def test_two_sets_below_one_folder_are_listed(tmp_path):
    WRITERS["camus"](tmp_path / "a" / "CAMUS", None)
    WRITERS["echonet-dynamic"](tmp_path / "b", None)
    with pytest.raises(ManifestError, match="2 data sets lie below it") as error:
        read_manifest(tmp_path)
    assert f"camus: {tmp_path / 'a' / 'CAMUS' / 'database_nifti'}" in str(error.value)
    assert f"echonet-dynamic: {tmp_path / 'b'}" in str(error.value)
    assert read_manifest(tmp_path, "echonet-dynamic").layout == "echonet-dynamic"


def test_two_copies_of_one_set_are_listed(tmp_path):
    for copy in ("old", "new"):
        WRITERS["rvenet"](tmp_path / copy, None)
    with pytest.raises(ManifestError, match=r"2 data sets(.|\n)*rvenet: .*new\n(.|\n)*rvenet: .*old"):
        read_manifest(tmp_path)


def test_videos_beside_a_set_are_named(tmp_path):
    WRITERS["echonet-lvh"](tmp_path / "LVH", None)
    touch(tmp_path / "ours" / "1.avi")
    notes = read_manifest(tmp_path).notes
    assert notes[0] == f"WARNING: 1 video beside the data set, outside {tmp_path / 'LVH'}, and not read"


def test_a_folder_inside_a_set_is_refused_with_the_right_path(tmp_path):
    WRITERS["echonet-pediatric"](tmp_path / "set", None)
    with pytest.raises(
        ManifestError, match=r"lies in EchoNet-Dynamic or EchoNet-Pediatric, whose FileList\.csv is in .*A4C: give"
    ):
        read_manifest(tmp_path / "set" / "A4C" / "Videos")
    half = read_manifest(tmp_path / "set" / "A4C")
    assert [(video.video_id, video.patient_id) for video in half.videos] == [("A4C/CR1-S7-001", "CR1")]
    told = read_manifest(tmp_path / "set" / "A4C" / "Videos", "folder")
    assert told.layout == "folder"


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("echonet-dynamic", "FileList.csv", "VolumeTracings.csv is a table of EchoNet-Dynamic"),
        ("echonet-pediatric", "FileList.csv", "VolumeTracings.csv is a table of EchoNet-Dynamic or EchoNet-Pediatric"),
    ],
)
def test_a_set_without_its_main_table_is_no_plain_folder(tmp_path, name, gone, message):
    WRITERS[name](tmp_path, None)
    for table in tmp_path.rglob(gone):
        table.unlink()
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, "folder").layout == "folder"


@pytest.mark.parametrize(
    ("name", "table", "old", "new", "message"),
    [
        ("echonet-dynamic", "FileList.csv", "Split", "Part", "no column Split"),
        ("echonet-pediatric", "A4C/FileList.csv", "FileName", "Video", "no column FileName"),
        ("echonet-lvh", "MeasurementsList.csv", "CalcValue", "Value", "no column CalcValue"),
        (
            "echonet-lvh",
            "MeasurementsList.csv",
            "4.8,9,1,2,3,4,100,40,800,600,train",
            "4.8,9,1,2,3,4,100,40,800,600,val",
            "0XA: its rows have several splits",
        ),
        ("tmed-2", "labels_per_image.csv", "view_label", "label", "no column view_label"),
        ("tmed-2", "labels_per_image.csv", "A4C,no_AS", "A4C,mild_AS", "7s2_0.png is described otherwise"),
        ("tmed-2", "labels_per_image.csv", "30s1_4.png", "30-4.png", "30-4.png: it is no query_key"),
        ("camus", "database_nifti/patient0001/Info_2CH.cfg", "ED: 1", "ED: 9", "ED is 9; it must be a frame from 1"),
        ("camus", "database_nifti/patient0001/Info_2CH.cfg", "EF: 53", "EF 53", "'EF 53' is no line"),
        ("camus", "database_split/subgroup_training.txt", "patient0002", "patient0001", "lists of (train|test) and"),
        ("rvenet", "codebook.csv", "RVEF", "EF", "no column RVEF; .* did you mean 'ef'"),
        ("rvenet", "codebook.csv", "validation", "holdout", "Split is 'holdout'"),
        ("segrwma", "annotations.csv", "patient3-2D-A4C", "3/A4C", "no column names the loops"),
    ],
)
def test_tables_of_another_version_say_what_is_wrong(tmp_path, name, table, old, new, message):
    WRITERS[name](tmp_path, None)
    text = (tmp_path / table).read_text()
    assert old in text
    (tmp_path / table).write_text(text.replace(old, new, 1))
    with pytest.raises(ManifestError, match=message) as error:
        read_manifest(tmp_path)
    assert "--layout folder" in str(error.value)


def test_a_word_that_is_no_infarction_is_named(tmp_path):
    from tests.datasets.trees import xlsx

    WRITERS["hmc-qu"](tmp_path, None)
    xlsx(tmp_path / "A2C.xlsx", [["ECHO", "SEG4"], ["ES0001_CH2_1", "perhaps"]])
    with pytest.raises(ManifestError, match=r"A2C.xlsx, line 2: SEG4 is 'perhaps'; it must be MI or non-MI"):
        read_manifest(tmp_path)


def test_a_set_without_any_of_its_videos_is_an_error(tmp_path):
    WRITERS["echonet-dynamic"](tmp_path, None)
    shutil.rmtree(tmp_path / "Videos")
    with pytest.raises(ManifestError, match=r"all files that its table names are missing \(3\)"):
        read_manifest(tmp_path)


def test_a_set_that_was_asked_for_and_is_not_there(tmp_path):
    WRITERS["rvenet"](tmp_path, None)
    with pytest.raises(ManifestError, match=r"no CAMUS below it, which is recognised by Info_2CH\.cfg"):
        read_manifest(tmp_path, "camus")
    with pytest.raises(ArgumentError, match=r"layout is 'camsu'.*camus"):
        read_manifest(tmp_path, "camsu")


@pytest.mark.parametrize("name", ["cardiacnet", "segrwma"])
def test_loops_saved_either_way_come_out_upright(tmp_path, name):
    WRITERS[name](tmp_path, None)
    expected = np.repeat(sector()[..., np.newaxis], 3, axis=3)
    for video in read_manifest(tmp_path).videos:
        if Path(video.path).exists() and "PHI" not in video.video_id:
            assert (read_frames(video.path).pixels == expected).all(), video.video_id


def test_manifest_prints_what_it_understood(tmp_path):
    WRITERS["camus"](tmp_path / "CAMUS", None)
    result = CliRunner().invoke(main, ["manifest", str(tmp_path / "CAMUS"), "-o", str(tmp_path / "camus.csv")])
    assert result.exit_code == 0, result.output
    for line in (
        "layout    camus (CAMUS: ",
        "patients  2: patient0001, patient0002",
        "views     A2C 2 videos, A4C 2 videos",
        "splits    test 2 videos of 1 patient, train 2 videos of 1 patient",
        "EF [%]: 4 numbers, 38 to 53",
        "Sex: 4 texts, 2 different: F, M",
        "check the above before you extract",
    ):
        assert line in result.output, result.output


def test_a_layout_of_ones_own_is_found_by_its_entry_point(tmp_path, monkeypatch):
    from panecho_embed.datasets import __doc__ as documentation
    from panecho_embed.datasets import layouts

    code = documentation.split("below its input:\n\n")[1].split("\nA table that is not read")[0]
    namespace: dict[str, object] = {}
    exec("\n".join(line.removeprefix("    ") for line in code.splitlines()), namespace)
    ours = namespace["LAYOUT"]
    assert isinstance(ours, Layout)

    class Point:
        name, value = "ours", "my_package.ours:LAYOUT"

        def load(self) -> object:
            return ours

    monkeypatch.setattr(layouts.metadata, "entry_points", lambda group: [Point()])
    known_layouts.cache_clear()
    try:
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "our-list.csv").write_text("File,Patient,EF\n1.avi,P1,50\n")
        touch(tmp_path / "deep" / "er" / "1.avi")
        manifest = read_manifest(tmp_path)
        assert (manifest.layout, manifest.labels["EF"].tolist(), manifest.units) == ("ours", [50], {"EF": "%"})
        assert (manifest.videos[0].patient_id, detect_layout(tmp_path)) == ("P1", "ours")
    finally:
        known_layouts.cache_clear()


def test_masks_are_no_videos_of_a_plain_folder(tmp_path):
    nifti(tmp_path / "p1" / "a.nii.gz")
    nifti(tmp_path / "p1" / "a_gt.nii.gz")
    assert [video.video_id for video in read_manifest(tmp_path).videos] == ["p1/a.nii.gz"]


@pytest.mark.parametrize("without", ["labels_per_image.csv", "DEV479/TMED2_fold0_labeledpart.csv"])
def test_a_table_of_tmed_2_may_lack_the_source_folder_that_another_has(tmp_path, without):
    WRITERS["tmed-2"](tmp_path, None)
    expected = read_manifest(tmp_path)
    path = tmp_path / without
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(",".join([row[0], *row[2:]]) + "\n" for row in rows))
    found = read_manifest(tmp_path)
    # Only labels_per_image.csv has 30s1_4.png, whose file is not there: its folder is not known without it.
    there = [video for video in expected.videos if video.video_id != "30s1_4.png"]
    assert [video for video in found.videos if video.video_id != "30s1_4.png"] == there
    assert {name: list(map(str, column)) for name, column in found.labels.items()} == {
        name: list(map(str, column)) for name, column in expected.labels.items()
    }


def test_a_fold_of_tmed_2_is_read_from_its_own_table(tmp_path):
    WRITERS["tmed-2"](tmp_path, None)
    manifest = read_manifest(tmp_path / "DEV479" / "TMED2_fold0_labeledpart.csv")
    assert {video.video_id: (video.patient_id, video.split) for video in manifest.videos} == {
        "12s1_0.png": ("12", "train"),
        "12s1_1.png": ("12", "train"),
        "7s2_0.png": ("7", "test"),
    }
    assert all(Path(video.path).exists() for video in manifest.videos)


@pytest.mark.parametrize(
    ("old", "new", "note", "ed"),
    [
        ("X2", "Z", "no ed_frame and es_frame: .*no column X2", None),
        ("40,20,60,20", "x,20,60,20", "1 unusable row in VolumeTracings.csv, the first in line 2 .X1 is 'x'", NAN),
        ("61", "", "3 unusable rows in VolumeTracings.csv, the first in line 5 .Frame is empty", NAN),
    ],
)
def test_tracings_that_can_not_be_used_cost_no_labels(tmp_path, old, new, note, ed):
    WRITERS["echonet-dynamic"](tmp_path, None)
    text = (tmp_path / "VolumeTracings.csv").read_text()
    (tmp_path / "VolumeTracings.csv").write_text(text.replace(old, new, 1 if new else -1))
    manifest = read_manifest(tmp_path)
    assert manifest.labels["EF"].tolist() == [78.5, 59.1, 60]
    assert any(re.match(note, line) for line in manifest.notes), manifest.notes
    if ed is None:
        assert "ed_frame" not in manifest.labels
    else:
        assert same(manifest.labels["ed_frame"], [ed, 20, NAN])
        assert same(manifest.labels["es_frame"], [NAN, 7, NAN])


def test_a_copy_of_a_loop_elsewhere_is_not_taken_for_it(tmp_path):
    WRITERS["hmc-qu"](tmp_path, None)
    touch(tmp_path / "HMC-QU" / "backup" / "ES0001_4CH_1.avi")
    first = read_manifest(tmp_path).videos[0]
    assert first.path == str(tmp_path / "HMC-QU" / "A4C" / "ES0001_4CH_1.avi")


def test_whole_numbers_of_frames_are_numbers(tmp_path):
    WRITERS["echonet-dynamic"](tmp_path, None)
    for table in ("FileList.csv", "VolumeTracings.csv"):
        lines = (tmp_path / table).read_text().splitlines(keepends=True)
        (tmp_path / table).write_text("".join(line for line in lines if "0X9Z" not in line))
    assert read_manifest(tmp_path).labels["ed_frame"].tolist() == [46.0, 20.0]
