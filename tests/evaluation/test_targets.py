"""Label columns: one rule that makes a target of them, and refuses what it can't tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.tasks import all_tasks
from panecho_embed.evaluation.targets import Reading, Target, matched_classes, read_target, target_names

TASKS = {task.name: task for task in all_tasks()}


def text(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    ("column", "kind", "classes"),
    [
        (np.array([55.0, np.nan, 40.5]), "regression", ()),
        (np.array([0.0, 1.0, np.nan]), "binary", ("0", "1")),
        (text("yes", "no", ""), "binary", ("no", "yes")),
        (text("c", "a", "b"), "multiclass", ("a", "b", "c")),
        (text("yes", "Yes", "no", ""), "binary", ("no", "yes")),
    ],
)
def test_kind_follows_from_the_values(column: np.ndarray, kind: str, classes: tuple[str, ...]) -> None:
    labels = read_target(column, "Something")
    assert (labels.target.kind, tuple(map(str.casefold, labels.target.classes))) == (kind, classes)
    assert np.isnan(labels.truth).sum() == (1 if len(classes) < 3 else 0)
    assert labels.note == ""


@pytest.mark.parametrize("values", [[0, 1, 2], [1, 2, 3, np.nan], [0, 1, 10]])
def test_numbers_that_may_be_grades_are_asked_about(values: list[float]) -> None:
    with pytest.raises(ArgumentError, match=r"Stage has the whole numbers .* alone.*--task regression, --task ordi"):
        read_target(np.array(values, dtype=float), "Stage")


@pytest.mark.parametrize(
    ("task", "classes", "truth"),
    [
        ("regression", (), [2, 0, 1]),
        ("ordinal", ("0", "1", "2"), [2, 0, 1]),
        ("multiclass", ("0", "1", "2"), [2, 0, 1]),
    ],
)
def test_a_stated_task_says_what_numbers_are(task: str, classes: tuple[str, ...], truth: list[int]) -> None:
    labels = read_target(np.array([2.0, 0, 1]), "Stage", Reading(task=task))  # type: ignore[arg-type]
    assert (labels.target.kind, labels.target.classes) == (task, classes)
    assert labels.truth.tolist() == truth


@pytest.mark.parametrize("values", [[0, 1, 11], [2, 3, 4], [0.5, 1, 2], [-1, 0, 1]])
def test_other_numbers_are_a_regression(values: list[float]) -> None:
    assert read_target(np.array(values, dtype=float), "X").target.kind == "regression"


def test_numbers_become_classes_in_numeric_order_when_asked() -> None:
    labels = read_target(np.array([10.0, 9.0, 2.0]), "Stage", Reading(task="multiclass"))
    assert labels.target.classes == ("2", "9", "10")
    assert labels.truth.tolist() == [2, 1, 0]


def test_numbers_written_as_text_can_be_a_regression() -> None:
    assert read_target(text("1.5", "", "2"), "X", Reading(task="regression")).truth.tolist()[::2] == [1.5, 2]


def test_text_grades_stand_in_the_order_given() -> None:
    labels = read_target(text("severe", "None", "mild", ""), "Grade", Reading(order=("none", "mild", "severe")))
    assert (labels.target.kind, labels.target.classes) == ("ordinal", ("none", "mild", "severe"))
    np.testing.assert_array_equal(labels.truth, [2, 0, 1, np.nan])


def test_an_order_keeps_grades_that_nobody_has() -> None:
    labels = read_target(text("mild", "severe"), "Grade", Reading(order=("none", "mild", "moderate", "severe")))
    assert labels.truth.tolist() == [1, 3]
    assert labels.target.outputs == 4


@pytest.mark.parametrize(
    ("column", "positive", "classes"),
    [
        (text("sick", "well"), "sick", ("well", "sick")),
        (text("sick", "well"), "", ("sick", "well")),
        (text("Present", "None"), "", ("None", "Present")),
        (text("zzz", "normal"), "", ("normal", "zzz")),
        (np.array([0.0, 1.0]), "0", ("1", "0")),
    ],
)
def test_positive_class_comes_last(column: np.ndarray, positive: str, classes: tuple[str, ...]) -> None:
    target = read_target(column, "State", Reading(positive=positive)).target
    assert target.classes == classes
    assert target.positive == classes[1]


def test_class_order_of_a_known_task_is_the_models() -> None:
    labels = read_target(text("Severe", "mild", "None"), "AVStenosis")
    assert (labels.target.kind, labels.target.classes) == ("multiclass", TASKS["AVStenosis"].classes)
    assert labels.truth.tolist() == [2, 0, 1]


def test_the_positive_class_of_a_known_task_is_the_clinical_one() -> None:
    labels = read_target(text("Normal", "Dilated"), "RASize")
    assert labels.target.classes == ("Normal", "Dilated")
    assert labels.truth.tolist() == [0, 1]


def test_numbers_in_a_column_of_named_classes_are_asked_about() -> None:
    message = r"AVStenosis has the numbers '0', '1', '2', and its classes are .*: which is which is not known"
    with pytest.raises(ArgumentError, match=message):
        read_target(np.array([0.0, 1, 2]), "AVStenosis")
    with pytest.raises(ArgumentError, match=r"--task binary takes 1 for 'Dilated'"):
        read_target(np.array([0.0, 1]), "RASize")
    labels = read_target(np.array([0.0, 1]), "RASize", Reading(task="binary"))
    assert labels.target.classes == ("Normal", "Dilated")
    assert labels.truth.tolist() == [0, 1]
    assert labels.note == "RASize: 1 is taken for 'Dilated'"


def test_classes_that_are_numbers_are_read_as_numbers() -> None:
    target = read_target(np.array([0.0, 1]), "LVOT20mmHg").target
    assert (target.kind, target.positive) == ("binary", TASKS["LVOT20mmHg"].positive_class)


@pytest.mark.parametrize("labels", [[-18.0, -20.5], [18.0, 20.5]])
def test_strain_is_reported_as_negative_whichever_way_it_is_written(labels: list[float]) -> None:
    read = read_target(np.array(labels), "GLS")
    assert read.truth.tolist() == [-18.0, -20.5]
    assert read.target.sign == (1 if labels[0] < 0 else -1)
    assert ("sign flipped" in read.note) == (labels[0] > 0)


def test_a_table_of_tasks_of_your_own_replaces_ours() -> None:
    read = read_target(np.array([18.0, 20.5]), "GLS", Reading(tasks={}))
    assert (read.target.unit, read.truth.tolist()) == ("", [18.0, 20.5])
    assert read_target(np.array([18.0, 20.5]), "EF").target.title == "EF, %"


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
        (text(*(f"name {i}" for i in range(60))), {}, r"X has 60 different values, such as .*at most 50 classes"),
        (np.array([1.0, np.inf, 2.5]), {}, r"X has infinite values"),
        (np.array([55.0, np.nan, 55.0]), {}, r"X is 55 wherever it is known; there is nothing to learn"),
        (np.full(3, np.nan), {"task": "regression"}, r"X has no value at all; leave it out"),
        (
            text("mild", "severe", "none"),
            {"task": "ordinal"},
            r"their order is not known.*--order \"mild,none,severe\"",
        ),
        (text("mild", "grave"), {"order": ("none", "mild")}, r"X has 'grave', which the order none, mild lacks"),
        (
            text(*map(str, range(30)), "n/d", "?"),
            {},
            r"X has numbers, and 2 different cells that are none: 'n/d', '\?'; correct them or leave them empty",
        ),
    ],
)
def test_unusable_labels_say_why(column: np.ndarray, options: dict[str, str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_target(column, "X", Reading(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "grades"}, r"task is 'grades'; allowed are regression, binary, multiclass, ordinal \(--task\)"),
        ({"task": "binary", "order": ("a", "b")}, r"an order is for grades, and the task is binary"),
        ({"order": ("a", "b", "a")}, r"the order is a, b, a; two grades or more, each once \(--order\)"),
        ({"order": ("a",)}, r"the order is a; two grades or more"),
    ],
)
def test_unusable_readings_say_why(options: dict[str, str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Reading(**options)  # type: ignore[arg-type]


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
    read = read_target(np.array([1234561.0, 1234562, 1234563] * 5), "Device", Reading(task="multiclass"))
    assert read.target.classes == ("1234561", "1234562", "1234563")


def test_one_part_of_a_class_name_is_enough_where_it_is_unambiguous() -> None:
    task = replace(TASKS["AVStenosis"], classes=("Mild|Moderate", "None", "Moderate|Severe"))
    assert matched_classes(Target("X", "ordinal", ("mild", "severe", "none", "mild|moderate")), task) == [0, 2, 1, 0]
    with pytest.raises(ArgumentError, match=r"its labels 'moderate' are no classes of the task"):
        matched_classes(Target("X", "ordinal", ("none", "moderate")), task)


def test_classes_are_found_among_those_of_a_head() -> None:
    task = TASKS["AVStenosis"]
    target = Target("AVStenosis", "ordinal", ("None", "Mild", "Severe"))
    assert [task.classes[i] for i in matched_classes(target, task)] == ["None", "Mild|Moderate", "Severe"]
    with pytest.raises(ArgumentError, match=r"its labels 'awful' are no classes of the task"):
        matched_classes(Target("AVStenosis", "binary", ("none", "awful")), task)


def test_grades_are_called_by_the_median_and_classes_by_the_mode() -> None:
    probability = np.array([[0.4, 0.25, 0.35], [0.1, 0.2, 0.7]])
    assert Target("X", "ordinal", ("a", "b", "c")).called(probability, np.nan).tolist() == [1, 2]
    assert Target("X", "multiclass", ("a", "b", "c")).called(probability, np.nan).tolist() == [0, 2]
    assert Target("X", "binary", ("a", "b")).called(np.array([0.2, 0.3]), 0.3).tolist() == [0, 1]


def test_an_order_or_a_positive_class_may_be_of_one_target() -> None:
    reading = Reading.parse(None, ["VIEW=A4C", "yes"], ["MR=none, mild,severe"], tasks={})
    assert reading.of("MR").order == ("none", "mild", "severe")
    assert reading.of("EF").order == ()
    assert (reading.of("VIEW").positive, reading.of("AS").positive) == ("A4C", "yes")
    column = np.array(["severe", "none", "mild"], dtype=object)
    assert read_target(column, "MR", reading).target.kind == "ordinal"
    assert read_target(np.array([1.5, 2, 3]), "EF", reading).target.kind == "regression"
    assert Reading.parse(None, [">=50"], [], tasks={}).positive == ">=50"


def test_an_order_of_nothing_that_is_asked_for_is_refused() -> None:
    reading = Reading.parse(None, [], ["TR=none,mild"], tasks={})
    with pytest.raises(ArgumentError, match=r"'TR' in --order is no target of this run; these are MR, EF"):
        reading.check_names(["MR", "EF"])
    with pytest.raises(ArgumentError, match=r"--order is given more than once for all targets; use --order TARGET="):
        Reading.parse(None, [], ["a,b", "b,a"], tasks={})
