"""Labels: read as a task, refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.errors import ArgumentError
from probes.labels import read_labels, target_names


def text(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


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
        (np.array([55.0, np.nan, 55.0]), {}, r"X is 55 wherever it is known; there is nothing to learn"),
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


def test_long_numbers_stay_classes_of_their_own() -> None:
    read = read_labels(np.array([1234561.0, 1234562, 1234563] * 5), "Device", task="multiclass")
    assert read.classes == ("1234561", "1234562", "1234563")
