"""A backbone that keeps the tensors that it is given: what `extract` feeds a model, from the file on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import Backbone


class Keeps(nn.Module):
    """(N, L, 3, S, S) -> (N, 3), and remembers what came."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, clips: Tensor) -> Tensor:
        self.seen.append(clips.clone())
        return clips.mean(dim=(1, 3, 4))


def fed(path: Path, feeding: Feeding, **options: Any) -> np.ndarray:
    """The clips (N, L, 3, S, S) float32 that a model of this feeding is given of a file."""
    keeps = Keeps()
    info = WeightsInfo("none", "0" * 64, "MIT", pretrained=False)
    backbone = Backbone("keeps", nn.Identity(), keeps, 3, None, feeding, info, pooling="3d")
    folder = Path(tempfile.mkdtemp())
    try:
        summary = extract(path, folder / "out.h5", backbone=backbone, workers=0, engine_backend="eager", **options)
        assert not summary.failed, summary.failed
    finally:
        shutil.rmtree(folder)
    return torch.cat(keeps.seen).numpy()


def saved(folder: Path, frames: np.ndarray) -> Path:
    """Frames (T, H, W, 3) or (T, H, W) uint8 as a file that loses nothing."""
    np.save(folder / "frames.npy", frames)
    return folder / "frames.npy"


def colours(number: int, height: int, width: int) -> np.ndarray:
    """The input of square_crop.npz with this number, (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (7 + number) + k) * np.cos(y / (11 + number) - k) for k in range(3)]
    return np.stack([np.round(127.5 + 127.5 * wave) for wave in waves], axis=-1).astype(np.uint8)
