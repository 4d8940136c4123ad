"""k-shot: who is drawn, how often, and what one shot needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.metrics import point_values
from panecho_embed.evaluation.splits import Fold, draw_patients
from probes.base import BaseProbe
from probes.knn import KNNProbe
from probes.linear import LinearProbe
from probes.plans import Plan, RunSettings, make_folds, make_plans
from probes.problem import Problem, load_problem
from probes.run import evaluate, label_efficiency, run_target

SETTINGS = RunSettings(draws=50, trainings=2)


def few_shots(problem: Problem, shots: int, **settings: int) -> tuple[Plan, ...]:
    return make_plans(problem, replace(SETTINGS, k_shot=shots, **settings), chooses=True)


def drawn_classes(problem: Problem, fold: Fold) -> list[int]:
    """Patients of each class among those trained on."""
    patient, truth = problem.patient[fold.train].astype(str), problem.truth[fold.train]
    return [len(np.unique(patient[truth == index])) for index in range(len(problem.target.classes))]


@pytest.mark.parametrize(("target", "counts"), [("LowEF", [4, 4]), ("Grade", [4, 4, 4]), ("Sex", [4, 4])])
def test_so_many_patients_of_each_class_train_and_all_test(
    table: EmbeddingTable, target: str, counts: list[int]
) -> None:
    problem = load_problem(table, target)
    (whole,) = make_folds(problem)
    for plan in few_shots(problem, 4):
        ((fold,), (draw,)) = plan.folds, plan.drawn
        assert drawn_classes(problem, fold) == counts
        assert set(draw.patients) == set(problem.patient[fold.train])
        assert not set(draw.patients) & set(problem.patient[fold.test])
        np.testing.assert_array_equal(fold.test, whole.test)
        assert len(fold.validation) == 0


def test_shots_of_a_regression_are_patients(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    assert [len(set(problem.patient[plan.folds[0].train])) for plan in few_shots(problem, 7)] == [7, 7]


def test_twenty_draws_are_taken_unless_another_number_is_asked_for(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    plans = make_plans(problem, RunSettings(k_shot=7), chooses=True)
    assert len({plan.drawn[0].patients for plan in plans}) == 20
    assert [plan.name for plan in plans] == [str(i) for i in range(20)]


def test_the_draws_are_those_of_label_efficiency(table: EmbeddingTable) -> None:
    problem = load_problem(table, "LowEF")
    curve = label_efficiency(problem, LinearProbe("binary"), RunSettings(shots=(4,), repeats=2, seed=3))
    result = evaluate(problem, LinearProbe("binary"), replace(SETTINGS, k_shot=4, seed=3))
    assert [draw.patients for draw in result.drawn] == [draw.patients for draw in curve.draws]
    assert result.scored.by_run["auroc"] == pytest.approx(curve.values[0])


def test_the_draws_are_told_apart_and_their_share_is_known(table: EmbeddingTable) -> None:
    problem = load_problem(table, "LowEF")
    result = evaluate(problem, LinearProbe("binary"), replace(SETTINGS, k_shot=4))
    assert list(result.predictions.replicates()) == [("", "0"), ("", "1")]
    fold = make_folds(problem)[0]
    assert result.chance.share == pytest.approx(4 / min(drawn_classes(problem, fold)))
    means = [point_values(part.metrics())["auroc"] for part in result.scored.predictions.replicates().values()]
    assert result.scored.primary.value == pytest.approx(np.mean(means))


@pytest.mark.parametrize("probe", [LinearProbe("binary", strengths=[1.0]), KNNProbe("binary", k=[1])])
def test_one_shot_works_where_nothing_is_to_be_chosen(table: EmbeddingTable, probe: BaseProbe) -> None:
    if isinstance(probe, KNNProbe):
        probe.set_params(temperature=[0.1], centre=True)
    settings = replace(SETTINGS, k_shot=1, shots=(1, 3), repeats=2)
    result = run_target(load_problem(table, "LowEF"), probe, settings)
    assert result.evaluation.scored.scores["auroc"].value > 0.5
    # 0.5 before: a threshold that nobody chose.
    assert np.isnan(result.threshold)
    assert np.isnan(result.evaluation.scored.scores["sensitivity"].value)
    assert result.efficiency is not None
    assert result.efficiency.n_patients[0] == 2


@pytest.mark.parametrize("probe", [LinearProbe("binary"), KNNProbe("binary")])
def test_one_shot_is_refused_where_settings_are_to_be_chosen(table: EmbeddingTable, probe: BaseProbe) -> None:
    problem = load_problem(table, "LowEF")
    with pytest.raises(ArgumentError, match=r"fix the setting \(--strengths 1 .*or take 2 shots or more"):
        evaluate(problem, probe, replace(SETTINGS, k_shot=1))


def test_more_shots_than_patients_are_refused(table: EmbeddingTable) -> None:
    with pytest.raises(ArgumentError, match=r"99 patients of each class were asked for; of class \d there are \d+"):
        few_shots(load_problem(table, "Grade"), 99)


def test_after_cross_validation_the_saved_probe_has_as_many_shots(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    result = run_target(problem, KNNProbe(k=[1], temperature=[0.1]), replace(SETTINGS, k_shot=6, folds=3))
    assert [len(plan.drawn) for plan in result.evaluation.plans] == [3, 3]
    assert len(np.unique(result.probe.fitted_arrays()["targets_"])) == 6


def test_a_draw_of_everybody_is_computed_once(table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    import probes.plans as module

    calls: list[int] = []
    run_plan = module.run_plan
    monkeypatch.setattr(module, "run_plan", lambda *given: calls.append(1) or run_plan(*given))  # type: ignore[func-returns-value]
    curve = label_efficiency(load_problem(table, "EF"), LinearProbe(), RunSettings(fractions=(1,), repeats=4))
    assert len(calls) == 1
    assert len(set(curve.values[0])) == 1


def test_classes_that_a_patient_has_in_the_test_only_are_no_shots(table: EmbeddingTable) -> None:
    video = np.array([int(name[1:]) for name in table.video_id])
    split = np.where(video % 2 == 0, "train", "test").astype(object)
    rare = np.where(((video % 2 == 1) & (video < 40)) | (video % 6 == 0), "rare", "common").astype(object)
    problem = load_problem(replace(table, split=split, labels={"X": rare}), "X")
    plan = make_plans(problem, replace(SETTINGS, k_shot=3, allow_leakage=True), chooses=True)[0]
    assert drawn_classes(problem, plan.folds[0]) == [3, 3]


def test_a_fraction_draws_the_patients_that_fine_tuning_draws(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(patients=125, videos_each=1, rows_each=1), "EF")
    curve = label_efficiency(problem, LinearProbe(), RunSettings(fractions=(0.1,), repeats=1))
    assert problem.split.tolist().count("train") == 75
    expected = draw_patients(problem.patient[problem.split == "train"], None, 0, 0.1, "fraction", seed=0)
    assert curve.draws[0].patients == tuple(expected)
