"""From a lossless colour video to the row and the table: what the golden-pinned model makes of OpenCV's own frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from panecho_embed.core.clips import ClipPlan
from panecho_embed.extraction.choose import BOUNDS
from panecho_embed.extraction.run import extract
from panecho_embed.models.fused import can_fuse
from panecho_embed.models.panecho import PanEcho
from panecho_embed.prediction.run import predict
from panecho_embed.store import EmbeddingFile
from tests.golden import difference
from tests.media.builders import write_video

BOUND = 1e-4
FRAMES = 23
PLAN = ClipPlan(num_clips=2)
STARTS = [0, 7]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Colours that differ from channel to channel and from frame to frame, 90 x 122 pixels."""
    y, x = np.mgrid[:90, :122]
    frames = np.zeros((FRAMES, 90, 122, 3), np.uint8)
    for t in range(FRAMES):
        for channel, speed in enumerate((0.3, 0.7, 1.1)):
            wave = np.sin(x / (9 + channel) + speed * t) * np.cos(y / (13 - channel) - speed * t / 2)
            frames[t, ..., channel] = 127.5 + 120 * wave
    path = write_video(tmp_path_factory.mktemp("video") / "colour.avi", frames, "ffv1", pixels="bgr0")
    np.testing.assert_array_equal(np.stack(by_opencv(path))[..., ::-1], frames)
    return path


def by_opencv(path: Path) -> list[np.ndarray]:
    """Every frame as OpenCV decodes it, BGR."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


def tensor(video: Path, resize: int = 256, crop: int = 224) -> torch.Tensor:
    """What the weights were trained with, (2, 3, 16, crop, crop): BGR, a square by area, its centre, normalised."""
    resized = [cv2.resize(frame, (resize, resize), interpolation=cv2.INTER_AREA) for frame in by_opencv(video)]
    low = (resize - crop) // 2
    cut = np.stack(resized)[:, low : low + crop, low : low + crop].astype(np.float32) / 255
    normalised = (cut - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    x = torch.from_numpy(normalised).permute(3, 0, 1, 2)
    return torch.stack([x[:, start : start + 16] for start in STARTS])


def embedded(weights: Path, clips: torch.Tensor) -> np.ndarray:
    """By the model that the golden numbers pin."""
    with torch.inference_mode():
        return PanEcho(weights=weights, backbone_only=True)(clips).numpy()


@pytest.fixture(scope="module")
def clips(video) -> torch.Tensor:
    return tensor(video)


@pytest.fixture(scope="module")
def exact(weights, clips) -> np.ndarray:
    return embedded(weights, clips)


def rows(video: Path, weights: Path, out: Path, **options) -> EmbeddingFile:
    extract(video, out, backbone="panecho", weights=weights, clips=PLAN, workers=0, **options)
    file = EmbeddingFile(out)
    assert file.row_columns["first_frame"].tolist() == STARTS
    return file


@pytest.mark.parametrize("engine", ["auto", "eager", "rearranged"])
def test_extract_by_every_engine(video, weights, exact, tmp_path, engine):
    file = rows(video, weights, tmp_path / "e.h5", engine_backend=engine)
    assert difference(file.embeddings, exact) <= BOUND
    assert file.provenance.plane_order == "published"
    assert engine == "auto" or engine in file.provenance.engine


@pytest.mark.parametrize("engine", ["eager", "rearranged"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_extract_in_half_precision(video, weights, tmp_path, precision, engine):
    """At 64 pixels: CPUs without the instructions take minutes at 224."""
    if engine != "eager" and not can_fuse(DTYPES[precision]):
        pytest.skip(f"this CPU has no {precision}")
    options = {"precision": precision, "engine_backend": engine, "image_size": 64}
    found = rows(video, weights, tmp_path / "e.h5", **options).embeddings
    exact = embedded(weights, tensor(video, resize=73, crop=64))
    cosine, largest = BOUNDS[precision]
    assert difference(found, exact) <= largest
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((found * exact).sum(axis=1) / lengths).min() >= cosine


def test_frames_are_the_image_encoder_s(video, weights, clips, tmp_path):
    extract(video, tmp_path / "e.h5", weights=weights, level="frame", workers=0)
    with torch.inference_mode():
        expected = PanEcho(weights=weights, image_encoder_only=True)(clips[0].transpose(0, 1))
    assert difference(EmbeddingFile(tmp_path / "e.h5").embeddings[:16], expected.numpy()) <= BOUND


def test_predict(video, weights, clips, tmp_path):
    found = predict(video, tmp_path / "out", weights=weights, clips=PLAN, workers=0, sheets=False).predictions
    with torch.inference_mode():
        expected = PanEcho(weights=weights, activations=True)(clips)
    for i, output in enumerate(found.outputs):
        task = output.task
        column = task.classes.index(output.label) if task.num_outputs > 1 else 0
        sign = -1 if task.name == "GLS" else 1
        assert difference(sign * found.clips.values[:, i], expected[task.name][:, column].numpy()) <= BOUND
