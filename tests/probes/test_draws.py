"""k-shot: who is drawn, and what one shot needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from panecho_embed.errors import ArgumentError
from panecho_embed.records import EmbeddingTable
from probes.base import BaseProbe
from probes.draws import few_shots
from probes.efficiency import label_efficiency
from probes.evaluation import evaluate, make_folds
from probes.folds import Fold
from probes.knn import KNNProbe
from probes.linear import LinearProbe
from probes.problem import Problem, load_problem
from probes.run import RunSettings, run_target


def drawn_classes(problem: Problem, fold: Fold) -> list[int]:
    """Patients of each class among those trained on."""
    patient, truth = problem.patient[fold.train].astype(str), problem.truth[fold.train]
    return [len(np.unique(patient[truth == index])) for index in range(len(problem.classes))]


@pytest.mark.parametrize(("target", "counts"), [("LowEF", [4, 4]), ("Grade", [4, 4, 4]), ("Sex", [4, 4])])
def test_so_many_patients_of_each_class_train_and_all_test(
    table: EmbeddingTable, target: str, counts: list[int]
) -> None:
    problem = load_problem(table, target)
    whole = make_folds(problem)
    (fold,), (draw,) = few_shots(problem, LinearProbe(problem.task), whole, 4)
    assert drawn_classes(problem, fold) == counts
    assert set(draw.patients) == set(problem.patient[fold.train])
    assert not set(draw.patients) & set(problem.patient[fold.test])
    np.testing.assert_array_equal(fold.test, whole[0].test)
    assert len(fold.validation) == 0


def test_shots_of_a_regression_are_patients(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    (fold,), _ = few_shots(problem, LinearProbe(), make_folds(problem), 7)
    assert len(set(problem.patient[fold.train])) == 7


def test_the_draw_is_the_first_of_label_efficiency(table: EmbeddingTable) -> None:
    problem = load_problem(table, "LowEF")
    folds = make_folds(problem)
    curve = label_efficiency(problem, LinearProbe("binary"), folds, shots=(4,), repeats=2, seed=3)
    few, draws = few_shots(problem, LinearProbe("binary"), folds, 4, seed=3)
    assert draws[0].patients == curve.draws[0].patients
    score = evaluate(problem, LinearProbe("binary"), few, draws=50).scores["auroc"]
    assert score.value == pytest.approx(curve.values[0, 0])


@pytest.mark.parametrize("probe", [LinearProbe("binary", strengths=[1.0]), KNNProbe("binary", k=[1])])
def test_one_shot_works_where_nothing_is_to_be_chosen(table: EmbeddingTable, probe: BaseProbe) -> None:
    result = run_target(load_problem(table, "LowEF"), probe, RunSettings(k_shot=1, shots=(1, 3), repeats=2, draws=50))
    assert result.evaluation.scores["auroc"].value > 0.5
    assert result.threshold == 0.5
    assert result.efficiency is not None
    assert result.efficiency.n_patients[0] == 2


@pytest.mark.parametrize("probe", [LinearProbe("binary"), KNNProbe("binary")])
def test_one_shot_is_refused_where_settings_are_to_be_chosen(table: EmbeddingTable, probe: BaseProbe) -> None:
    problem = load_problem(table, "LowEF")
    with pytest.raises(ArgumentError, match=r"fix the setting \(--strengths 1 .*or take 2 shots or more"):
        few_shots(problem, probe, make_folds(problem), 1)


def test_more_shots_than_patients_are_refused(table: EmbeddingTable) -> None:
    problem = load_problem(table, "Grade")
    with pytest.raises(ArgumentError, match=r"99 patients of class \w+ were asked for; there are \d+"):
        few_shots(problem, LinearProbe("multiclass"), make_folds(problem), 99)


def test_after_cross_validation_the_saved_probe_has_as_many_shots(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(split=False), "EF")
    result = run_target(problem, KNNProbe(k=[1]), RunSettings(k_shot=6, folds=3, draws=50))
    assert len(result.draws) == 3
    assert len(np.unique(result.probe.fitted_arrays()["targets_"])) == 6


def test_a_draw_of_everybody_is_computed_once(table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    import probes.efficiency as module

    calls: list[int] = []
    value = module._value
    monkeypatch.setattr(module, "_value", lambda *given: calls.append(1) or value(*given))  # type: ignore[func-returns-value]
    problem = load_problem(table, "EF")
    curve = label_efficiency(problem, LinearProbe(), make_folds(problem), fractions=(1,), repeats=4)
    assert len(calls) == 1
    assert len(set(curve.values[0])) == 1


def test_classes_that_a_patient_has_in_the_test_only_are_no_shots(table: EmbeddingTable) -> None:
    video = np.array([int(name[1:]) for name in table.video_id])
    split = np.where(video % 2 == 0, "train", "test").astype(object)
    rare = np.where(((video % 2 == 1) & (video < 40)) | (video % 6 == 0), "rare", "common").astype(object)
    problem = load_problem(replace(table, split=split, labels={"X": rare}), "X")
    (fold,), _ = few_shots(problem, LinearProbe("binary"), make_folds(problem), 3)
    assert drawn_classes(problem, fold) == [3, 3]
