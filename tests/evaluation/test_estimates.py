"""Intervals without a bootstrap: values, influences, limits in closed form, and how often they contain the truth."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from panecho_embed.evaluation.estimates import (
    Estimate,
    auroc,
    class_estimates,
    decision_estimates,
    effective_rows,
    macro_estimates,
    ranking_part,
    ranking_values,
    wilson,
)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "probe_coverage.py"
FEW_CELLS = [(0.7, 20, 0.2, "several"), (0.967, 20, 0.5, "one"), (0.967, 20, 0.1, "one"), (0.98, 50, 0.5, "either")]


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("probe_coverage_bench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def rows(seed: int = 0, decimals: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, score and patient of 140 rows of 60 patients, of either class."""
    rng = np.random.default_rng(seed)
    codes = np.r_[np.arange(60), rng.integers(0, 60, 80)]
    positive = rng.random(140) < 0.3
    return positive, np.round(positive + rng.normal(size=140), decimals), codes


def proportion(successes: np.ndarray, codes: np.ndarray) -> Estimate:
    """The share of successes: the sensitivity where all rows are positive."""
    return decision_estimates(np.ones(len(codes), dtype=bool), successes, codes, codes.max() + 1)["sensitivity"]


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_estimates_of_an_order_equal_its_values_and_their_derivatives(decimals: int) -> None:
    part = ranking_part(*rows(decimals=decimals), 60, ranking_values(0.85))
    values, moved = part(np.ones((1, 60))), part(1 + 1e-6 * np.eye(60))
    for name, one in part.estimate().items():
        assert one.value == pytest.approx(values[name][0]), name
        assert one.low < one.value < one.high, name
        assert one.influence == pytest.approx((moved[name] - values[name]) / 1e-6, abs=1e-6), name


def test_auroc_of_one_row_per_patient_has_newcombes_interval() -> None:
    positive, score, _ = rows()
    one = ranking_part(positive, score, np.arange(140), 140, {"auroc": auroc}).estimate()["auroc"]
    m, n = positive.sum(), (~positive).sum()
    for x in (one.low, one.high):
        pairs = (m + n) / 2 - 1
        variance = x * (1 - x) * (1 + pairs * (1 - x) / (2 - x) + pairs * x / (1 + x)) / (m * n)
        assert (one.value - x) ** 2 == pytest.approx(1.96**2 * variance, rel=0.15)
        assert (one.value - x) ** 2 >= 1.9599**2 * variance  # the data vary as much as the model, or more


def test_auroc_of_the_opposite_score_has_the_mirrored_interval() -> None:
    positive, score, codes = rows()
    one, other = (ranking_part(positive, s, codes, 60, {"auroc": auroc}).estimate()["auroc"] for s in (score, -score))
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))


@pytest.mark.parametrize(("positives", "negatives"), [(6, 54), (20, 180), (30, 10)])
def test_perfect_separation_has_the_lower_limit_of_so_many_successes(positives: int, negatives: int) -> None:
    positive = np.r_[np.ones(positives), np.zeros(negatives)] > 0
    count = positives + negatives
    fewer = min(positives, negatives)
    exact = binomtest(fewer, fewer).proportion_ci(method="exact").low
    part = ranking_part(positive, positive + np.linspace(0, 0.5, count), np.arange(count), count, ranking_values(0.9))
    for name in ("auroc", "average_precision"):
        one = part.estimate()[name]
        assert (one.value, one.low, one.high) == pytest.approx((1, exact, 1)), name


def test_ten_copies_of_each_row_do_not_narrow_an_interval() -> None:
    positive, score, _ = rows()
    codes = np.arange(140)
    once = ranking_part(positive, score, codes, 140, ranking_values(0.9)).estimate()
    ten = ranking_part(positive.repeat(10), score.repeat(10), codes.repeat(10), 140, ranking_values(0.9)).estimate()
    once |= decision_estimates(positive, score > 0.5, codes, 140)
    ten |= decision_estimates(positive.repeat(10), score.repeat(10) > 0.5, codes.repeat(10), 140)
    for name, one in once.items():
        assert ten[name].value == pytest.approx(one.value), name
        # Precision at a score counts all ten copies, and the variance of 140 patients is divided by 139.
        assert ten[name].high - ten[name].low == pytest.approx(one.high - one.low, rel=0.02), name


def test_rows_of_independent_scores_count_fully_and_equal_rows_once() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(500).repeat(4)
    assert effective_rows(rng.normal(size=2000), codes) == pytest.approx(2000, rel=0.1)
    assert effective_rows(rng.normal(size=500).repeat(4), codes) == pytest.approx(500)
    assert effective_rows(rng.normal(size=2000), np.arange(2000)) == 2000


def test_a_constant_score_has_no_order_and_the_precision_of_the_frequency() -> None:
    positive, _, codes = rows()
    found = ranking_part(positive, np.full(140, 0.3), codes, 60, ranking_values(0.9)).estimate()
    assert (found["auroc"].low, found["auroc"].high) == (0.5, 0.5)
    frequency = proportion(positive, codes)
    assert (found["average_precision"].low, found["average_precision"].high) == (frequency.low, frequency.high)


@pytest.mark.parametrize("count", [0, 1, 13, 19, 20])
def test_a_proportion_of_patients_has_the_intervals_of_scipy(count: int) -> None:
    one = proportion(np.arange(20) < count, np.arange(20))
    exact = binomtest(count, 20).proportion_ci(method="exact")
    assert (one.low, one.high) == pytest.approx((exact.low, exact.high))
    score = binomtest(count, 20).proportion_ci(method="wilson")
    assert wilson(count / 20, 20) == pytest.approx((score.low, score.high))


def test_all_rows_right_is_as_many_successes_as_patients() -> None:
    one = proportion(np.ones(60, dtype=bool), np.arange(20).repeat(3))
    assert (one.low, one.high) == pytest.approx((0.025 ** (1 / 20), 1))


def test_f1_and_its_influence_equal_those_of_its_formula() -> None:
    positive, score, codes = rows()
    one = decision_estimates(positive, score > 0.5, codes, 60)["f1"]
    assert one.value == pytest.approx(f1_score(positive, score > 0.5))
    weights = np.ones(60)
    weights[7] += 1e-6
    heavier = f1_score(positive, score > 0.5, sample_weight=weights[codes])
    assert one.influence[7] == pytest.approx((heavier - one.value) / 1e-6, abs=1e-6)


def test_decisions_that_are_not_defined_have_no_estimate() -> None:
    found = decision_estimates(np.ones(9, dtype=bool), np.ones(9, dtype=bool), np.arange(9), 9)
    assert set(found) == {"sensitivity", "ppv", "f1"}


def test_classes_have_the_means_of_their_sensitivities_and_f1() -> None:
    truth, decided = np.repeat([0, 1, 2], 10), np.tile([0, 1, 2, 1, 0], 6)
    found = class_estimates(truth, decided, np.arange(30), 30, ("none", "mild", "severe"))
    per_class = f1_score(truth, decided, average=None)
    assert [found[f"f1:{name}"].value for name in ("none", "mild", "severe")] == pytest.approx(per_class)
    assert found["f1"].value == pytest.approx(per_class.mean())
    assert found["balanced_accuracy"].value == pytest.approx((truth == decided).mean())


def test_the_mean_of_two_equal_estimates_has_their_interval() -> None:
    one = Estimate(0.9, 0.8, 0.95, np.array([0.1, -0.1, 0.0]))
    both = macro_estimates({"a": {"f1": one}, "b": {"f1": one}})["f1"]
    assert (both.value, both.low, both.high) == pytest.approx((0.9, 0.8, 0.95))


def test_the_mean_of_independent_estimates_adds_their_squares() -> None:
    a, b = Estimate(0.9, 0.8, 0.95, np.array([1.0, 0])), Estimate(0.7, 0.6, 0.75, np.array([0, 1.0]))
    both = macro_estimates({"a": {"f1": a}, "b": {"f1": b}})["f1"]
    assert (both.low, both.high) == pytest.approx((0.8 - 0.1 / np.sqrt(2), 0.8 + 0.05 / np.sqrt(2)))


def test_estimates_of_classes_have_their_names_and_a_mean_where_all_have_one() -> None:
    one = Estimate(0.9, 0.8, 0.95, np.zeros(2))
    assert set(macro_estimates({"a": {"auroc": one, "f1": one}, "b": {"auroc": one}})) == {
        "auroc",
        "auroc:a",
        "auroc:b",
        "f1:a",
    }


@pytest.mark.parametrize("setting", FEW_CELLS)
def test_intervals_contain_the_truth(bench: ModuleType, setting: tuple[float, int, float, str]) -> None:
    for name, (covered, _) in bench.class_coverage(bench.Cell(*setting), 300).items():
        assert covered >= 0.925, name  # 300 simulations of 95 %: 1.3 points of standard error


@pytest.mark.slow
def test_intervals_contain_the_truth_in_every_setting(bench: ModuleType) -> None:
    for cell in bench.cells():
        if cell.positives >= 20:
            for name, (covered, _) in bench.class_coverage(cell, 1000).items():
                assert covered >= 0.92, (name, cell)
