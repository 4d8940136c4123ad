"""Subgroups, the control, label efficiency, what a run leaves, and probes that are saved and applied again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.digests import write_sums
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.core.outputs import written_run
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.thresholds import ThresholdRule
from panecho_embed.extraction.run import extract
from panecho_embed.phantoms import write_studies
from probes.attentive import AttentiveProbe
from probes.base import BaseProbe
from probes.knn import FaissKNNProbe, KNNProbe
from probes.linear import LinearProbe
from probes.outputs import RunInfo, apply_probes, load_probes, save_probes, write_run
from probes.plans import RunSettings, make_folds, make_plans, predict_units
from probes.problem import Problem, load_problem, load_problems
from probes.run import (
    Evaluation,
    TargetResult,
    evaluate,
    label_efficiency,
    run_target,
    run_targets,
    shuffled,
    shuffled_label_control,
    subgroups_of,
)
from tests.tiny import tiny

SETTINGS = RunSettings(draws=100)


@pytest.fixture(scope="module")
def evaluation(table: EmbeddingTable) -> Evaluation:
    return evaluate(load_problem(table, "EF"), LinearProbe(), SETTINGS)


@pytest.mark.parametrize(("column", "groups"), [("view", {"A4C", "PLAX"}), ("Sex", {"F", "M"}), ("LowEF", {"0", "1"})])
def test_subgroups_split_the_tested_units(evaluation: Evaluation, column: str, groups: set[str]) -> None:
    found = subgroups_of(evaluation, column)
    assert set(found) == groups
    assert sum(scores["mae"].n for scores in found.values()) == len(evaluation.unit)


def test_subgroups_of_a_number_are_its_thirds(evaluation: Evaluation) -> None:
    found = subgroups_of(evaluation, "Noise")
    assert [scores["mae"].n for scores in found.values()] == [8, 8, 8]


def test_units_without_a_value_are_a_subgroup_of_their_own(evaluation: Evaluation) -> None:
    sex = evaluation.problem.columns["Sex"].copy()
    sex[evaluation.unit[:2]] = ""
    problem = replace(evaluation.problem, columns={"Sex": sex})
    assert subgroups_of(replace(evaluation, problem=problem), "Sex")["missing"]["mae"].n == 2


def test_a_subgroup_of_one_class_has_no_auroc(table: EmbeddingTable) -> None:
    result = evaluate(load_problem(table, "LowEF"), LinearProbe("binary"), SETTINGS)
    scores = subgroups_of(result, "LowEF")["1"]
    assert np.isnan(scores["auroc"].value)
    assert np.isfinite(scores["brier"].value)


@pytest.mark.parametrize("column", ["Age", "Report"])
def test_unusable_subgroup_columns_are_refused(evaluation: Evaluation, column: str) -> None:
    texts = np.array([f"text {i}" for i in range(len(evaluation.problem))], dtype=object)
    problem = replace(evaluation.problem, columns={"Report": texts})
    with pytest.raises(ArgumentError, match=f"no column '{column}'|{column} has 24 different texts"):
        subgroups_of(replace(evaluation, problem=problem), column)


def test_shuffled_labels_read_like_the_baseline(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(patients=120), "EF")
    result = evaluate(problem, LinearProbe(), SETTINGS)
    control = shuffled_label_control(problem, LinearProbe(), result.plans[0], SETTINGS, repeats=10)
    assert control["mae"].mean() > 0.95 * result.scored.baseline["mae"].value
    assert control["mae"].min() > result.scored.scores["mae"].high


def test_shuffling_moves_whole_patients_and_leaves_the_test_alone(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    (fold,) = make_folds(problem)
    truth = shuffled(problem, fold, np.random.default_rng(0))
    np.testing.assert_array_equal(truth[fold.test], problem.truth[fold.test])
    train = np.concatenate([fold.train, fold.validation])
    assert sorted(truth[train]) == pytest.approx(sorted(problem.truth[train]))
    assert all(np.ptp(truth[problem.patient == who]) < 1e-9 for who in set(problem.patient))


def test_more_labels_read_better(table_of: Callable[..., EmbeddingTable]) -> None:
    problem = load_problem(table_of(patients=200, noise=2), "EF")
    curve = label_efficiency(problem, LinearProbe(), RunSettings(fractions=(0.05, 1), repeats=5))
    few, all_of_them = curve.values.mean(axis=1)
    assert all_of_them < few
    # Of the 120 training patients; the 40 of validation are not drawn from, as in fine-tuning.
    assert curve.n_patients.tolist() == [6, 120]


def test_draws_are_nested_saved_and_repeatable(table: EmbeddingTable) -> None:
    problem = load_problem(table, "LowEF")
    curves = [
        label_efficiency(problem, LinearProbe("binary"), RunSettings(shots=(3, 6), repeats=2, seed=5)) for _ in range(2)
    ]
    np.testing.assert_array_equal(curves[0].values, curves[1].values)
    assert curves[0].draws == curves[1].draws
    small, large = (next(d for d in curves[0].draws if d.size == size and d.repeat == 1) for size in (3, 6))
    assert set(small.patients) < set(large.patients)
    low = {str(who) for who in problem.patient[problem.truth == 1]}
    assert len(low & set(small.patients)) == 3


def test_the_band_has_one_row_a_size(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    band = label_efficiency(problem, LinearProbe(), RunSettings(shots=(5, 20), repeats=3)).band()
    assert (band["low"] <= band["mean"]).all()
    assert band["shots"].tolist() == [5, 20]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "give either fractions"),
        ({"fractions": (0.5,), "shots": (5,)}, "give either fractions"),
        ({"fractions": (1.5,)}, "each must be above 0, at most 1, and stand once"),
        ({"shots": (0, 3)}, "shots are 0, 3; 1 or more"),
        ({"shots": (1,)}, "none can be held out to choose settings on: fix the setting"),
        ({"shots": (999,)}, "999 patients of each class were asked for; of class"),
    ],
)
def test_unusable_sizes_are_refused(table: EmbeddingTable, sizes: dict[str, tuple[float, ...]], message: str) -> None:
    problem = load_problem(table, "LowEF")
    with pytest.raises(ArgumentError, match=message):
        label_efficiency(problem, LinearProbe("binary"), RunSettings(**sizes))  # type: ignore[arg-type]


def test_after_cross_validation_the_saved_probe_is_trained_on_everybody(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF")
    result = run_target(problem, LinearProbe(), replace(SETTINGS, folds=4, trainings=1))
    alone = LinearProbe(strengths=[result.probe.strength_]).fit(problem.values, problem.truth)
    np.testing.assert_allclose(result.probe.predict(problem.values), alone.predict(problem.values))


PROBES = [
    (LinearProbe, "EF", "early"),
    (LinearProbe, "LowEF", "late"),
    (KNNProbe, "Grade", "early"),
    (FaissKNNProbe, "EF", "early"),
    (AttentiveProbe, "LowEF", "late"),
    (AttentiveProbe, "Grade", "late"),
]


def save_run(results: Sequence[TargetResult], folder: Path) -> None:
    """Save the probes as a run does, with their digests."""
    with written_run(folder) as new:
        save_probes(results, new)


@pytest.mark.parametrize(("kind", "target", "fusion"), PROBES)
def test_a_saved_probe_predicts_the_same_again(
    embeddings: Path, tmp_path: Path, kind: type[BaseProbe], target: str, fusion: str
) -> None:
    problem = load_problem(embeddings, target, level="study", fusion=fusion)
    extra = {"epochs": 3} if kind is AttentiveProbe else {}
    result = run_target(problem, kind(problem.target.kind, **extra), SETTINGS)
    save_run([result], tmp_path)
    frame = apply_probes(tmp_path, embeddings).set_index("study_id").loc[problem.ids["study_id"]]
    expected = predict_units(problem, result.probe, np.arange(len(problem)))
    if problem.target.kind == "regression":
        np.testing.assert_allclose(frame["prediction"], expected, rtol=1e-5)
    elif problem.target.kind == "binary":
        np.testing.assert_allclose(frame["probability:1"], expected, rtol=1e-5)
        assert frame["prediction"].tolist() == ["1" if p >= result.threshold else "0" for p in expected]
    else:
        columns = [f"probability:{name}" for name in problem.target.classes]
        np.testing.assert_allclose(frame[columns], expected, rtol=1e-5)


def test_saved_probes_hold_no_pickle(embeddings: Path, tmp_path: Path) -> None:
    results = run_targets(load_problems(embeddings, "EF,Sex"), lambda p: LinearProbe(p.target.kind), SETTINGS)
    save_run(list(results), tmp_path)
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiu" for name in file.files)
    assert set(load_probes(tmp_path)) == {"EF", "Sex"}


def test_embeddings_made_otherwise_are_refused_naming_the_setting(
    embeddings: Path, tmp_path: Path, table: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path]
) -> None:
    save_run([run_target(load_problem(embeddings, "EF"), LinearProbe(), SETTINGS)], tmp_path)
    other = replace(table, provenance=replace(table.provenance, backbone="imagenet"))
    path = write(tmp_path / "other.h5", other)
    with pytest.raises(SettingsMismatchError, match=r"other.h5: .* backbone: imagenet, not random"):
        apply_probes(tmp_path, path)


ELSE = json.dumps({"format": "else"})


@pytest.mark.parametrize("content", [None, "{", ELSE])
def test_a_folder_without_a_probe_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "probe.json").write_text(content)
        np.savez(tmp_path / "probe.npz", x=np.zeros(1))
        write_sums(tmp_path)
    message = "not a probe of schema version 2" if content == ELSE else "no readable probe.json"
    with pytest.raises(StoreError, match=message):
        load_probes(tmp_path)


def test_every_row_is_decided_by_the_threshold_of_its_fold(table: EmbeddingTable) -> None:
    numbered = np.array([str(int(name[1:]) % 4) for name in table.patient_id], dtype=object)
    result = evaluate(load_problem(replace(table, split=numbered), "LowEF"), LinearProbe("binary"), SETTINGS)
    threshold = {fold.name: value for fold, value in zip(result.folds, result.thresholds, strict=True)}
    rows = result.predictions.frame()
    assert len(set(threshold.values())) > 1
    assert set(rows["fold"]) == {row["fold"] for row in result.grid_rows()} == set(threshold)
    assert set(rows["split"]) == {"val", "test"}
    called = np.where(rows["probability"].astype(float) >= rows["fold"].map(threshold), "1", "0")
    assert rows["prediction"].tolist() == called.tolist()


def test_what_else_is_computed_looks_for_leaks_too(table: EmbeddingTable) -> None:
    split = np.where(table.view == "A4C", "train", "test").astype(object)
    problem = load_problem(replace(table, split=split), "EF")
    with pytest.raises(ArgumentError, match="in both train and test"):
        label_efficiency(problem, LinearProbe(), RunSettings(fractions=(0.5,), repeats=1))
    # The control takes the plan of an evaluation, which was looked at when it was made.
    with pytest.raises(ArgumentError, match="in both train and test"):
        make_plans(problem, SETTINGS, chooses=True)
    settings = RunSettings(control=True, fractions=(0.5,), repeats=1, draws=50, allow_leakage=True)
    assert run_target(problem, LinearProbe(), settings).control is not None


def rare_on_second_videos(table: EmbeddingTable, having: int) -> Problem:
    """A class that `having` patients have on the second of their videos; most patients have one video only."""
    video = np.array([int(name[1:]) for name in table.video_id])
    label = np.where((video % 2 == 1) & (video < 2 * having), "rare", "common").astype(object)
    label[video % 12 == 0] = "rare"
    problem = load_problem(replace(table, labels={"X": label}, split=np.full(len(table), "", dtype=object)), "X")
    first = np.array([int(name[1:]) for name in problem.ids["video_id"]])
    return problem.take(np.flatnonzero((first % 2 == 0) | (first < 2 * having)))


def test_a_shuffle_that_loses_a_class_is_drawn_again(table: EmbeddingTable) -> None:
    problem = rare_on_second_videos(table, 3)
    settings = RunSettings(folds=3, trainings=1)
    (plan,) = make_plans(problem, settings, chooses=True)
    control = shuffled_label_control(problem, LinearProbe("binary"), plan, settings, repeats=3)
    assert np.isfinite(control["auroc"]).all()


def test_a_target_whose_labels_cannot_be_shuffled_has_no_control(
    table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("probes.run.too_few", lambda *_: ["1 (0)"])
    result = run_target(load_problem(table, "LowEF"), LinearProbe("binary"), RunSettings(control=True, draws=50))
    assert result.control is None
    assert "LowEF has no control" in result.no_control
    written = json.loads((write_run([result], RunInfo("x.h5"), tmp_path) / "metrics.json").read_text())
    assert written["targets"]["LowEF"]["no_control"] == result.no_control


def test_the_text_missing_is_another_group_than_no_text(table: EmbeddingTable) -> None:
    column = np.where(table.labels["Sex"] == "F", "missing", "").astype(object)
    result = evaluate(load_problem(replace(table, labels={**table.labels, "C": column}), "EF"), LinearProbe(), SETTINGS)
    found = subgroups_of(result, "C")
    assert set(found) == {"missing", "(missing)"}
    assert sum(scores["mae"].n for scores in found.values()) == len(result.unit)


def test_undefined_scores_are_null_in_metrics_json(table_of: Callable[..., EmbeddingTable], tmp_path: Path) -> None:
    result = run_target(load_problem(table_of(split=False), "EF"), LinearProbe(), replace(SETTINGS, trainings=1))
    document = json.loads((write_run([result], RunInfo("x"), tmp_path) / "metrics.json").read_text())
    assert document["targets"]["EF"]["baseline"]["calibration_slope"]["value"] is None


@pytest.mark.parametrize("rule", ["youden", "sensitivity=0.9", "0.3"])
def test_the_threshold_is_saved_with_the_probe_and_frozen(embeddings: Path, tmp_path: Path, rule: str) -> None:
    settings = replace(SETTINGS, threshold=ThresholdRule.parse(rule))
    result = run_target(load_problem(embeddings, "LowEF"), LinearProbe("binary"), settings)
    save_run([result], tmp_path)
    assert load_probes(tmp_path)["LowEF"].threshold == pytest.approx(result.threshold)
    assert set(result.evaluation.predictions.threshold) == {result.threshold}


def test_an_old_report_stays_when_a_run_cannot_be_told(
    table: EmbeddingTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_target(load_problem(table, "EF"), LinearProbe(), SETTINGS)
    write_run([first], RunInfo("x"), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.setattr(LinearProbe, "methods_sentence", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_run([first], RunInfo("y"), tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    folder = tmp_path_factory.mktemp("phantoms")
    write_studies(folder / "studies", "echonet-dynamic", 30, num_frames=24, size=48)
    extract(folder / "studies", folder / "frames.h5", backbone=tiny(), level="frame", workers=0)
    return load_problem(folder / "frames.h5", "EF", pooling="mean+std")


def test_ef_from_frozen_features_beats_the_mean(problem: Problem) -> None:
    result = evaluate(problem, LinearProbe(), RunSettings(folds=5, trainings=1, draws=1000))
    assert result.scored.gain["mae"].high < 0


def test_shuffled_labels_do_not(problem: Problem) -> None:
    settings = RunSettings(folds=5, trainings=1, draws=10)
    result = evaluate(problem, LinearProbe(), settings)
    control = shuffled_label_control(problem, LinearProbe(), result.plans[0], settings, repeats=10)
    assert control["mae"].mean() > 0.97 * result.scored.baseline["mae"].value
