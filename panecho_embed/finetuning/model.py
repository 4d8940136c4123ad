"""What is trained: a start with a head for each task, from uint8 pixels to raw outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.tasks import Task
from panecho_embed.finetuning.starts import Start, seeded
from panecho_embed.models.panecho import clip_pictures


class FineTuneModel(nn.Module):
    """Clips of uint8 pixels to the outputs of all heads.

    The pixels are normalised here, as the start's weights expect, so that nobody can forget it or do it twice. The
    parameters have PanEcho's names: image_encoder, clip_encoder, heads.<task>.1. One-output heads begin at the task's
    training mean. scales: (T,) factors on the heads' first weights; None for 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        start: Start,
        tasks: Sequence[Task],
        *,
        head_dropout: float = 0.0,
        scales: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.whole_clips = start.whole_clips
        self.plane_order: PlaneOrder = start.plane_order
        self.scale = start.feeding.scale
        self.register_buffer("mean", torch.tensor(start.feeding.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(start.feeding.std)[:, None, None], persistent=False)
        self.image_encoder = start.image_encoder
        self.clip_encoder = start.clip_encoder
        factors = scales or [1.0] * len(tasks)
        with seeded(seed):
            heads = {
                task.name: _head(task, start.dim, head_dropout, factor)
                for task, factor in zip(tasks, factors, strict=True)
            }
        self.heads = nn.ModuleDict(heads)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, L, 3, S, S) uint8, channels in the start's order, to (N, K) float32: all outputs, task after task."""
        normalised = self.normalise(pixels)
        if self.whole_clips:
            return self.outputs(normalised)
        pictures = clip_pictures(normalised.transpose(1, 2), self.plane_order)
        return self.outputs(self.encode_pictures(pictures).unflatten(0, pixels.shape[:2]))

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(P, 3, S, S) normalised to (P, D); to the pictures themselves if the start sees clips as a whole."""
        if self.whole_clips:
            return pictures
        encoded: Tensor = self.image_encoder(pictures.contiguous(memory_format=torch.channels_last))
        return encoded

    def outputs(self, pictures: Tensor) -> Tensor:
        """(N, L, ...) of `encode_pictures`, put together to clips, to (N, K) float32."""
        clips = self.clip_encoder(pictures)
        return torch.cat([head(clips) for head in self.heads.values()], dim=1).float()

    def normalise(self, pixels: Tensor) -> Tensor:
        """(..., 3, S, S) uint8 to float32."""
        return pixels.to(torch.float32).mul_(self.scale).sub_(self.mean).div_(self.std)


def activated(outputs: Tensor, tasks: Sequence[Task]) -> Tensor:
    """(..., K) raw outputs to values of regressions and probabilities: of index 1 of a binary task, of every class."""
    parts = []
    for task, raw in zip(tasks, outputs.split([task.num_outputs for task in tasks], dim=-1), strict=True):
        parts.append(raw if task.type == "regression" else raw.sigmoid() if task.type == "binary" else raw.softmax(-1))
    return torch.cat(parts, dim=-1)


def _head(task: Task, dim: int, dropout: float, scale: float) -> nn.Sequential:
    linear = nn.Linear(dim, task.num_outputs)
    linear.weight.data.mul_(scale)
    if task.num_outputs == 1 and math.isfinite(task.training_mean):
        nn.init.constant_(linear.bias, task.training_mean)
    return nn.Sequential(nn.Dropout(dropout), linear)
