"""What a training clip goes through so that no two epochs see the same pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from panecho_embed.finetune.recipe import AugmentationSettings
from panecho_embed.models.torchvision_ops import ensure_torchvision

ensure_torchvision()
from torchvision.transforms.v2 import functional  # noqa: E402

_ZOOM_CHANCE = 0.5


def augment(frames: Tensor, side: int, settings: AugmentationSettings, rng: np.random.Generator) -> Tensor:
    """(L, 3, R, R) uint8, not yet cropped, to (L, 3, side, side) uint8, every frame changed alike.

    In the order in which PanEcho was trained: zoomed out onto black, cropped, mirrored, rotated. `rng` decides; from
    the same state it decides the same.
    """
    if rng.random() < _ZOOM_CHANCE:
        frames = _zoomed_out(frames, rng.uniform(1.0, settings.zoom_out), rng.random(2))
    room = frames.shape[-1] - side
    top, left = rng.integers(0, room + 1, size=2) if settings.crop else (room // 2, room // 2)
    frames = functional.crop(frames, int(top), int(left), side, side)
    if rng.random() < settings.flip:
        frames = functional.horizontal_flip(frames)
    angle = rng.uniform(-settings.rotation, settings.rotation)
    return functional.rotate(frames, angle).contiguous() if settings.rotation else frames.contiguous()


def _zoomed_out(frames: Tensor, factor: float, place: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    """On a black canvas `factor` times as large, anywhere on it."""
    side = frames.shape[-1]
    canvas = torch.zeros(*frames.shape[:2], int(side * factor), int(side * factor), dtype=frames.dtype)
    top, left = (place * (canvas.shape[-1] - side + 1)).astype(int)
    canvas[:, :, top : top + side, left : left + side] = frames
    return canvas
