"""A backbone that costs nothing: enough to follow every frame through the pipeline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.models.backbones import Backbone, MeanOverFrames


class Patches(nn.Module):
    """(T, 3, S, S) -> (T, 12): the mean of each channel in each quarter of the image."""

    def forward(self, frames: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(frames, 2).flatten(1)


class WholeClip(nn.Module):
    """(N, L, 3, S, S) -> (N, 3): a 3-D model in miniature."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(1, 3, 4))


FEEDING = Feeding(resize=40, crop=32)
INFO = WeightsInfo("tiny", "0" * 64, "MIT", pretrained=False)


def tiny(feeding: Feeding = FEEDING) -> Backbone:
    """A image encoder of 12 numbers, clips as their mean."""
    return Backbone("tiny", Patches(), MeanOverFrames(), 12, 12, feeding, INFO)


def tiny_3d() -> Backbone:
    """A model that sees a clip as a whole."""
    return Backbone("tiny-3d", nn.Identity(), WholeClip(), 3, None, FEEDING, INFO, pooling="3d")


class NotFinite(nn.Module):
    """A image encoder that overflows on bright frames."""

    def forward(self, frames: Tensor) -> Tensor:
        values = frames.mean(dim=(2, 3))
        return torch.where(values > 0, torch.inf, values)


def overflowing() -> Backbone:
    """A backbone whose embedding of a bright video is not finite."""
    return Backbone("overflowing", NotFinite(), MeanOverFrames(), 3, 3, FEEDING, INFO)
