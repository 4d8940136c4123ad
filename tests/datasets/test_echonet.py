from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.errors import ManifestError
from panecho_embed.datasets import read_manifest


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_dynamic(tmp_path):
    (tmp_path / "FileList.csv").write_text(
        "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split\n"
        "0X1A,78.5,14.9,69.2,1024,768,50,174,VAL\n0X2B,59.1,40.4,98.7,1024,768,30,215,TRAIN\n"
    )
    touch(tmp_path / "Videos" / "0X1A.avi")
    touch(tmp_path / "Videos" / "0X2B.avi")
    touch(tmp_path / "Videos" / "0X3C.avi")
    manifest = read_manifest(tmp_path)
    assert [(v.video_id, v.patient_id, v.view, v.split, v.fps) for v in manifest.videos] == [
        ("0X1A", "0X1A", "A4C", "val", 50.0),
        ("0X2B", "0X2B", "A4C", "train", 30.0),
    ]
    assert manifest.labels["EF"].tolist() == [78.5, 59.1]
    assert manifest.notes == ("1 file skipped, without a row in the table: 0X3C.avi",)


def test_pediatric_rows_and_files_that_do_not_match_are_reported(tmp_path):
    header = "FileName,EF,Sex,Age,Weight,Height,Split\n"
    (tmp_path / "A4C").mkdir()
    (tmp_path / "PSAX").mkdir()
    (tmp_path / "A4C" / "FileList.csv").write_text(header + "CR1-S7-001.avi,61.2,F,9,30,130,0\n")
    (tmp_path / "PSAX" / "FileList.csv").write_text(
        header + "CR1-S7-002.avi,60.8,F,9,30,130,0\nCR2-S9-001.avi,44.0,M,3,12,90,9\n"
    )
    touch(tmp_path / "A4C" / "Videos" / "CR1-S7-001.avi")
    touch(tmp_path / "PSAX" / "Videos" / "CR1-S7-002.avi")
    touch(tmp_path / "PSAX" / "Videos" / "CR3-S1-001.avi")
    manifest = read_manifest(tmp_path)
    assert [(v.video_id, v.study_id, v.patient_id, v.view, v.split) for v in manifest.videos] == [
        ("A4C/CR1-S7-001", "CR1-S7", "CR1", "A4C", "0"),
        ("PSAX/CR1-S7-002", "CR1-S7", "CR1", "PSAX", "0"),
        ("PSAX/CR2-S9-001", "CR2-S9", "CR2", "PSAX", "9"),
    ]
    assert manifest.labels["Sex"].tolist() == ["F", "F", "M"]
    assert "1 table row without a file, to be listed as failed: CR2-S9-001.avi" in manifest.notes[0]
    assert "1 file skipped, without a row" in manifest.notes[1]


def test_lvh_turns_measurements_into_columns(tmp_path):
    (tmp_path / "MeasurementsList.csv").write_text(
        "HashedFileName,Calc,CalcValue,Frames,FPS,split\n"
        "0XA,IVSd,1.0,100,40,train\n0XA,IVSd,1.2,100,40,train\n0XA,LVIDd,4.8,100,40,train\n0XB,LVIDd,5.5,90,50,test\n"
    )
    touch(tmp_path / "Batch1" / "0XA.avi")
    touch(tmp_path / "Batch3" / "0XB.avi")
    manifest = read_manifest(tmp_path)
    assert [(v.video_id, v.split, v.fps, v.view) for v in manifest.videos] == [
        ("0XA", "train", 40.0, "PLAX"),
        ("0XB", "test", 50.0, "PLAX"),
    ]
    assert manifest.videos[1].path.endswith("Batch3/0XB.avi")
    np.testing.assert_allclose(manifest.labels["IVSd"], [1.1, np.nan])
    np.testing.assert_allclose(manifest.labels["LVIDd"], [4.8, 5.5])


def test_a_table_of_another_data_set_says_what_it_lacks(tmp_path):
    (tmp_path / "FileList.csv").write_text("File,EF\na,3\n")
    touch(tmp_path / "Videos" / "a.avi")
    with pytest.raises(ManifestError, match="no column FileName, Split"):
        read_manifest(tmp_path)


def test_a_table_without_any_of_its_files_is_an_error(tmp_path):
    (tmp_path / "FileList.csv").write_text("FileName,Split\na,TRAIN\n")
    touch(tmp_path / "Videos" / "b.avi")
    with pytest.raises(ManifestError, match=r"all files that its table names are missing \(1\)"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FileName,FPS,Split\na,0,TRAIN\n\n,30,VAL\nb,x,VAL\n", ["2: fps is 0.0", "4: FileName is empty", "5: FPS is"]),
        ("FileName,FPS,Split\na,30,TRAIN\n\na.avi,30,VAL\n", ["4: video_id 'a' stands in line 2 already"]),
        ("FileName,FPS,Split\na,30,TRAIN\na\0b,30,VAL\n", ["3: FileName holds a NUL character"]),
    ],
)
def test_every_unusable_row_of_dynamic_is_listed(tmp_path, text, message):
    (tmp_path / "FileList.csv").write_text(text)
    touch(tmp_path / "Videos" / "a.avi")
    with pytest.raises(ManifestError, match=f"{len(message)} problems") as error:
        read_manifest(tmp_path)
    *lines, how = str(error.value).splitlines()[1:]
    assert how.startswith("(taken for EchoNet-Dynamic")
    assert [line.startswith(f"  line {part}") for line, part in zip(lines, message, strict=True)] == [True] * len(lines)


def test_every_unusable_row_of_both_pediatric_tables_is_listed(tmp_path):
    for view in ("A4C", "PSAX"):
        touch(tmp_path / view / "Videos" / "CR1-S7-001.avi")
        (tmp_path / view / "FileList.csv").write_text("FileName,Split\nCR1-S7-001.avi,0\n,1\n")
    with pytest.raises(ManifestError, match="2 problems") as error:
        read_manifest(tmp_path)
    assert "A4C/FileList.csv, line 3: FileName is empty" in str(error.value)
    assert "PSAX/FileList.csv, line 3: FileName is empty" in str(error.value)


def test_every_unusable_row_of_lvh_is_listed(tmp_path):
    (tmp_path / "MeasurementsList.csv").write_text(
        "HashedFileName,Calc,CalcValue,FPS,split\n0XA,IVSd,1.0,40,train\n0XA,LVIDd,wide,40,train\n,IVSd,1,40,train\n"
        "0XB,LVIDd,5,0,test\n0XB,,5,40,test\n"
    )
    touch(tmp_path / "Batch1" / "0XA.avi")
    with pytest.raises(ManifestError, match="4 problems") as error:
        read_manifest(tmp_path)
    message = str(error.value)
    assert "line 3: CalcValue is 'wide'" in message
    assert "line 4: HashedFileName is empty" in message
    assert "line 5: fps is 0.0" in message
    assert "line 6: Calc is empty" in message
