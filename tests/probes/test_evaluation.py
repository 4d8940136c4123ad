"""Select, refit, test once: what an evaluation says and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.metrics import point_values
from panecho_embed.evaluation.report import metric_rows
from panecho_embed.evaluation.splits import Fold
from panecho_embed.evaluation.targets import Reading
from probes.linear import LinearProbe
from probes.plans import RunSettings, average_rows, fit_fold, make_folds
from probes.problem import Problem, load_problem
from probes.run import evaluate

SETTINGS = RunSettings(draws=200)
ONE = replace(SETTINGS, trainings=1)


def test_a_signal_beats_the_baseline_with_an_interval_that_excludes_it(table: EmbeddingTable) -> None:
    scored = evaluate(load_problem(table, "EF"), LinearProbe(), SETTINGS).scored
    assert scored.gain["mae"].high < 0
    assert scored.scores["mae"].high < scored.baseline["mae"].low


def test_noise_does_not_beat_the_baseline(table: EmbeddingTable) -> None:
    assert evaluate(load_problem(table, "Noise"), LinearProbe(), SETTINGS).scored.gain["mae"].high > 0


@pytest.mark.parametrize("target", ["LowEF", "Grade"])
def test_classes_are_scored_by_auroc(table: EmbeddingTable, target: str) -> None:
    problem = load_problem(table, target)
    scored = evaluate(problem, LinearProbe(problem.target.kind), SETTINGS).scored
    assert scored.scores["auroc"].low > 0.5 == scored.baseline["auroc"].value


def test_given_splits_test_only_the_test_patients(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), SETTINGS)
    assert set(problem.split[result.unit]) == {"test"}
    assert result.scored.scores["mae"].n_patients == 12
    chose = result.predictions.of_split("val")
    assert chose.ids["video_id"].tolist() == problem.ids["video_id"][problem.split == "val"].tolist()


def test_test_labels_change_no_prediction(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), SETTINGS)
    shuffled = problem.truth.copy()
    shuffled[result.unit] = np.random.default_rng(0).permutation(shuffled[result.unit])
    other = evaluate(replace(problem, truth=shuffled), LinearProbe(), SETTINGS)
    np.testing.assert_array_equal(result.predictions.prediction, other.predictions.prediction)


def test_given_validation_alone_chooses_the_strength(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), SETTINGS)
    train, val = (np.flatnonzero(problem.split == name) for name in ("train", "val"))
    losses = []
    for row in result.probes[0].grid_rows():
        own = {name: value for name, value in row.items() if name not in ("loss", "chosen", "alpha")}
        probe = LinearProbe(strengths=[row["alpha"]], **own).fit(problem.values[train], problem.truth[train])
        losses.append(np.mean((probe.predict(problem.values[val]) - problem.truth[val]) ** 2))
    assert [row["loss"] for row in result.probes[0].grid_rows()] == pytest.approx(losses)


def test_kfold_tests_every_patient_once_in_each_training(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    result = evaluate(problem, LinearProbe(), replace(SETTINGS, trainings=2))
    assert [sorted(result.unit[i * len(problem) :][: len(problem)]) for i in range(2)] == [
        list(range(len(problem)))
    ] * 2
    assert (len(result.probes), len(result.plans)) == (5, 2)
    assert list(result.predictions.replicates()) == [("", "0"), ("", "1")]


def test_other_trainings_are_other_partitions_and_widen_the_interval(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    one, three = (evaluate(problem, LinearProbe(), replace(SETTINGS, trainings=n)) for n in (1, 3))
    assert len({tuple(plan.folds[0].test) for plan in three.plans}) == 3
    np.testing.assert_array_equal(one.plans[0].folds[0].test, three.plans[0].folds[0].test)
    assert len(three.scored.by_run["mae"]) == 3
    assert three.scored.scores["mae"].value == pytest.approx(three.scored.by_run["mae"].mean())
    assert three.chance.share == pytest.approx(0.8)


def test_a_given_split_has_one_training(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    assert len(evaluate(problem, LinearProbe(), SETTINGS).plans) == 1
    with pytest.raises(ArgumentError, match=r"the split column gives one training; --trainings is for --folds"):
        evaluate(problem, LinearProbe(), replace(SETTINGS, trainings=2))
    with pytest.raises(ArgumentError, match=r"trainings is 0; it must be 1 or more \(--trainings\)"):
        evaluate(problem, LinearProbe(), replace(SETTINGS, trainings=0))


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
    fitted, held_out = fit_fold(problem, LinearProbe(problem.target.kind), everybody)
    assert fitted.folds == unit_folds
    assert np.isfinite(held_out).all()


def test_late_fusion_averages_the_predictions_of_a_study(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF", level="study", fusion="late")
    result = evaluate(problem, LinearProbe(), SETTINGS)
    unit = result.unit[0]
    rows = result.probes[0].predict(problem.values[problem.unit == unit])
    assert len(rows) == 6
    assert result.scored.predictions.prediction[0] == pytest.approx(rows.mean())


def test_leaking_patients_are_named_unless_insisted(table: EmbeddingTable) -> None:
    split = table.split.copy()
    split[table.video_id == "v000"] = "test"  # the patient's other video trains
    problem = load_problem(replace(table, split=split), "EF")
    with pytest.raises(ArgumentError, match=r"1 patient is in both train and test.*p000"):
        evaluate(problem, LinearProbe(), SETTINGS)
    insisted = evaluate(problem, LinearProbe(), replace(SETTINGS, allow_leakage=True))
    assert insisted.scored.scores["mae"].n == 25


def test_half_filled_split_column_is_refused(table: EmbeddingTable) -> None:
    split = table.split.copy()
    split[table.patient_id == "p001"] = ""
    with pytest.raises(ArgumentError, match=r"2 of 120 video rows have no split.*--folds K"):
        make_folds(load_problem(replace(table, split=split), "EF"))


def test_one_class_in_the_test_set_is_refused(table: EmbeddingTable) -> None:
    problem = load_problem(table, "LowEF")
    truth = np.where(problem.split == "test", 0, problem.truth)
    with pytest.raises(ArgumentError, match="test set has only one class, '0'"):
        evaluate(replace(problem, truth=truth), LinearProbe("binary"), SETTINGS)


def test_a_class_that_nobody_trains_on_is_refused(table: EmbeddingTable) -> None:
    problem = load_problem(table, "Grade")
    truth = np.where((problem.truth == 2) & (problem.split != "test"), 1, problem.truth)
    with pytest.raises(
        ArgumentError, match=r"too few patients of class severe \(0\) are left to train on \(split\); it takes 1"
    ):
        evaluate(replace(problem, truth=truth), LinearProbe("multiclass"), SETTINGS)


def test_cutoffs_are_for_numbers(table: EmbeddingTable) -> None:
    with pytest.raises(ArgumentError, match=r"cut-offs are for a regression; LowEF is binary"):
        evaluate(load_problem(table, "LowEF"), LinearProbe("binary"), RunSettings(cutoffs=(40,)))


def test_same_seed_same_evaluation(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    first, second, other = (evaluate(problem, LinearProbe(), replace(ONE, seed=seed)).scored for seed in (3, 3, 4))
    assert first.scores == second.scores
    assert first.scores != other.scores


def test_baseline_is_the_mean_of_what_was_trained_on(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = evaluate(problem, LinearProbe(), SETTINGS)
    trained = problem.truth[problem.split != "test"].mean()
    truth = problem.truth[result.unit]
    assert result.scored.baseline["mae"].value == pytest.approx(
        mean_absolute_error(truth, np.full(len(truth), trained))
    )


@pytest.mark.parametrize("target", ["EF", "LowEF", "Grade"])
def test_a_baseline_that_differs_between_folds_orders_nothing(
    table_of: Callable[..., EmbeddingTable], target: str
) -> None:
    problem: Problem = load_problem(table_of(split=False), target)
    cutoffs = (50.0,) if target == "EF" else ()
    scored = evaluate(problem, LinearProbe(problem.target.kind), replace(ONE, cutoffs=cutoffs)).scored
    assert len(np.unique(scored.predictions.baseline, axis=0)) > 1
    if target == "EF":
        error = np.abs(scored.predictions.baseline - scored.predictions.truth).mean()
        assert scored.baseline["mae"].value == pytest.approx(error)
        assert point_values(scored.predictions.metrics())["mae"] < error
        assert scored.baseline["auroc_below_50"].value == 0.5
        assert np.isnan([scored.baseline[name].value for name in ("pearson", "calibration_slope")]).all()
        assert np.isnan(scored.gain["pearson"].value)
    else:
        assert scored.baseline["auroc"].value == 0.5
    if target == "LowEF":
        assert scored.baseline["average_precision"].value == pytest.approx(problem.truth.mean())


def test_table_has_one_row_a_metric(table: EmbeddingTable) -> None:
    scored = evaluate(load_problem(table, "EF"), LinearProbe(), replace(SETTINGS, cutoffs=(50,))).scored
    columns, rows = metric_rows(scored)
    assert columns == ["Metric", "Value", "95 % interval", "Baseline", "Difference"]
    assert [row[0] for row in rows[:3]] == ["MAE, %", "RMSE, %", "R²"]
    assert "AUROC, below 50" in [row[0] for row in rows]


def test_rows_average_to_units_by_their_shares_and_missing_units_are_nan() -> None:
    averaged = average_rows(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), np.array([0.75, 0.25, 1.0]), 3)
    np.testing.assert_array_equal(averaged, [1.5, np.nan, 5])


def test_a_class_that_an_inner_fold_takes_away_is_named(table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.base.grouped_folds", lambda groups, y, k, **_: np.where(np.asarray(y) == 2, 0, 1))
    problem = load_problem(table, "Grade")
    with pytest.raises(ArgumentError, match="class severe of Grade is missing from the training rows"):
        evaluate(problem, LinearProbe("multiclass"), replace(ONE, folds=3))


def test_ordered_grades_are_read_by_the_median_grade(table: EmbeddingTable) -> None:
    problem = load_problem(table, "Grade", reading=Reading(order=("mild", "moderate", "severe")))
    scored = evaluate(problem, LinearProbe("ordinal"), SETTINGS).scored
    assert scored.metric == "weighted_kappa"
    assert scored.primary.low > 0
    assert scored.baseline["weighted_kappa"].value == pytest.approx(0, abs=1e-12)
