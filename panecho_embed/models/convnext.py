"""ConvNeXt as timm has it, also with fewer channels: a weights file's own number, or a share of the published one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from panecho_embed.models.torchvision_ops import ensure_torchvision

ensure_torchvision()
import timm  # noqa: E402

Size = Literal["tiny", "base"]

CHANNELS: Mapping[Size, int] = {"tiny": 96, "base": 128}
"""Channels of the stem as published; each of the three following stages doubles them."""


def convnext(size: Size, channels: int | None = None) -> nn.Module:
    """(T, 3, S, S) float to (T, 8 x channels), random weights, without a classifier. channels: None as published."""
    stem = channels or CHANNELS[size]
    dims = tuple(stem * factor for factor in (1, 2, 4, 8))
    model: nn.Module = timm.create_model(f"convnext_{size}", pretrained=False, num_classes=0, dims=dims)
    return model


def channels_of_width(size: Size, width: float) -> int:
    """Channels of the stem at a share of the published ones, at least 1."""
    return max(1, round(width * CHANNELS[size]))


def channels_in(size: Size, state: Mapping[str, Tensor], stem: str) -> int:
    """Channels of the stem in a state dict; as published if it has none under the name `stem`.

    So a narrower model of one's own loads as the published one does; what else does not fit is found when matching.
    """
    weight = state.get(stem)
    if weight is None or weight.ndim != 4 or not 0 < len(weight) <= CHANNELS[size]:
        return CHANNELS[size]
    return len(weight)
