"""Validation and testing as published: mean logits over clips, mean probabilities per study, scores of studies."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from panecho_embed.finetune.evaluate import Predicted, by_study, epoch_scores, predict_videos
from panecho_embed.finetune.losses import Loss
from panecho_embed.finetune.model import FineTuneModel
from panecho_embed.finetune.outcome import predictions_of
from panecho_embed.finetune.processes import join_processes
from panecho_embed.finetune.recipe import LossSettings
from panecho_embed.finetune.recipe_files import load_recipe, recipe_differences, recipe_names
from panecho_embed.finetune.starts import Start
from panecho_embed.finetune.targets import Targets
from panecho_embed.finetune.wording import evaluation_sentences, training_sentences
from panecho_embed.models.backbones import MeanOverFrames
from panecho_embed.provenance import Preprocess, WeightsInfo
from panecho_embed.tasks import Task
from tests.finetune.conftest import NARROW, finetune, rows_of
from tests.finetune.fabricate import EF, GRADE, target_of

NAN = float("nan")
LOW = Task("LowEF", "binary", 1, ("yes", "no"), 0, "", NAN, "as in a table of tasks: index 0 is the positive class")
TASKS = (EF, LOW, GRADE)


@pytest.fixture
def bright() -> FineTuneModel:
    """A model that sees the brightness v of a clip of one frame: EF 50 + v, LowEF v - 3, Grade (2 - v, v, 0) / 2."""
    info = WeightsInfo("mine", "0" * 64, "MIT", pretrained=False)
    pixels = Preprocess(8, 8, scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = FineTuneModel(Start("mine", encoder, MeanOverFrames(), 3, False, "frames", pixels, info), TASKS)
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


def test_probabilities_are_averaged_over_the_videos_of_a_study(predicted: Predicted) -> None:
    _, values = by_study(TASKS, np.full((2, 3), NAN), predicted.values, ["s", "s"])
    assert values[0, :2] == pytest.approx([53.5, 0.5749], abs=1e-4)  # (0.2689 + 0.8808) / 2


STUDY = ["a", "a", "b", "c", "c", "d", "d"]
TRUTH = np.array([[50, 0], [60, 0], [40, 1], [70, 0], [70, 1], [55, 1], [NAN, NAN]])
"""EF, and LowEF by index: 0 is its positive class. The videos of study c disagree."""
VALUES = np.array([[52, 0.2], [62, 0.6], [40, 0.5], [64, 0.95], [72, 0.05], [50, 0.9], [64, 0.3]])


def test_a_study_is_the_average_of_its_videos() -> None:
    truth, values = by_study((EF, LOW), TRUTH, VALUES, STUDY)
    assert truth.tolist()[:2] == [[55, 0], [40, 1]]
    np.testing.assert_array_equal(truth[2:], [[70, NAN], [55, 1]])
    np.testing.assert_allclose(values, [[57, 0.4], [40, 0.5], [68, 0.5], [57, 0.6]])


def test_scores_of_studies_by_hand() -> None:
    score, columns = epoch_scores((EF, LOW), TRUTH, VALUES, STUDY)
    # Truth 55, 40, 70, 55 (mean 55) and residuals 2, 0, 2, 2: 1 - 12 / 450.
    assert columns["val_r2:EF"] == pytest.approx(1 - 12 / 450)
    # The low study a has 1 - 0.4 = 0.6, above 0.5 of b and 0.4 of d; c has no truth.
    assert columns["val_auroc:LowEF"] == 1
    assert score == pytest.approx((1 - 12 / 450 + 1) / 2)


def test_scores_of_videos_by_hand() -> None:
    score, columns = epoch_scores((EF, LOW), TRUTH, VALUES)
    # Truth 50, 60, 40, 70, 70, 55 (mean 57.5), squared residuals 4, 4, 0, 36, 4, 25.
    assert columns["val_r2:EF"] == pytest.approx(1 - 73 / 687.5)
    # Three low videos (0.8, 0.4, 0.05), three others (0.5, 0.95, 0.1): 0.8 > 0.5, 0.8 > 0.1 and 0.4 > 0.1.
    assert columns["val_auroc:LowEF"] == pytest.approx(3 / 9)
    assert score == pytest.approx((1 - 73 / 687.5 + 3 / 9) / 2)


def test_a_study_without_a_label_has_no_truth_and_is_left_out() -> None:
    truth, _ = by_study((EF, LOW), np.array([[NAN, NAN], [NAN, NAN], [50, 1]]), VALUES[:3], ["b", "b", "a"])
    np.testing.assert_array_equal(truth, [[NAN, NAN], [50, 1]])


def test_validation_averages_studies_as_the_tables_of_predictions_do() -> None:
    rng = np.random.default_rng(0)
    n = 60
    studies = [f"s{i}" for i in rng.integers(0, 20, n)]
    truth = np.column_stack([rng.normal(55, 9, n), rng.integers(0, 2, n), rng.integers(0, 3, n)]).astype(float)
    truth[rng.random(truth.shape) < 0.4] = NAN
    shares = rng.dirichlet([1, 1, 1], n)
    values = np.column_stack([rng.normal(55, 9, n), rng.random(n), shares])
    videos = [SimpleNamespace(video_id=f"v{i}", study_id=s, patient_id=s, view="") for i, s in enumerate(studies)]
    targets = Targets(tuple(map(target_of, TASKS)), TASKS, truth, np.ones(3))
    fold = SimpleNamespace(dataset=SimpleNamespace(videos=videos), targets=targets, number=None, train=np.arange(n))
    predicted = Predicted(np.arange(n), values, 0.0, np.zeros(3), ())
    table = predictions_of(fold, {"val": predicted}, load_recipe("multitask"))
    truths, means = by_study(TASKS, truth, values, studies)
    for i, (task, part) in enumerate(zip(TASKS, np.split(means, [1, 2], axis=1), strict=True)):
        (rows,) = (one for one in table if (one.target.name, one.level) == (task.name, "study"))
        assert rows.ids["study_id"].tolist() == list(dict.fromkeys(studies))
        np.testing.assert_allclose(rows.truth, truths[:, i])
        np.testing.assert_allclose(rows.prediction.reshape(part.shape), part)


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
