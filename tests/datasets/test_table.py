from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import ManifestError
from panecho_embed.datasets import describe_manifest, read_manifest
from panecho_embed.datasets.table import _located


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


def test_an_empty_patient_id_is_an_error_that_names_the_lines(folder):
    table = write(folder, "path,patient_id\na.avi,p1\nb.avi,\nc d é.avi,\n")
    with pytest.raises(ManifestError, match=r"2 problems:\n  line 3: patient_id is empty; .*\n  line 4: patient_id"):
        read_manifest(table)


@pytest.mark.parametrize("marker", ["-", "NA", "n/a", ".", "NaN", ""])
def test_markers_of_missing_values_leave_a_column_of_numbers(folder, marker):
    manifest = read_manifest(write(folder, f"path,EF\na.avi,55\nb.avi,{marker}\n"))
    np.testing.assert_array_equal(manifest.labels["EF"], [55, np.nan])
    assert not [note for note in manifest.notes if "EF" in note]


@pytest.mark.parametrize("cell", ["<40", '"1,234.5"', "55 %", "~50", '"55,5"'])
def test_a_number_written_otherwise_is_an_error_that_names_the_cell(folder, cell):
    table = write(folder, f"path,EF,Age\na.avi,55,1\nb.avi,{cell},2\n")
    with pytest.raises(ManifestError, match=r"column EF: 1 of 2 cells are no numbers \(line 3: ") as error:
        read_manifest(table)
    assert cell.strip('"') in str(error.value)
    assert "leave the cell empty" in str(error.value)
    assert "Age" not in str(error.value)


def test_text_among_many_numbers_is_an_error(folder):
    rows = "".join(f"{i},a.avi,{i}\n" for i in range(9))
    with pytest.raises(ManifestError, match=r"column EF: 1 of 10 cells are no numbers \(line 11: 'bad image'\)"):
        read_manifest(write(folder, f"video_id,path,EF\n{rows}9,a.avi,bad image\n"))


def test_text_among_some_numbers_is_text_with_a_note(folder):
    manifest = read_manifest(write(folder, "path,MR,view\na.avi,1,A4C\nb.avi,3+,A4C\n"))
    assert manifest.labels["MR"].tolist() == ["1", "3+"]
    assert manifest.notes[-1] == "column MR is read as text: 1 of 2 cells are no numbers (line 3: '3+')"


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,EF,EF\na.avi,1,2\n", "columns named twice: EF"),
        ("path,,EF\na.avi,1,2\n", "column 2 has no name"),
        ("path,EF,\na.avi,1,2\n", "column 3 has no name"),
        ("path,EF\na.avi,1\n\nb.avi,1,2\n", "line 4: it has 3 cells; the table has 2 columns"),
    ],
)
def test_columns_that_can_not_be_told_apart_are_refused(folder, text, message):
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(folder, text))


@pytest.mark.parametrize("header", ["path,EF", "path,EF,,"])
def test_a_comma_at_the_end_of_every_line_is_no_column(folder, header):
    manifest = read_manifest(write(folder, f"{header}\na.avi,50,,\nb.avi,60,,\n"))
    assert [video.video_id for video in manifest.videos] == ["a.avi", "b.avi"]
    assert {name: column.tolist() for name, column in manifest.labels.items()} == {"EF": [50, 60]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"~nobody-of-this-name/a.avi,x", "no such file"),
        (b"x" * 5000 + b",x", "can't be reached: File name too long"),
        (b"a.avi,\0", "EF holds a NUL character"),
        (b"a\0.avi,x", "path holds a NUL character"),
        (b"a.avi,caf\xe9", "EF is not UTF-8 text: 'caf\\udce9'"),
        (b"caf\xe9.avi,x", "no such file"),
    ],
)
def test_a_bad_cell_is_listed_with_its_line_beside_the_others(folder, row, message):
    (folder / "list.csv").write_bytes(b'\npath,EF\n\nb.avi,"two\nlines"\n\n' + row + b"\ngone.avi,x\n")
    with pytest.raises(ManifestError, match="2 problems") as error:
        read_manifest(folder / "list.csv")
    lines = str(error.value).splitlines()
    assert lines[1].startswith("  line 7: ")
    assert message in lines[1]
    assert lines[2].startswith("  line 8: no such file")
    str(error.value).encode()


def test_ids_in_another_encoding_are_refused(folder):
    (folder / "list.csv").write_bytes(b"path,patient_id\na.avi,M\xfcller\n")
    with pytest.raises(ManifestError, match="line 2: patient_id is not UTF-8 text"):
        read_manifest(folder / "list.csv")


def test_a_name_that_begins_with_a_tilde(folder):
    (folder / "~nobody.avi").write_bytes(b"x")
    assert read_manifest(write(folder, "path\n~nobody.avi\n")).videos[0].path == str(folder / "~nobody.avi")


def test_semicolons_tabs_and_byte_order_marks(folder):
    for text, name, encoding in (
        ("path;EF\na.avi;55\n", "a.csv", "utf-8-sig"),
        ("path\tEF\na.avi\t55\n", "a.tsv", "utf-8"),
    ):
        manifest = read_manifest(write(folder, text, name, encoding))
        assert manifest.labels["EF"].tolist() == [55.0]


def test_what_the_manifest_command_describes_is_no_label(folder):
    np.save(folder / "v.npy", np.zeros((2, 32, 40), np.uint8))
    described = describe_manifest(read_manifest(write(folder, "path,EF\nv.npy,50\n")))
    described.to_csv(folder / "again.csv", index=False)
    assert set(read_manifest(folder / "again.csv").labels) == {"EF"}


def test_a_column_of_such_a_name_that_is_somebodys_own_is_a_label(folder):
    table = write(folder, "path,height,width,content,num_frames\na.avi,180,70,wall motion,30\n")
    labels = read_manifest(table).labels
    assert labels["height"].tolist() == [180.0]
    assert set(labels) == {"height", "width", "content", "num_frames"}


def test_a_label_that_the_description_would_hide_is_refused(folder):
    manifest = read_manifest(write(folder, "path,content\na.avi,wall motion\n"))
    with pytest.raises(ManifestError, match="labels content"):
        describe_manifest(manifest)


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


@pytest.fixture
def twice(tmp_path):
    for part in ("labeled/a", "unlabeled/b"):
        (tmp_path / "images" / part).mkdir(parents=True)
        (tmp_path / "images" / part / "12s1_0.png").write_bytes(b"x")
    (tmp_path / "images" / "labeled" / "a" / "7s2_0.png").write_bytes(b"x")
    return tmp_path


def test_tmed_images_of_one_name_are_told_apart_by_their_folder(twice):
    table = write(twice, "query_key,SourceFolder\n12s1_0.png,images/labeled/\n7s2_0.png,images/labeled/\n")
    assert read_manifest(table).videos[0].path == str(twice / "images" / "labeled" / "a" / "12s1_0.png")


def test_tmed_source_folders_that_are_not_there_are_not_needed_for_unique_names(twice):
    table = write(twice, "query_key,SourceFolder\n7s2_0.png,as_downloaded\n")
    assert read_manifest(table).videos[0].path == str(twice / "images" / "labeled" / "a" / "7s2_0.png")


def test_tmed_images_of_one_name_are_listed_with_everything_else(twice):
    table = write(
        twice,
        "query_key,SourceFolder\n12s1_0.png,\n7s2_0.png,unlabeled\n9s9_0.png,\n",
    )
    with pytest.raises(ManifestError, match="3 problems") as error:
        read_manifest(table)
    message = str(error.value)
    assert "line 2: 2 images are called 12s1_0.png: images/labeled/a/12s1_0.png, images/unlabeled/b" in message
    assert "line 3: no image 7s2_0.png in the folder unlabeled" in message
    assert "line 4: no such file" in message


def test_tmed_tables_keep_a_patient_id_of_their_own(twice):
    manifest = read_manifest(write(twice, "query_key,patient_id\n7s2_0.png,anna\n"))
    assert [(v.patient_id, v.study_id) for v in manifest.videos] == [("anna", "7s2")]


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_manifest(tmp_path / "nothing")


@given(
    st.lists(
        st.sampled_from([b"path", b"EF", b"a.avi", b"~", b",", b";", b"\n", b"\r", b'"', b"\0", b"\xe9", b" ", b"7"])
    )
)
def test_whatever_stands_in_a_table_is_read_or_told_of(tmp_path_factory, pieces):
    table = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    table.with_name("a.avi").write_bytes(b"x")
    table.write_bytes(b"".join(pieces))
    try:
        manifest = read_manifest(table)
    except ManifestError as error:
        str(error).encode()
    else:
        assert all(len(column) == len(manifest) for column in manifest.labels.values())


@pytest.mark.parametrize("base", [".", "", "/absolute"])
@pytest.mark.parametrize("written", ["a/v.avi", "./a/v.avi", "a//v.avi", "a/./v.avi", "a/../a/v.avi", "a/v.avi/"])
def test_paths_are_written_as_a_path_writes_them(tmp_path, monkeypatch, base, written):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.avi").write_text("x")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path if base == "/absolute" else Path(base)
    assert _located(written, folder) == str(folder / written)
