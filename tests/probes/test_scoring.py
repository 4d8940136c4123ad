"""The trivial baseline, which orders nothing, and the threshold of a binary decision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from panecho_embed.evaluation.metrics import point_values
from panecho_embed.records import EmbeddingTable
from probes.evaluation import Evaluation, evaluate
from probes.linear import LinearProbe
from probes.outputs import RunInfo, metrics_document
from probes.problem import load_problem
from probes.run import RunSettings, run_target
from probes.scoring import youden_threshold


@pytest.fixture(scope="module")
def folded(table_of: Callable[..., EmbeddingTable]) -> Callable[[str], Evaluation]:
    """Cross-validated, so that the baseline is another constant in every fold."""
    whole = table_of(split=False)

    def make(target: str) -> Evaluation:
        problem = load_problem(whole, target)
        return evaluate(problem, LinearProbe(problem.task), draws=50, cutoffs=(50,) if target == "EF" else ())

    return make


def test_a_baseline_that_differs_between_folds_has_no_correlation_and_no_slope(
    folded: Callable[[str], Evaluation],
) -> None:
    result = folded("EF")
    assert len(np.unique(result.baseline)) == 5
    for name in ("pearson", "calibration_slope"):
        assert np.isnan(result.baseline_scores[name].value)
        assert np.isnan(result.versus_baseline[name].p_value)
    assert result.baseline_scores["auroc_below_50"].value == 0.5


def test_a_baseline_that_differs_between_folds_orders_nothing(folded: Callable[[str], Evaluation]) -> None:
    binary, grades = folded("LowEF"), folded("Grade")
    assert binary.baseline_scores["auroc"].value == 0.5
    assert binary.baseline_scores["average_precision"].value == pytest.approx(binary.problem.truth.mean())
    assert grades.baseline_scores["auroc:severe"].value == 0.5


def test_the_errors_of_the_baseline_are_those_of_its_folds(folded: Callable[[str], Evaluation]) -> None:
    result = folded("EF")
    error = np.abs(result.baseline - result.problem.truth).mean()
    assert result.baseline_scores["mae"].value == pytest.approx(error)
    assert point_values(result.metrics())["mae"] < error


def test_what_is_not_defined_is_null_in_the_document(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    result = run_target(problem, LinearProbe(), RunSettings(draws=50))
    baseline = metrics_document([result], RunInfo("x"))["targets"]["EF"]["baseline"]
    assert np.isnan(baseline["calibration_slope"]["value"])  # null when written


def test_threshold_maximises_sensitivity_plus_specificity() -> None:
    truth = np.array([0, 0, 1, 0, 1, 1])
    probability = np.array([0.1, 0.2, 0.3, 0.35, 0.6, np.nan])
    assert youden_threshold(truth, probability) == pytest.approx(0.25)


@pytest.mark.parametrize("truth", [[1, 1], [0, 0]])
def test_threshold_is_a_half_without_both_classes(truth: list[int]) -> None:
    assert youden_threshold(np.array(truth), np.array([0.2, 0.9])) == 0.5
