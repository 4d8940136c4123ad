from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from panecho_embed.core.tasks import all_tasks
from panecho_embed.evaluation.inference import scores
from panecho_embed.prediction.agreement import agreements
from panecho_embed.prediction.averages import average
from panecho_embed.store import EmbeddingFile
from tests.conftest import refs
from tests.evaluation.made import regression_metrics

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
    assert list(found.scored) == ["train"]  # as the studies' split column says
    assert found.main.scores["mae"] == expected["mae"]
    assert (found.main.primary.n, found.problem) == (5, "")


def test_strain_labels_of_either_sign_mean_the_same(compared):
    values = [-18, -20, -12, -9, -15, -21]
    below = compared("GLS", [-17, -21, -11, -10, -16, -20], values)
    above = compared("GLS", [17, 21, 11, 10, 16, 20], values)
    assert above.main.scores == below.main.scores
    np.testing.assert_array_equal(above.predictions[0].truth, below.predictions[0].truth)
    assert "sign flipped" in above.note
    assert below.note == ""


def test_the_positive_class_is_the_clinical_one(compared):
    labels = ["None", "none", "Mild", "severe", "Mild|Moderate|Severe", ""]
    assert compared("MVStenosis", labels, [0.1, 0.2, 0.8, 0.7, 0.9, 0.5]).main.scores["auroc"].value == 1


def test_classes_that_are_numbers_may_be_numbers(compared):
    assert compared("LVOT20mmHg", [0, 1, 0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8, 0.3, 0.7]).main.scores["auroc"].value == 1


def test_multiclass(compared):
    labels = ["None", "Mild", "Moderate", "Severe", "None", "Severe"]
    values = np.eye(3)[[1, 0, 0, 2, 1, 2]] * 0.7 + 0.1
    assert compared("AVStenosis", labels, values).main.scores["auroc"].value == 1


@pytest.mark.parametrize(
    ("name", "labels", "problem"),
    [
        (
            "RASize",
            [0, 1, 0, 1, 0, 1],
            r"RASize has the numbers '0', '1', and its classes are Dilated, Normal: which is which",
        ),
        ("AVStenosis", ["None", "Bad", "", "", "", ""], r"AVStenosis: its labels 'Bad' are no classes"),
        ("EF", ["low", "", "", "", "", ""], r"EF has text where regression needs numbers: 'low'"),
        ("EF", [50, 50, 50, 50, 50, 50], r"EF is 50 wherever it is known"),
        ("EF", [np.nan] * 6, r"no value"),
    ],
)
def test_labels_that_cannot_be_compared_are_told(compared, name, labels, problem):
    found = compared(name, labels, [0.1] * 6 * TASK[name].num_outputs)
    assert found.main is None
    assert problem in found.problem


def test_metrics_json(predicted):
    content = json.loads((predicted.out / "metrics.json").read_text())
    assert (content["schema_version"], content["made_by"]) == (2, "predict")
    # The two studies differ in these; RASize has the numbers 0 and 1, and the task's classes have names.
    assert list(content["targets"]) == ["EF", "GLS", "MVStenosis"]
    assert list(content["not_evaluated"]) == ["RASize"]
    ef = content["targets"]["EF"]
    assert (ef["level"], ef["n_patients"], ef["metrics"]["mae"]["n_patients"]) == ("study", 2, 2)
    assert (ef["split"], list(ef["splits"])) == ("test", ["test"])  # without a split column every row is a test row
    page = (predicted.out / "report.html").read_text()
    assert "bootstrap samples of patients were drawn" in page
