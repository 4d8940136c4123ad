from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from panecho_embed.evaluation.intervals import scores
from panecho_embed.evaluation.metrics import regression_metrics
from panecho_embed.prediction.agreement import agreements
from panecho_embed.prediction.averages import average
from panecho_embed.store import EmbeddingFile
from panecho_embed.tasks import all_tasks
from tests.conftest import refs

TASK = {task.name: task for task in all_tasks()}
PATIENTS = "abcdef"


def raw_outputs(task, values):
    """What the head gives where `values` (N, K) are reported."""
    if task.type == "regression":
        return task.sign * values
    if task.type == "multiclass":
        return np.log(values)
    return np.log(values / (1 - values)) * (1 if task.positive_class_index == 1 else -1)


@pytest.fixture
def compared(make_file):
    """compared("EF", labels, values): six studies of a patient each, a clip each."""

    def compare(name, labels, values):
        column = np.array(labels, dtype=object if any(isinstance(v, str) for v in labels) else np.float64)
        path = make_file(f"{len(labels)}.h5", refs(*PATIENTS), rows=[1] * 6, labels={name: column, "other": column})
        raw = raw_outputs(TASK[name], np.reshape(values, (6, -1)).astype(float))
        (only,) = agreements(average([TASK[name]], dataclasses.replace(EmbeddingFile(path).table(), values=raw)))
        return only

    return compare


def test_a_regression_is_compared_with_the_metrics_of_the_package(compared):
    truth, predicted = [30, 40, 50, 60, 65, np.nan], [35, 41, 48, 66, 60, 99]
    expected = scores(regression_metrics(truth[:5], predicted[:5], list(PATIENTS[:5])))
    found = compared("EF", truth, predicted)
    assert found.scores["mae"] == expected["mae"]
    assert (found.scores["mae"].n, found.problem) == (5, "")


def test_strain_labels_of_either_sign_mean_the_same(compared):
    values = [-18, -20, -12, -9, -15, -21]
    below = compared("GLS", [-17, -21, -11, -10, -16, -20], values)
    above = compared("GLS", [17, 21, 11, 10, 16, 20], values)
    assert above.scores == below.scores
    assert "sign flipped" in above.note
    assert below.note == ""


def test_the_positive_class_is_the_clinical_one(compared):
    labels = ["None", "none", "Mild", "severe", "Mild|Moderate|Severe", ""]
    assert compared("MVStenosis", labels, [0.1, 0.2, 0.8, 0.7, 0.9, 0.5]).scores["auroc"].value == 1


def test_classes_that_are_numbers_may_be_numbers(compared):
    assert compared("LVOT20mmHg", [0, 1, 0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8, 0.3, 0.7]).scores["auroc"].value == 1


def test_multiclass(compared):
    labels = ["None", "Mild", "Moderate", "Severe", "None", "Severe"]
    values = np.eye(3)[[1, 0, 0, 2, 1, 2]] * 0.7 + 0.1
    assert compared("AVStenosis", labels, values).scores["auroc"].value == 1


@pytest.mark.parametrize(
    ("name", "labels", "problem"),
    [
        ("RASize", [0, 1, 0, 1, 0, 1], r"'0', '1' are no classes of the task; the classes are Dilated, Normal"),
        ("AVStenosis", ["None", "Bad", "", "", "", ""], r"'Bad' are no classes"),
        ("EF", ["low", "", "", "", "", ""], r"labels are text \('low'\); numbers were expected"),
        ("EF", [50, 50, 50, 50, 50, 50], r"one value; nothing can be told apart"),
        ("EF", [np.nan] * 6, r"no value"),
    ],
)
def test_labels_that_cannot_be_compared_are_told(compared, name, labels, problem):
    found = compared(name, labels, [0.1] * 6 * TASK[name].num_outputs)
    assert found.scores == {}
    assert problem.replace("\\", "") in found.problem


def test_metrics_json(predicted):
    content = json.loads((predicted.out / "metrics.json").read_text())
    found = {one["task"]: one for one in content["agreement"]}
    assert list(found) == ["EF", "GLS", "RASize", "MVStenosis"]
    assert found["RASize"]["metrics"] == []
    metrics = {one["metric"]: one for one in found["EF"]["metrics"]}
    assert metrics["mae"]["n_patients"] == 2
    assert "bootstraps over patients" in content["intervals"]
