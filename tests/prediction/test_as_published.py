"""The published order: mean logits over the clips of a video, probabilities, their mean over the videos of a study."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from panecho_embed.core.tasks import all_tasks
from panecho_embed.prediction.averages import average
from panecho_embed.store import EmbeddingFile
from tests.conftest import refs

TASK = {task.name: task for task in all_tasks()}


@pytest.fixture
def averaged(make_file):
    """averaged(task, raw): study s of video a (the first two rows) and video b (the third)."""

    def averaging(name, raw):
        table = EmbeddingFile(make_file("e.h5", refs("p/s/a", "p/s/b"), rows=[2, 1])).table()
        return average([TASK[name]], dataclasses.replace(table, values=np.array(raw, dtype=np.float32)))

    return averaging


def test_two_classes_by_hand(averaged):
    found = averaged("LVWallMotionAbnormalities", [[-3], [1], [2]])
    # sigmoid(-3) = 0.0474, sigmoid(1) = 0.7311, sigmoid(2) = 0.8808
    assert found.clips.values[:, 0] == pytest.approx([0.0474, 0.7311, 0.8808], abs=1e-4)
    # sigmoid((-3 + 1) / 2) = sigmoid(-1) = 0.2689; the mean of the clips' probabilities would be 0.3893.
    assert found.videos.values[:, 0] == pytest.approx([0.2689, 0.8808], abs=1e-4)
    # (0.2689 + 0.8808) / 2; the sigmoid of the mean logit of both videos would be 0.6225.
    assert found.studies.values[:, 0] == pytest.approx([0.5749], abs=1e-4)


def test_the_probability_of_a_positive_class_of_index_0_is_the_rest(averaged):
    assert TASK["MVStenosis"].positive_class_index == 0
    found = averaged("MVStenosis", [[-3], [1], [2]])
    assert found.videos.values[:, 0] == pytest.approx([0.7311, 0.1192], abs=1e-4)
    assert found.studies.values[:, 0] == pytest.approx([0.4251], abs=1e-4)


def test_three_classes_by_hand(averaged):
    found = averaged("AVStenosis", [[0, 0, 3], [2, 0, -1], [0, 0, 0]])
    # Mean logits 1, 0, 1: e / (2 e + 1) = 0.4223 and 1 / (2 e + 1) = 0.1554.
    # The mean of the clips' probabilities would be 0.4445, 0.0797, 0.4757.
    assert found.videos.values == pytest.approx(np.array([[0.4223, 0.1554, 0.4223], [1 / 3] * 3]), abs=1e-4)
    assert found.studies.values == pytest.approx(np.array([[0.3778, 0.2444, 0.3778]]), abs=1e-4)


def test_values_are_plain_means(averaged):
    found = averaged("GLS", [[18], [20], [13]])
    assert found.videos.values[:, 0].tolist() == [-19, -13]
    assert found.studies.values[:, 0].tolist() == [-16]


def test_spreads_over_clips_are_those_of_the_reported_probabilities(averaged):
    found = averaged("LVWallMotionAbnormalities", [[-3], [1], [2]])
    spread = found.over_clips
    # |0.7311 - 0.0474| / sqrt(2)
    assert (spread.sd[0, 0], spread.low[0, 0], spread.high[0, 0]) == pytest.approx((0.4834, 0.0474, 0.7311), abs=1e-4)
    assert found.within_videos[0, 0] == pytest.approx(0.4834, abs=1e-4)
    assert found.over_videos.sd[0, 0] == pytest.approx((0.8808 - 0.2689) / 2**0.5, abs=1e-4)
    # A sigmoid rises, so that of the mean logit lies between those of the clips.
    assert spread.low[0, 0] < found.videos.values[0, 0] < spread.high[0, 0]


def test_of_three_classes_one_can_lie_outside_the_range_of_its_clips(averaged):
    found = averaged("AVStenosis", [[0, 0, 3], [2, 0, -1], [0, 0, 0]])
    assert found.over_clips.high[0, 1] == pytest.approx(0.1142, abs=1e-4)
    assert found.videos.values[0, 1] > found.over_clips.high[0, 1]


def test_videos_csv_is_what_numpy_makes_of_the_heads_and_the_clip_embeddings(predicted, weights):
    """By the released checkpoint's own tensors: x W + b per clip, its mean per video, then the probabilities."""
    heads = torch.load(weights, weights_only=True)["weights"]
    table = EmbeddingFile(predicted.out / "embeddings.h5").table()
    videos = pd.read_csv(predicted.out / "videos.csv", index_col="video_id")
    studies = pd.read_csv(predicted.out / "studies.csv", index_col="study_id")
    far = 0.0
    for task in all_tasks():
        w, b = (heads[f"{task.name}_head.1.{part}"].double().numpy() for part in ("weight", "bias"))
        logits = table.values.astype(np.float64) @ w.T + b
        of_video = {}
        for video in videos.index:
            clips = logits[table.video_id == video]
            of_video[video] = probabilities(task, clips.mean(axis=0))
            found = videos.loc[video, columns(task)].to_numpy(dtype=float)
            np.testing.assert_allclose(found, of_video[video], rtol=1e-5, atol=1e-6, err_msg=task.name)
            if task.classes:
                far = max(far, np.abs(probabilities(task, clips).mean(axis=0) - of_video[video]).max())
        both = (of_video["b/long"] + of_video["b/short"]) / 2
        found = studies.loc["S2", columns(task)].to_numpy(dtype=float)
        np.testing.assert_allclose(found, both, rtol=1e-5, atol=1e-6, err_msg=task.name)
    # Clips differ enough for the mean of probabilities to be another number.
    assert far > 1e-3


def columns(task):
    if task.type == "multiclass":
        return [f"{task.name}:{label}" for label in task.classes]
    return [f"{task.name}:{task.positive_class}" if task.classes else task.name]


def probabilities(task, raw):
    if task.type == "regression":
        return task.sign * raw
    if task.type == "multiclass":
        return np.exp(raw) / np.exp(raw).sum(axis=-1, keepdims=True)
    return 1 / (1 + np.exp(-raw if task.positive_class_index == 1 else raw))
