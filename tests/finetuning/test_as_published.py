"""Validation and testing as published: mean logits over clips, mean probabilities per study, scores of studies."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.core.tasks import Task
from panecho_embed.finetuning.data import Targets
from panecho_embed.finetuning.evaluate import Predicted, predict_videos
from panecho_embed.finetuning.model import FineTuneModel, Loss
from panecho_embed.finetuning.outcome import epoch_scores, predictions_of
from panecho_embed.finetuning.processes import join_processes
from panecho_embed.finetuning.recipe import LossSettings
from panecho_embed.finetuning.recipe_files import load_recipe, recipe_differences, recipe_names
from panecho_embed.finetuning.report import evaluation_sentences, training_sentences
from panecho_embed.finetuning.starts import Start
from panecho_embed.models.backbones import MeanOverFrames
from tests.finetuning.conftest import NARROW, finetune, rows_of
from tests.finetuning.fabricate import EF, GRADE, target_of

NAN = float("nan")
LOW = Task("LowEF", "binary", 1, ("no", "yes"), 1, "", NAN, "EF below 50")
TASKS = (EF, LOW, GRADE)


@pytest.fixture
def bright() -> FineTuneModel:
    """A model that sees the brightness v of a clip of one frame: EF 50 + v, LowEF v - 3, Grade (2 - v, v, 0) / 2."""
    info = WeightsInfo("mine", "0" * 64, "MIT", pretrained=False)
    pixels = Feeding(resize=8, crop=8, scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = FineTuneModel(Start("mine", encoder, MeanOverFrames(), 3, False, "frames", pixels, pixels, info), TASKS)
    heads = {"EF": ([1], [50]), "LowEF": ([1], [-3]), "Grade": ([-0.5, 0.5, 0], [1, 0, 0])}
    for name, (slope, bias) in heads.items():
        weight = torch.tensor(slope, dtype=torch.float32)[:, None].expand(-1, 3) / 3
        model.heads[name][1].load_state_dict({"weight": weight, "bias": torch.tensor(bias, dtype=torch.float32)})
    return model


def video(number: int, *brightness: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `EvaluationClips` gives of a video: a clip of one frame for each brightness."""
    frames = torch.stack([torch.full((3, 8, 8), v, dtype=torch.uint8) for v in brightness])
    planes = torch.arange(3 * len(brightness)).reshape(-1, 3)
    return number, frames, planes, torch.arange(len(brightness))[:, None]


@pytest.fixture
def predicted(bright: FineTuneModel) -> Predicted:
    """Video 0 has clips of brightness 0 and 4, video 1 one clip of brightness 5."""
    targets = np.array([[51.0, 0, 0], [56.0, 0, 0]])
    loss = Loss(TASKS, targets, LossSettings())
    clips = [video(0, 0, 4), video(1, 5)]
    return predict_videos(bright, clips, np.arange(2), targets, TASKS, loss, join_processes("cpu", "fp32"))


def test_logits_are_averaged_over_the_clips_of_a_video(predicted: Predicted) -> None:
    assert predicted.index.tolist() == [0, 1]
    # Values: the plain mean of 50 and 54, and 55.
    assert predicted.values[:, 0].tolist() == [52, 55]
    # Two classes: sigmoid((-3 + 1) / 2) = 0.2689, where the mean of both clips' probabilities would be 0.3893.
    assert predicted.values[:, 1] == pytest.approx([0.2689, 0.8808], abs=1e-4)
    # Three: mean logits 0, 1, 0 of (1, 0, 0) and (-1, 2, 0): 1 / (2 + e) = 0.2119 and e / (2 + e) = 0.5761, where the
    # mean of both clips' probabilities would be 0.3091, 0.5279, 0.1631.
    assert predicted.values[0, 2:] == pytest.approx([0.2119, 0.5761, 0.2119], abs=1e-4)


def test_the_loss_is_the_mean_over_the_clips_of_a_video(predicted: Predicted) -> None:
    # EF: ((50 - 51)^2 + (54 - 51)^2) / 2 = 5 and (55 - 56)^2 = 1, by the training mean 53.5.
    assert predicted.task_losses[0] == pytest.approx((5 + 1) / 2 / 53.5)


def fold_of(tasks: Sequence[Task], truth: np.ndarray, studies: Sequence[str]) -> SimpleNamespace:
    """A fold whose videos all validate, and train as well."""
    videos = [SimpleNamespace(video_id=f"v{i}", study_id=s, patient_id=s, view="") for i, s in enumerate(studies)]
    targets = Targets(tuple(map(target_of, tasks)), tuple(tasks), truth, np.ones(len(tasks)))
    n = np.arange(len(videos))
    return SimpleNamespace(dataset=SimpleNamespace(videos=videos), targets=targets, number=None, train=n)


def predicted_as(values: np.ndarray) -> Predicted:
    return Predicted(np.arange(len(values)), values, 0.0, np.zeros(3), ())


def studies_of(tasks: Sequence[Task], truth: np.ndarray, values: np.ndarray, studies: Sequence[str]) -> dict:
    """The rows of studies of each target, as the tables of predictions have them."""
    table = predictions_of(fold_of(tasks, truth, studies), {"val": predicted_as(values)}, load_recipe("multitask"))
    return {one.target.name: one for one in table if one.level == "study"}


def test_probabilities_are_averaged_over_the_videos_of_a_study(predicted: Predicted) -> None:
    rows = studies_of(TASKS, np.array([[51.0, 1, 0], [56.0, 1, 0]]), predicted.values, ["s", "s"])
    assert rows["EF"].prediction.tolist() == [53.5]
    assert rows["LowEF"].prediction == pytest.approx([0.5749], abs=1e-4)  # (0.2689 + 0.8808) / 2


STUDY = ["a", "a", "b", "c", "c", "d", "d"]
TRUTH = np.array([[50, 1], [60, 1], [40, 0], [70, 1], [70, 0], [55, 0], [NAN, NAN]])
"""EF, and LowEF, of which 1 is the positive class. The videos of study c disagree."""
VALUES = np.array([[52, 0.8], [62, 0.4], [40, 0.5], [64, 0.05], [72, 0.95], [50, 0.1], [64, 0.7]])


def test_a_study_is_the_average_of_its_videos() -> None:
    rows = studies_of((EF, LOW), TRUTH, VALUES, STUDY)
    assert rows["EF"].ids["study_id"].tolist() == ["a", "b", "c", "d"]
    assert rows["EF"].truth.tolist() == [55, 40, 70, 55]
    np.testing.assert_array_equal(rows["LowEF"].truth, [1, 0, NAN, 0])
    np.testing.assert_allclose(rows["EF"].prediction, [57, 40, 68, 57])
    np.testing.assert_allclose(rows["LowEF"].prediction, [0.6, 0.5, 0.5, 0.4])


def test_scores_of_studies_by_hand() -> None:
    score, columns = epoch_scores(fold_of((EF, LOW), TRUTH, STUDY), predicted_as(VALUES), "study")
    # Truth 55, 40, 70, 55 (mean 55) and residuals 2, 0, 2, 2: 1 - 12 / 450.
    assert columns["val_r2:EF"] == pytest.approx(1 - 12 / 450)
    # The low study a has 0.6, above 0.5 of b and 0.4 of d; c has no truth.
    assert columns["val_auroc:LowEF"] == 1
    assert score == pytest.approx((1 - 12 / 450 + 1) / 2)


def test_scores_of_videos_by_hand() -> None:
    score, columns = epoch_scores(fold_of((EF, LOW), TRUTH, STUDY), predicted_as(VALUES), "video")
    # Truth 50, 60, 40, 70, 70, 55 (mean 57.5), squared residuals 4, 4, 0, 36, 4, 25.
    assert columns["val_r2:EF"] == pytest.approx(1 - 73 / 687.5)
    # Three low videos (0.8, 0.4, 0.05), three others (0.5, 0.95, 0.1): 0.8 > 0.5, 0.8 > 0.1 and 0.4 > 0.1.
    assert columns["val_auroc:LowEF"] == pytest.approx(3 / 9)
    assert score == pytest.approx((1 - 73 / 687.5 + 3 / 9) / 2)


def test_a_target_without_a_labelled_study_has_no_score() -> None:
    truth = np.array([[50, 1], [60, 0], [40, NAN]])
    score, columns = epoch_scores(fold_of((EF, LOW), truth, ["a", "a", "b"]), predicted_as(VALUES[:3]), "study")
    assert np.isnan(columns["val_auroc:LowEF"])
    assert score == columns["val_r2:EF"]


@pytest.mark.parametrize("level", ["study", "video"])
def test_the_score_that_stops_training_is_that_of_the_recipe_s_level(table, tmp_path, without_report, level):
    """With as many clips as in testing, the best epoch's score is that of the validation rows of the run's table."""
    out = tmp_path / "run"
    settings = {"data__targets": "EF,GLS", "model__width": NARROW, "evaluation__level": level}
    finetune("multitask", "--init", "random", "--data", table, "-o", out, clips__validation=2, **settings)
    history = pd.read_csv(out / "history.csv")
    best = history[history["best"] == 1].iloc[-1]
    rows = rows_of(out, level, "val").query("truth.notna()")
    r2 = {}
    for target, some in rows.groupby("target"):
        residual = ((some["truth"] - some["prediction"]) ** 2).sum()
        r2[target] = 1 - residual / ((some["truth"] - some["truth"].mean()) ** 2).sum()
        assert best[f"val_r2:{target}"] == pytest.approx(r2[target], rel=1e-4)
    assert best["val_score"] == pytest.approx((r2["EF"] + r2["GLS"]) / 2, rel=1e-4)


@pytest.mark.parametrize("name", recipe_names())
def test_validation_takes_as_many_clips_as_testing(name):
    clips = load_recipe(name).clips
    assert (clips.validation, clips.test) == (4, 4)


def test_a_run_that_validated_on_one_clip_is_of_another_recipe():
    earlier = load_recipe("multitask", ["clips.validation=1"])
    assert recipe_differences(load_recipe("multitask"), earlier) == ["clips.validation: 4, not 1"]


def test_the_methods_say_how_predictions_were_averaged():
    assert evaluation_sentences(load_recipe("multitask"), []) == (
        "Validation and testing used up to 4 evenly spaced clips of each video. Raw outputs were averaged over the "
        "clips of a video (for classes the logits, which were then turned into probabilities). Values and "
        "probabilities were averaged over the videos of a study."
    )
    assert "R² over regressions, of studies)" in training_sentences(load_recipe("multitask"), TASKS)
    single = evaluation_sentences(load_recipe("echonet-dynamic", ["clips.validation=1", "clips.test=1"]), [])
    assert single == "Validation and testing used one clip of each video."
    other = evaluation_sentences(load_recipe("echonet-dynamic", ["clips.validation=1"]), [])
    assert "Validation used one clip of each video, testing up to 4 evenly spaced clips of each video. Raw" in other
