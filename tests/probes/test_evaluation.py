"""Select, refit, test once: what an evaluation says and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from panecho_embed.errors import ArgumentError
from panecho_embed.records import EmbeddingTable
from probes.evaluation import average_rows, evaluate, fit_fold, make_folds
from probes.folds import Fold
from probes.linear import LinearProbe
from probes.problem import load_problem

DRAWS = 200


def test_a_signal_beats_the_baseline_with_an_interval_that_excludes_it(table: EmbeddingTable) -> None:
    result = evaluate(load_problem(table, "EF"), LinearProbe(), draws=DRAWS)
    assert result.versus_baseline["mae"].high < 0
    assert result.scores["mae"].high < result.baseline_scores["mae"].low


def test_noise_does_not_beat_the_baseline(table: EmbeddingTable) -> None:
    result = evaluate(load_problem(table, "Noise"), LinearProbe(), draws=DRAWS)
    assert result.versus_baseline["mae"].high > 0


@pytest.mark.parametrize("target", ["LowEF", "Grade"])
def test_classes_are_scored_by_auroc(table: EmbeddingTable, target: str) -> None:
    problem = load_problem(table, target)
    result = evaluate(problem, LinearProbe(problem.task), draws=DRAWS)
    assert result.scores["auroc"].low > 0.5 == result.baseline_scores["auroc"].value


def test_given_splits_test_only_the_test_patients(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), draws=DRAWS)
    assert set(problem.split[result.tested]) == {"test"}
    assert np.isfinite(result.validation).sum() == (problem.split == "val").sum()
    assert result.scores["mae"].n_patients == 12


def test_test_labels_change_no_prediction(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), draws=DRAWS)
    shuffled = problem.truth.copy()
    shuffled[result.tested] = np.random.default_rng(0).permutation(shuffled[result.tested])
    other = evaluate(replace(problem, truth=shuffled), LinearProbe(), draws=DRAWS)
    np.testing.assert_array_equal(result.prediction, other.prediction)


def test_given_validation_alone_chooses_the_strength(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), draws=DRAWS)
    train, val = (np.flatnonzero(problem.split == name) for name in ("train", "val"))
    losses = []
    for row in result.probes[0].grid_rows():
        probe = LinearProbe(strengths=[row["alpha"]]).fit(problem.values[train], problem.truth[train])
        losses.append(np.mean((probe.predict(problem.values[val]) - problem.truth[val]) ** 2))
    assert [row["loss"] for row in result.probes[0].grid_rows()] == pytest.approx(losses)


def test_kfold_tests_every_patient_once(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    result = evaluate(problem, LinearProbe(), draws=DRAWS)
    assert len(result.tested) == len(problem)
    assert len(result.probes) == 5


def test_number_of_folds_overrides_the_split_column(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    assert len(make_folds(problem)) == 1
    assert len(make_folds(problem, folds=4)) == 4


@pytest.mark.parametrize(("target", "unit_folds"), [("EF", 5), ("Grade", 3)])
def test_there_are_as_many_inner_folds_as_the_rarest_class_has_patients(
    table: EmbeddingTable, target: str, unit_folds: int
) -> None:
    problem = load_problem(table, target)
    severe = np.unique(problem.patient[problem.truth == 2].astype(str))[3:]
    if target == "Grade":
        problem = problem.take(np.flatnonzero(~np.isin(problem.patient.astype(str), severe)))
    everybody = Fold("all", np.arange(len(problem)), np.empty(0, dtype=np.int64), np.arange(len(problem)))
    fitted, held_out = fit_fold(problem, LinearProbe(problem.task), everybody)
    assert fitted.folds == unit_folds
    assert np.isfinite(held_out).all()


def test_late_fusion_averages_the_predictions_of_a_study(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF", level="study", fusion="late")
    result = evaluate(problem, LinearProbe(), draws=DRAWS)
    unit = result.tested[0]
    rows = result.probes[0].predict(problem.values[problem.unit == unit])
    assert len(rows) == 6
    assert result.prediction[unit] == pytest.approx(rows.mean())


def test_leaking_patients_are_named_unless_insisted(table: EmbeddingTable) -> None:
    split = table.split.copy()
    split[table.video_id == "v000"] = "test"  # the patient's other video trains
    problem = load_problem(replace(table, split=split), "EF")
    with pytest.raises(ArgumentError, match=r"1 patient is in both train and test.*p000"):
        evaluate(problem, LinearProbe(), draws=DRAWS)
    assert evaluate(problem, LinearProbe(), draws=DRAWS, allow_leakage=True).scores["mae"].n == 25


def test_half_filled_split_column_is_refused(table: EmbeddingTable) -> None:
    split = table.split.copy()
    split[table.patient_id == "p001"] = ""
    with pytest.raises(ArgumentError, match=r"2 of 120 video rows have no split.*--folds K"):
        make_folds(load_problem(replace(table, split=split), "EF"))


def test_one_class_in_the_test_set_is_refused(table: EmbeddingTable) -> None:
    problem = load_problem(table, "LowEF")
    truth = np.where(problem.split == "test", 0, problem.truth)
    with pytest.raises(ArgumentError, match="test set has only one class, '0'"):
        evaluate(replace(problem, truth=truth), LinearProbe("binary"), draws=DRAWS)


def test_a_class_that_nobody_trains_on_is_refused(table: EmbeddingTable) -> None:
    problem = load_problem(table, "Grade")
    truth = np.where((problem.truth == 2) & (problem.split != "test"), 1, problem.truth)
    with pytest.raises(
        ArgumentError, match=r"too few patients of class severe \(0\) are left to train on \(split\); it takes 1"
    ):
        evaluate(replace(problem, truth=truth), LinearProbe("multiclass"), draws=DRAWS)


def test_cutoffs_are_for_numbers(table: EmbeddingTable) -> None:
    with pytest.raises(ArgumentError, match=r"cut-offs are for a regression; LowEF is binary"):
        evaluate(load_problem(table, "LowEF"), LinearProbe("binary"), cutoffs=(40,))


def test_same_seed_same_evaluation(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    first, second = (evaluate(problem, LinearProbe(), draws=DRAWS, seed=3) for _ in range(2))
    assert first.scores == second.scores


def test_baseline_is_the_mean_of_what_was_trained_on(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), draws=DRAWS)
    trained = problem.truth[problem.split != "test"].mean()
    truth = problem.truth[result.tested]
    assert result.baseline_scores["mae"].value == pytest.approx(
        mean_absolute_error(truth, np.full(len(truth), trained))
    )


def test_table_has_one_row_a_metric(table: EmbeddingTable) -> None:
    frame = evaluate(load_problem(table, "EF"), LinearProbe(), cutoffs=(50,), draws=DRAWS).table()
    assert list(frame.index[:3]) == ["mae", "rmse", "r2"]
    assert "auroc_below_50" in frame.index


def test_rows_average_to_units_by_their_shares_and_missing_units_are_nan() -> None:
    averaged = average_rows(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), np.array([0.75, 0.25, 1.0]), 3)
    np.testing.assert_array_equal(averaged, [1.5, np.nan, 5])


def test_a_class_that_an_inner_fold_takes_away_is_named(table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.base.grouped_folds", lambda groups, y, k, **_: np.where(np.asarray(y) == 2, 0, 1))
    problem = load_problem(table, "Grade")
    with pytest.raises(ArgumentError, match="class severe of Grade is missing from the training rows"):
        evaluate(problem, LinearProbe("multiclass"), make_folds(problem, folds=3), draws=50)
