from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.errors import ManifestError
from panecho_embed.manifest import read_manifest


@pytest.fixture
def folder(tmp_path):
    for name in ("a.avi", "b.avi", "c d é.avi"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder, text, name="list.csv", encoding="utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def test_ids_labels_and_paths(folder):
    table = write(
        folder,
        "path,video_id,study_id,patient_id,view,split,fps,EF,grade\n"
        "a.avi,001,s1,p1,A4C,train,50,55.5,None\n"
        "c d é.avi,002,s1,p1,,val,,NA,Severe\n",
    )
    manifest = read_manifest(table)
    first, second = manifest.videos
    assert (first.video_id, first.study_id, first.patient_id, first.view, first.split) == (
        "001",
        "s1",
        "p1",
        "A4C",
        "train",
    )
    assert first.path == str(folder / "a.avi")
    assert (first.fps, second.fps) == (50.0, None)
    np.testing.assert_array_equal(manifest.labels["EF"], [55.5, np.nan])
    assert manifest.labels["grade"].tolist() == ["None", "Severe"]
    assert set(manifest.labels) == {"EF", "grade"}


def test_ids_that_are_left_out_fall_back_step_by_step(folder):
    manifest = read_manifest(write(folder, "path,study_id\na.avi,s1\nb.avi,\n"))
    assert [(v.video_id, v.study_id, v.patient_id) for v in manifest.videos] == [
        ("a.avi", "s1", "s1"),
        ("b.avi", "b.avi", "b.avi"),
    ]
    assert "every study counts as a patient of its own" in manifest.notes[0]


def test_every_problem_is_listed_at_once(folder):
    table = write(folder, "path,video_id,fps\na.avi,v,x\ngone.avi,w,\n,u,\nb.avi,t,\na.avi,t,\n")
    with pytest.raises(ManifestError) as error:
        read_manifest(table)
    message = str(error.value)
    assert "4 problems" in message
    assert "line 2: fps is 'x'" in message
    assert "line 3: no such file" in message
    assert "gone.avi" in message
    assert "line 4: path is empty" in message
    assert "video_id 't' stands in line" in message


def test_a_missing_path_column_names_what_is_there_and_the_nearest(folder):
    with pytest.raises(ManifestError, match=r"no column path; the columns are Paths, EF; did you mean 'paths'"):
        read_manifest(write(folder, "Paths,EF\na.avi,3\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a table"), (b'path\n"a.avi\n', "not a table"), (b"path\n\xff\xfe.avi\n", "not UTF-8")],
)
def test_an_unreadable_table_is_said(folder, content, message):
    (folder / "list.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_manifest(folder / "list.csv")


def test_semicolons_tabs_and_byte_order_marks(folder):
    for text, name, encoding in (
        ("path;EF\na.avi;55\n", "a.csv", "utf-8-sig"),
        ("path\tEF\na.avi\t55\n", "a.tsv", "utf-8"),
    ):
        manifest = read_manifest(write(folder, text, name, encoding))
        assert manifest.labels["EF"].tolist() == [55.0]


def test_what_the_manifest_command_describes_is_no_label(folder):
    table = write(folder, "path,content,num_frames,fps_source,height,width,EF\na.avi,cine,30,x,1,1,50\n")
    assert set(read_manifest(table).labels) == {"EF"}


def test_tmed_tables_find_their_images(tmp_path):
    images = tmp_path / "view_and_diagnosis_labeled_set" / "labeled"
    images.mkdir(parents=True)
    for name in ("12s1_0.png", "12s1_1.png", "7s2_0.png"):
        (images / name).write_bytes(b"x")
    table = write(
        tmp_path,
        "query_key,view_label,diagnosis_label\n12s1_0.png,PLAX,severe_AS\n12s1_1.png,PSAX,severe_AS\n7s2_0.png,A4C,no_AS\n",
    )
    manifest = read_manifest(table)
    assert [(v.video_id, v.study_id, v.patient_id, v.view) for v in manifest.videos] == [
        ("12s1_0.png", "12s1", "12", "PLAX"),
        ("12s1_1.png", "12s1", "12", "PSAX"),
        ("7s2_0.png", "7s2", "7", "A4C"),
    ]
    assert manifest.labels["diagnosis_label"].tolist() == ["severe_AS", "severe_AS", "no_AS"]


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_manifest(tmp_path / "nothing")
