"""Labels: joined by id, read as a task, refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from panecho_embed.errors import ArgumentError
from panecho_embed.records import EmbeddingTable
from probes.label_table import join_labels
from probes.labels import read_labels, target_names


def text(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


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
        ("video_id,Age\nv000,1\nv000,2\nv001,3\n", r"1 values of video_id are there more than once: 'v000'"),
        (
            "video_id,Age\na,1\nb,2\nc,3\nd,4\n",
            r"no video_id matches.*'a', 'b', 'c' \.\.\., the file has 'v000', 'v001'",
        ),
        ("file,Age\nv000,1\n", r"no column video_id, study_id, patient_id to join by; it has file, Age"),
        ("", r"labels.csv: not a table: it is empty \(--labels\)"),
        ("video_id,Age\nv000,1,2\n", r"labels.csv: 1 unusable lines, first line 2: .*\(--labels\)"),
    ],
)
def test_unusable_label_tables_say_why(table: EmbeddingTable, tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        join_labels(table, write(tmp_path / "labels.csv", content))


@pytest.mark.parametrize(
    ("column", "task", "classes"),
    [
        (np.array([55.0, np.nan, 40.5]), "regression", ()),
        (np.array([0.0, 1.0, np.nan]), "binary", ("0", "1")),
        (text("yes", "no", ""), "binary", ("no", "yes")),
        (text("c", "a", "b"), "multiclass", ("a", "b", "c")),
    ],
)
def test_task_follows_from_the_values(column: np.ndarray, task: str, classes: tuple[str, ...]) -> None:
    labels = read_labels(column, "Something")
    assert (labels.task, labels.classes) == (task, classes)
    assert np.isnan(labels.truth).sum() == (1 if len(classes) < 3 else 0)


def test_numbers_become_classes_in_numeric_order_when_asked() -> None:
    labels = read_labels(np.array([10.0, 9.0, 2.0]), "Stage", task="multiclass")
    assert labels.classes == ("2", "9", "10")
    assert labels.truth.tolist() == [2, 1, 0]


def test_numbers_written_as_text_can_be_a_regression() -> None:
    assert read_labels(text("1.5", "", "2"), "X", task="regression").truth.tolist()[::2] == [1.5, 2]


def test_positive_class_comes_last() -> None:
    assert read_labels(text("sick", "well"), "State", positive="sick").classes == ("well", "sick")


def test_class_order_of_a_known_task_is_the_models() -> None:
    labels = read_labels(text("Severe", "Mild", "None"), "AVStenosis")
    assert labels.task == "multiclass"


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        (
            text("low", "high", "low"),
            {"task": "regression"},
            r"X has text where regression needs numbers: 'low', 'high'",
        ),
        (np.array([1.0, 1.0, np.nan]), {}, r"X has only one class, '1'"),
        (text("a", "b", "c"), {"task": "binary"}, r"X has 3 classes, a, b, c; use --task multiclass"),
        (text("a", "b"), {"positive": "z"}, r"X has the classes a, b; 'z' is none of them \(--positive\)"),
        (text(*(f"name {i}" for i in range(60))), {}, r"60 different values in 60 rows; that is no set of classes"),
        (np.array([1.0, np.inf, 2.5]), {}, r"X has infinite values"),
    ],
)
def test_unusable_labels_say_why(column: np.ndarray, options: dict[str, str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_labels(column, "X", **options)  # type: ignore[arg-type]


def test_a_target_that_is_not_there_offers_the_nearest() -> None:
    labels = {"EF": np.array([1.0, 2.0]), "LVEDV": np.array([1.0, 2.0])}
    with pytest.raises(
        ArgumentError, match=r"no label column 'LVEDVol': did you mean LVEDV\? label columns: EF, LVEDV"
    ):
        target_names(labels, "EF,LVEDVol")


def test_all_targets_leave_out_constants_and_free_text() -> None:
    labels = {
        "EF": np.array([1.0] * 15 + [2.0] * 15),
        "Constant": np.ones(30),
        "Report": text(*(f"free text {i}" for i in range(30))),
        "Sex": text("F", *["M"] * 29),
    }
    assert target_names(labels, "all") == ["EF", "Sex"]
