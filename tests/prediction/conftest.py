"""A model whose predictions differ from clip to clip, and three small videos of two studies."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.prediction.run import predict
from tests.models.conftest import _randomise

SIZE = 32
LENGTHS = {"b/long.avi": 41, "b/short.avi": 9, "a/only.avi": 20}
TABLE = """path,video_id,study_id,patient_id,view,EF,MVStenosis,RASize,GLS
b/long.avi,b/long,S2,P2,A4C,61,None,1,19
b/short.avi,b/short,S2,P2,PLAX,61,None,1,19
a/only.avi,a/only,S1,P1,A4C,35,mild,0,12
"""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released layout, with heads that react to what they see."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PanEcho(pretrained=False)
    _randomise(model)
    path = tmp_path_factory.mktemp("weights") / "panecho.pt"
    save_checkpoint(model, path)
    return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three videos; its folder holds them."""
    folder = tmp_path_factory.mktemp("videos")
    for i, (name, count) in enumerate(LENGTHS.items()):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (72, 56))
        rng = np.random.default_rng(i)
        base = rng.integers(0, 120, (56, 72, 3))
        for t in range(count):
            writer.write(
                np.clip(base + 60 + 60 * np.sin(t / 3 + np.arange(72)[None, :, None] / 9), 0, 255).astype(np.uint8)
            )
        writer.release()
    (folder / "list.csv").write_text(TABLE)
    return folder / "list.csv"


@pytest.fixture(scope="session")
def predicted(videos: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory):
    """What `predict` made of the videos; its `out` is the folder."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    return predict(videos, out, weights=weights, image_size=SIZE, workers=0)
