"""What may be misread is told: views taken for patients, one patient for all, tables that nobody used."""

from __future__ import annotations

import pytest

from panecho_embed.core.errors import ManifestError
from panecho_embed.datasets import read_manifest
from tests.datasets.test_folder import write_dicom
from tests.datasets.trees import csv, touch


def found(folder):
    return {v.video_id: (v.study_id, v.patient_id, v.view, v.split) for v in read_manifest(folder).videos}


def test_folders_called_like_views_and_splits_are_no_patients(tmp_path):
    touch(tmp_path / "A2C" / "ES1.avi")
    touch(tmp_path / "4CH" / "train" / "p7" / "s2" / "b.avi")
    touch(tmp_path / "p8" / "PSAX-AV" / "c.avi")
    touch(tmp_path / "Validation" / "p9" / "d.avi")
    touch(tmp_path / "Alexander" / "e.avi")
    touch(tmp_path / "p10" / "plax" / "0001.png")
    assert found(tmp_path) == {
        "A2C/ES1.avi": ("A2C/ES1.avi", "A2C/ES1.avi", "A2C", ""),
        "4CH/train/p7/s2/b.avi": ("p7/s2", "p7", "4CH", "train"),
        "p8/PSAX-AV/c.avi": ("p8", "p8", "PSAX-AV", ""),
        "Validation/p9/d.avi": ("p9", "p9", "", "val"),
        "Alexander/e.avi": ("Alexander", "Alexander", "", ""),
        "p10/plax": ("p10", "p10", "plax", ""),
    }


@pytest.mark.parametrize(("videos", "warned"), [(19, False), (20, True)])
def test_many_videos_of_one_folder_are_doubted(tmp_path, videos, warned):
    for number in range(videos):
        touch(tmp_path / "files" / f"{number}.avi")
    notes = read_manifest(tmp_path).notes
    assert notes[:1] == notes[: int(warned)]
    assert warned == any(note.startswith(f"WARNING: {videos} videos, all of one patient, told by") for note in notes)


def test_a_study_whose_header_names_the_patient_is_believed(tmp_path):
    for number in range(25):
        write_dicom(tmp_path / "study" / f"{number}.dcm", "PAT1", "1.2.3")
    assert not any("one patient" in note for note in read_manifest(tmp_path).notes)


def test_blank_headers_leave_the_folder_to_tell_and_are_doubted(tmp_path):
    for number in range(25):
        write_dicom(tmp_path / "files" / f"{number}.dcm", "", "")
    assert any("25 videos, all of one patient, told by" in note for note in read_manifest(tmp_path).notes)


def test_a_table_of_one_patient_is_doubted_from_many_videos_on(tmp_path):
    for number in range(200):
        touch(tmp_path / f"{number}.avi")
    csv(tmp_path / "t.csv", "path,patient_id", [f"{number}.avi,p" for number in range(199)])
    assert not read_manifest(tmp_path / "t.csv").notes
    csv(tmp_path / "t.csv", "path,patient_id", [f"{number}.avi,p" for number in range(200)])
    assert "200 videos, all of one patient. If" in read_manifest(tmp_path / "t.csv").notes[0]


def test_a_folder_that_says_more_than_a_view_is_a_patient(tmp_path):
    for name in ("PLAX_0001", "PLAX_DOE", "apical-4-chamber"):
        touch(tmp_path / name / "a.avi")
    found = {video.patient_id: video.view for video in read_manifest(tmp_path).videos}
    assert {who: view for who, view in found.items() if who.startswith("PLAX")} == {"PLAX_0001": "", "PLAX_DOE": ""}
    assert "apical-4-chamber" in found.values()


def test_tables_that_nobody_used_are_named(tmp_path):
    touch(tmp_path / "p1" / "a.avi")
    csv(tmp_path / "outcomes.csv", "patient,EF,died", ["p1,50,0"])
    touch(tmp_path / "p1" / "more.xlsx")
    touch(tmp_path / "out.h5.ids.csv")  # the local table of ids of an output that lies here
    notes = read_manifest(tmp_path).notes
    assert notes[0] == (
        "WARNING: 2 tables found and not used: outcomes.csv (columns patient, EF, died); p1/more.xlsx (not read)"
    )


def test_beside_dicom_their_names_are_not_told(tmp_path):
    write_dicom(tmp_path / "DOE^JANE" / "a.dcm", "PAT1", "1.2.3")
    # Without a header row, whose place a patient has.
    csv(tmp_path / "DOE^JANE" / "DOE^JANE.csv", "DOE^JANE,50", ["ROE^JIM,60"])
    notes = read_manifest(tmp_path).notes
    assert notes[0] == "WARNING: 1 table found and not used: a .csv (2 columns)"
    assert not any("DOE" in note for note in notes)


def test_a_sets_table_given_as_input_is_refused_with_its_folder(tmp_path):
    touch(tmp_path / "Videos" / "a.avi")
    csv(tmp_path / "FileList.csv", "FileName,EF,Split", ["a,50,TRAIN"])
    with pytest.raises(ManifestError, match=r"FileList\.csv is a table of EchoNet-Dynamic .*; give its folder"):
        read_manifest(tmp_path / "FileList.csv")
