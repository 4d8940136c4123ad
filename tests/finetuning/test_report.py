"""A run's folder becomes a page and pictures; what is missing is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.errors import StoreError
from panecho_embed.evaluation.metrics import point_values
from panecho_embed.evaluation.predictions import Predictions
from panecho_embed.evaluation.scores import read_metrics
from panecho_embed.finetuning.outcome import Outcome, read_outcome
from panecho_embed.finetuning.report import write_run
from tests.finetuning.fabricate import EF, GRADE, LOW, change_info, fabricate, small_recipe

THREE = (EF, LOW, GRADE)


def three(folder: Path, **options: object) -> Path:
    recipe = small_recipe("EF", "LowEF", "Grade", level="study")
    return fabricate(folder, recipe, tasks=THREE, videos=2, **options)  # type: ignore[arg-type]


def _of_test(outcome: Outcome, level: str = "study") -> dict[str, Predictions]:
    return {name: one.of_split("test") for name, one in outcome.at(level).items()}  # type: ignore[arg-type]


def test_predictions_read_back_give_the_metrics_that_the_run_wrote(tmp_path: Path) -> None:
    run = three(tmp_path / "run")
    written = read_metrics(run)["targets"]
    for name, rows in _of_test(read_outcome(run)).items():
        told = written[name]["metrics"]
        for metric, value in point_values(rows.metrics()).items():
            found = told[metric]["value"]
            assert value == pytest.approx(np.nan if found is None else found, nan_ok=True), metric


def test_the_positive_class_comes_last(tmp_path: Path) -> None:
    low = _of_test(read_outcome(three(tmp_path / "run")))["LowEF"]
    assert low.target.classes == ("no", "yes")
    assert low.prediction[low.truth == 1].mean() > 0.5


def test_study_rows_are_fewer_than_video_rows(tmp_path: Path) -> None:
    outcome = read_outcome(three(tmp_path / "run"))
    per_study, per_video = _of_test(outcome)["EF"], _of_test(outcome, "video")["EF"]
    assert len(per_video.truth) == 2 * len(per_study.truth)
    means = per_video.prediction.reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(per_study.prediction, means)


def test_the_report_shows_every_target_and_its_pictures(tmp_path: Path) -> None:
    run = three(tmp_path / "run")
    page = write_run(run).read_text(encoding="utf-8")
    for text in ("EF, %", "LowEF", "Grade", "Per study", "panecho.pt", "MIT", "panecho-embed finetune"):
        assert text in page
    drawn = {path.name for path in (run / "plots").iterdir()}
    assert {"history-loss.svg", "history-score.svg", "EF-bland-altman.svg", "LowEF-roc.svg"} <= drawn
    assert {"LowEF-precision-recall.svg", "Grade-confusion.svg", "EF-scatter.svg"} <= drawn


def test_many_targets_are_folded_and_keep_their_main_figures(tmp_path: Path) -> None:
    tasks = [replace(task, name=f"{task.name}{i}") for i in range(2) for task in THREE]
    run = fabricate(tmp_path / "run", small_recipe(*[task.name for task in tasks]), tasks=tasks)
    page = write_run(run).read_text(encoding="utf-8")
    assert page.count("<details>") == len(tasks) + 1  # and the recipe
    drawn = {path.name for path in (run / "plots").iterdir()}
    assert {"EF0-scatter.svg", "Grade1-roc.svg"} <= drawn
    assert "EF0-calibration.svg" not in drawn


def test_untrained_weights_are_named_as_such(tmp_path: Path) -> None:
    page = write_run(fabricate(tmp_path / "run", small_recipe(), init="random")).read_text(encoding="utf-8")
    assert "Training started from random weights" in page


def test_few_tested_patients_are_warned_of(tmp_path: Path) -> None:
    page = write_run(fabricate(tmp_path / "run", small_recipe())).read_text(encoding="utf-8")
    assert "36 videos of 20 patients tested." in page
    assert "Only 20 patients were tested: intervals from fewer than 30 patients" in page


def test_lost_videos_are_told(tmp_path: Path) -> None:
    run = fabricate(tmp_path / "run", small_recipe())
    info = json.loads((run / "run.json").read_text())
    change_info(run, counts=info["counts"] | {"failed": 7})
    assert "7 videos could not be used" in write_run(run).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["run.json", "recipe.toml", "history.csv", "predictions.csv", "tasks.csv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    run = fabricate(tmp_path / "run", small_recipe())
    (run / name).unlink()
    with pytest.raises(StoreError, match=str(run)):
        write_run(run)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = fabricate(tmp_path / "run", small_recipe(), info={"status": "running"})
    with pytest.raises(StoreError, match="not done but running"):
        write_run(run)


def test_a_cross_validation_draws_one_line_a_fold(tmp_path: Path) -> None:
    recipe = small_recipe()
    run = fabricate(tmp_path / "run", recipe, info={"folds": [0, 1, 2]})
    for fold in range(3):
        fabricate(run / f"fold-{fold}", recipe, info={"fold": fold})
    outcome = read_outcome(run)
    assert list(outcome.histories) == ["0", "1", "2"]
    page = write_run(run).read_text(encoding="utf-8")
    assert "fold 2" in page


@pytest.mark.parametrize("shared", [0, 2])
def test_patients_on_two_sides_are_told(tmp_path: Path, shared: int) -> None:
    run = three(tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    change_info(run, counts=info["counts"] | {"shared_patients": shared})
    page = write_run(run).read_text(encoding="utf-8")
    assert ("No patient is on two sides of a split." in page) == (shared == 0)
    assert ("2 patients are on two sides of a split (--allow-leakage)" in page) == (shared == 2)
