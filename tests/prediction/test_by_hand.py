"""What `predict` writes is what the model gives, step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from panecho_embed import extract
from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.tasks import all_tasks
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.prediction.run import predict
from tests.prediction.conftest import LENGTHS, SIZE

NORMAL_FIRST = {"LVWallMotionAbnormalities", "LVOT20mmHg", "RAP-8-or-higher"}


def frames_by_opencv(path, resize, crop):
    """(T, 3, crop, crop) as the weights were trained: BGR, area interpolation, centre crop, ImageNet's numbers."""
    reader, frames = cv2.VideoCapture(str(path)), []
    while (read := reader.read())[0]:
        frames.append(cv2.resize(read[1], (resize, resize), interpolation=cv2.INTER_AREA))
    start = (resize - crop) // 2
    pixels = np.stack(frames)[:, start : start + crop, start : start + crop] / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)


def clips_by_hand(frames, number=4, length=16):
    """Evenly spaced clips of consecutive frames; a video shorter than one repeats its last frame."""
    if len(frames) <= length:
        starts = [0]
    else:
        starts = [int(x + 0.5) for x in np.linspace(0, len(frames) - length, min(number, len(frames) - length + 1))]
    return starts, [frames[[min(s + i, len(frames) - 1) for i in range(length)]] for s in starts]


@pytest.fixture(scope="module")
def by_hand(videos, weights):
    """video -> (first frames, {task: (clips, outputs) raw})."""
    model = PanEcho(weights=weights)
    result = {}
    for name in LENGTHS:
        starts, clips = clips_by_hand(frames_by_opencv(videos.parent / name, resize=37, crop=SIZE))
        with torch.inference_mode():
            raw = model(torch.stack(clips).transpose(1, 2))
        result[name.removesuffix(".avi")] = starts, {task: value.numpy() for task, value in raw.items()}
    return result


def shown(task, raw):
    """(..., outputs) of the raw outputs of one task: probabilities, and strain with its sign."""
    if task.type == "regression":
        return -raw if task.name == "GLS" else raw
    if task.type == "multiclass":
        return np.exp(raw) / np.exp(raw).sum(axis=-1, keepdims=True)
    p = 1 / (1 + np.exp(-raw))
    return p if task.name in NORMAL_FIRST else 1 - p


def columns(task):
    if task.type == "regression":
        return [task.name]
    return (
        [f"{task.name}:{task.classes[task.positive_class_index]}"]
        if task.type == "binary"
        else [f"{task.name}:{label}" for label in task.classes]
    )


def test_clips(predicted, by_hand):
    table = pd.read_csv(predicted.out / "clips.csv")
    assert table.video_id.tolist() == ["b/long"] * 4 + ["b/short"] + ["a/only"] * 4
    for video, (starts, raw) in by_hand.items():
        rows = table[table.video_id == video]
        assert rows.first_frame.tolist() == starts
        for task in all_tasks():
            np.testing.assert_allclose(rows[columns(task)], shown(task, raw[task.name]), rtol=2e-5, atol=1e-5)


def test_the_model_itself_gives_them(videos, weights, predicted):
    model = PanEcho(weights=weights, activations=True)
    clips = clips_by_hand(frames_by_opencv(videos.parent / "a/only.avi", resize=37, crop=SIZE))[1]
    with torch.inference_mode():
        outputs = model(torch.stack(clips).transpose(1, 2))
    rows = predicted.predictions.clips
    at = rows.video_id == "a/only"
    for i, output in enumerate(predicted.predictions.outputs):
        expected = outputs[output.task.name][
            :, output.task.classes.index(output.label) if outputs[output.task.name].shape[1] > 1 else 0
        ]
        sign = -1 if output.task.name == "GLS" else 1
        np.testing.assert_allclose(rows.values[at, i], sign * expected, rtol=2e-5, atol=1e-5)


def test_videos_are_made_of_mean_logits_and_studies_are_means_of_videos(predicted, by_hand):
    videos = pd.read_csv(predicted.out / "videos.csv", index_col="video_id")
    studies = pd.read_csv(predicted.out / "studies.csv", index_col="study_id")
    assert studies.index.tolist() == ["S2", "S1"]
    for task in all_tasks():
        mean = {video: shown(task, raw[task.name].mean(axis=0)) for video, (_, raw) in by_hand.items()}
        for video, expected in mean.items():
            np.testing.assert_allclose(videos.loc[video, columns(task)].astype(float), expected, rtol=2e-5, atol=1e-5)
        both = (mean["b/long"] + mean["b/short"]) / 2
        np.testing.assert_allclose(studies.loc["S2", columns(task)].astype(float), both, rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(studies.loc["S1", columns(task)].astype(float), mean["a/only"], rtol=2e-5, atol=1e-5)


def test_strain_is_negative_and_positive_classes_are_named(predicted):
    studies = pd.read_csv(predicted.out / "studies.csv")
    assert (studies["GLS"] < 0).all()
    assert "MVStenosis:Mild|Moderate|Severe" in studies
    assert studies.filter(regex="^AVStenosis:[^_]*$").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("level", ["clip", "frame"])
def test_embeddings_give_what_videos_give(level, videos, weights, predicted, tmp_path):
    if level == "frame":
        # Clips are made of frames only where the model's pictures are frames.
        model = PanEcho(weights=weights)
        model.plane_order = "frames"
        weights = tmp_path / "on-frames.pt"
        save_checkpoint(model, weights)
        predicted = predict(videos, tmp_path / "from-videos", weights=weights, image_size=SIZE, workers=0, sheets=False)
    extract(videos, tmp_path / "e.h5", weights=weights, image_size=SIZE, workers=0, level=level)
    again = predict(tmp_path / "e.h5", tmp_path / "out", weights=weights)
    for table in ("clips", "videos", "studies"):
        a, b = (getattr(one.predictions, table) for one in (predicted, again))
        np.testing.assert_allclose(a.values, b.values, rtol=1e-5, atol=1e-5)
        assert a.video_id.tolist() == b.video_id.tolist()


def test_frames_are_no_source_of_panecho_s_clips(videos, weights, tmp_path):
    extract(videos, tmp_path / "frames.h5", weights=weights, image_size=SIZE, workers=0, level="frame")
    with pytest.raises(ArgumentError, match=r"builds its clips from other pictures .* Extract them from the videos"):
        predict(tmp_path / "frames.h5", tmp_path / "out", weights=weights)
    assert not (tmp_path / "out").exists()


def test_the_command_writes_from_videos_and_from_embeddings_what_is_compared_here(videos, weights, predicted, tmp_path):
    from_videos = [videos, "--image-size", SIZE, "--workers", 0]
    from_embeddings = [predicted.out / "embeddings.h5"]
    for name, words in (("videos", from_videos), ("embeddings", from_embeddings)):
        arguments = ["predict", *words, "-o", tmp_path / name, "--weights", weights, "--no-sheets"]
        result = CliRunner().invoke(main, [str(word) for word in arguments])
        assert result.exit_code == 0, result.output
        for table in ("clips.csv", "videos.csv", "studies.csv"):
            mine, theirs = (pd.read_csv(folder / table) for folder in (tmp_path / name, predicted.out))
            pd.testing.assert_frame_equal(mine, theirs, rtol=1e-5, atol=1e-5)


def test_some_tasks_are_the_same_as_among_all(predicted, weights, tmp_path):
    some = predict(predicted.out / "embeddings.h5", tmp_path / "out", weights=weights, tasks=["AVStenosis", "EF"])
    whole = pd.read_csv(predicted.out / "studies.csv")
    part = pd.read_csv(tmp_path / "out" / "studies.csv")
    assert [o.task.name for o in some.predictions.outputs] == ["AVStenosis"] * 3 + ["EF"]
    pd.testing.assert_frame_equal(part, whole[part.columns])
