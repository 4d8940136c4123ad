"""A table of labels: joined by id, read as a manifest is, refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable, Manifest, VideoRef
from panecho_embed.datasets import LocalIds, is_opaque
from panecho_embed.datasets.local_ids import made_opaque
from panecho_embed.evaluation.targets import read_target, target_names
from panecho_embed.extraction.pooling import pool_table
from probes.label_table import join_labels
from probes.linear import LinearProbe
from probes.plans import RunSettings
from probes.problem import load_problem
from probes.run import evaluate


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


@pytest.mark.parametrize("key", ["video_id", "study_id", "patient_id"])
def test_labels_join_by_the_id_that_the_csv_has(table: EmbeddingTable, tmp_path: Path, key: str) -> None:
    ids = sorted(set(getattr(table, key)), reverse=True)
    lines = "\n".join(f"{name},{i}" for i, name in enumerate(ids))
    joined = join_labels(table, write(tmp_path / "labels.csv", f"{key},Age\n{lines}\n"))
    expected = [ids.index(name) for name in getattr(table, key)]
    np.testing.assert_array_equal(joined.labels["Age"], expected)


def test_ids_that_look_like_numbers_stay_text(table: EmbeddingTable, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"the table has '0012'.*the file has 'v000', 'v001', 'v002'"):
        join_labels(table, write(tmp_path / "labels.csv", "video_id,Age\n0012,3\n"))


def test_rows_that_the_csv_lacks_have_no_label(table: EmbeddingTable, tmp_path: Path) -> None:
    joined = join_labels(table, write(tmp_path / "labels.csv", "video_id,Age,Who\nv000,3,me\nelse,4,you\n"))
    assert np.isfinite(joined.labels["Age"]).sum() == 3
    assert set(joined.labels["Who"]) == {"me", ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_id,Age\nv000,1\nv000,2\nv001,3\n", r"video_id stands more than once for 'v000' \(1 in all\)"),
        (
            "video_id,Age\na,1\nb,2\nc,3\nd,4\n",
            r"no video_id matches.*'a', 'b', 'c' \.\.\., the file has 'v000', 'v001'",
        ),
        ("file,Age\nv000,1\n", r"no column video_id, study_id, patient_id to join by; it has file, Age"),
        ("video_id,Age\n", r"labels.csv: no line has a video_id \(--labels\)"),
        ("video_id,Age\nv000,1\n,4\n", r"video_id is empty in 1 lines, .*: line 3; .*\(--labels\)"),
        ("video_id,Age\nv000,1\nv001,<40\n", r"column Age: 1 of 2 cells .* \(line 3: '<40'\)\n.*\(--labels\)"),
        ("", r"labels.csv: not a table: it is empty \(--labels\)"),
        ("video_id,Age\nv000,1,2\n", r"labels.csv: 1 unusable lines, first line 2: .*\(--labels\)"),
    ],
)
def test_unusable_label_tables_say_why(table: EmbeddingTable, tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        join_labels(table, write(tmp_path / "labels.csv", content))


def test_none_is_a_class_and_true_stays_text(table: EmbeddingTable, tmp_path: Path) -> None:
    lines = "patient_id,AVStenosis,Diabetes\np000,None,True\np001,Severe,False\np002,NA,\n"
    joined = join_labels(table, write(tmp_path / "labels.csv", lines))
    # A column called as one of PanEcho's tasks has the task's classes, whichever of them are there.
    known = read_target(joined.labels["AVStenosis"], "AVStenosis")
    assert known.target.classes == ("Mild|Moderate", "None", "Severe")
    assert set(known.truth[np.isfinite(known.truth)]) == {1, 2}
    assert read_target(joined.labels["Diabetes"], "Diabetes").target.classes == ("False", "True")


def test_a_semicolon_table_is_read(table: EmbeddingTable, tmp_path: Path) -> None:
    joined = join_labels(table, write(tmp_path / "labels.csv", "video_id;Age\nv000;3\nv001;4\n"))
    assert np.nanmax(joined.labels["Age"]) == 4


def test_patients_and_splits_of_the_table_replace_those_of_the_file(table: EmbeddingTable, tmp_path: Path) -> None:
    lines = "".join(f"v{i:03d},{'ab'[i % 2]},{('train', 'test')[i % 2]},{i}\n" for i in range(100))
    joined = join_labels(table, write(tmp_path / "labels.csv", f"video_id,patient_id,split,Age\n{lines}"))
    known = np.isfinite(joined.labels["Age"])
    assert set(joined.patient_id[known]) == {"a", "b"}
    assert set(joined.split[known]) == {"train", "test"}
    np.testing.assert_array_equal(joined.patient_id[~known], table.patient_id[~known])
    assert set(joined.split[~known]) == {""}
    assert {"split", "patient_id"}.isdisjoint(target_names(joined.labels, "all"))


def test_patients_of_the_table_are_those_that_may_not_cross(table: EmbeddingTable, tmp_path: Path) -> None:
    lines = "".join(f"v{i:03d},me\n" for i in range(120))
    path = write(tmp_path / "labels.csv", f"video_id,patient_id\n{lines}")
    with pytest.raises(ArgumentError, match=r"1 patient is in both train and test .*: me"):
        evaluate(load_problem(table, "EF", labels=path), LinearProbe(), RunSettings(draws=10))


def test_a_manifest_with_labels_is_a_table_of_labels(table: EmbeddingTable, tmp_path: Path) -> None:
    header = "path,video_id,fps,fps_source,content,num_frames,frame_height,frame_width"
    header += ",heart_rate_bpm,heart_rate_source,Age"
    path = write(tmp_path / "manifest.csv", f"{header}\na.avi,v000,30,file,cine,32,112,112,70,header,50\n")
    assert set(join_labels(table, path).labels) - set(table.labels) == {"Age"}


def test_studies_are_joined_by_study_whatever_the_video(table: EmbeddingTable, tmp_path: Path) -> None:
    studies = pool_table(table, "study")
    lines = "\n".join(f"clip{i}-{k},{name},{i}" for i, name in enumerate(studies.study_id) for k in range(2))
    joined = join_labels(studies, write(tmp_path / "labels.csv", f"video_id,study_id,Age\n{lines}\n"))
    np.testing.assert_array_equal(joined.labels["Age"], np.arange(len(studies)))


@pytest.fixture
def hospital(table: EmbeddingTable, tmp_path: Path) -> tuple[EmbeddingTable, LocalIds]:
    """The table with opaque ids, and the local table that maps them back to those that it had."""
    names = zip(table.video_id, table.study_id, table.patient_id, strict=True)
    videos = tuple(VideoRef(f"{v}.dcm", s, p, f"/pacs/{v}.dcm") for v, s, p in dict.fromkeys(names))
    opaque = made_opaque(Manifest(videos), "a salt of the tests", tmp_path / "emb.h5.ids.csv").videos
    found = {was.video_id.removesuffix(".dcm"): now for was, now in zip(videos, opaque, strict=True)}
    columns = {
        name: np.array([getattr(found[v], name) for v in table.video_id], dtype=object)
        for name in ("video_id", "study_id", "patient_id")
    }
    return replace(table, **columns), LocalIds.read(tmp_path / "emb.h5.ids.csv")


@pytest.mark.parametrize(
    ("column", "of"),
    [("patient_id", "patient_id"), ("PatientID", "patient_id"), ("StudyInstanceUID", "study_id")],
)
def test_a_hospitals_own_ids_join_opaque_ones(
    table: EmbeddingTable, hospital: tuple[EmbeddingTable, LocalIds], tmp_path: Path, column: str, of: str
) -> None:
    opaque, known = hospital
    ids = sorted(set(getattr(table, of)), reverse=True)
    path = write(tmp_path / "labels.csv", f"{column},Age\n" + "\n".join(f"{n},{i}" for i, n in enumerate(ids)))
    joined = join_labels(opaque, path, known)
    np.testing.assert_array_equal(joined.labels["Age"], [ids.index(name) for name in getattr(table, of)])
    assert all(map(is_opaque, joined.patient_id))


@pytest.mark.parametrize("place", ["{}.dcm", "/pacs/{}.dcm"])
@pytest.mark.parametrize("column", ["video_id", "FileName", "path"])
def test_file_names_join_opaque_ids(
    table: EmbeddingTable, hospital: tuple[EmbeddingTable, LocalIds], tmp_path: Path, column: str, place: str
) -> None:
    opaque, known = hospital
    ids = sorted(set(table.video_id))
    path = write(tmp_path / "l.csv", f"{column},Age\n" + "\n".join(f"{place.format(n)},{i}" for i, n in enumerate(ids)))
    joined = join_labels(opaque, path, known)
    np.testing.assert_array_equal(joined.labels["Age"], [ids.index(name) for name in table.video_id])


def test_a_hospitals_patients_beside_the_key_are_hashed(
    hospital: tuple[EmbeddingTable, LocalIds], tmp_path: Path
) -> None:
    opaque, known = hospital
    path = write(tmp_path / "labels.csv", "video_id,patient_id,Age,PatientName\nv000.dcm,MRN-NEW,3,DOE^JANE\n")
    joined = join_labels(opaque, path, known)
    assert all(map(is_opaque, joined.patient_id))
    assert set(joined.patient_id) - set(opaque.patient_id)
    assert "PatientName" not in joined.labels


def test_without_the_local_table_only_opaque_ids_join(
    hospital: tuple[EmbeddingTable, LocalIds], tmp_path: Path
) -> None:
    opaque, _ = hospital
    with pytest.raises(ArgumentError, match=r"has opaque ids, and patient_id here are others; .*put it back") as error:
        join_labels(opaque, write(tmp_path / "a.csv", "PatientID,Age\nMRN-0815,3\n"))
    assert "MRN" not in str(error.value)
    joined = join_labels(opaque, write(tmp_path / "b.csv", f"patient_id,Age\n{opaque.patient_id[0]},3\n"))
    assert joined.labels["Age"][0] == 3
