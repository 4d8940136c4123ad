"""What every encoder is here: frames to frame embeddings, those to clip embeddings, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from panecho_embed.clips import ClipPlan
from panecho_embed.errors import ArgumentError
from panecho_embed.provenance import Precision, Preprocess, WeightsInfo

Pooling = Literal["transformer", "mean", "3d"]

FRAMES_PER_CLIP = 16
"""Frames in a clip of a model that names no other number; PanEcho's."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class MeanOverFrames(nn.Module):
    """A clip encoder without weights: (N, L, D) to the mean (N, D)."""

    def forward(self, frames: Tensor) -> Tensor:
        """(N, L, D) to (N, D)."""
        return frames.mean(dim=1)


@dataclass(eq=False)
class Backbone:
    """An encoder with its preprocessing and its weights' origin.

    frame_encoder: a module (T, 3, S, S) -> (T, frame_dim). clip_encoder: a module (N, L, frame_dim) -> (N, dim). Both
    are plain modules, to fine-tune as they are; here they run in eval mode and without gradients.
    dim: of a clip's embedding. frame_dim: of a frame's; None for a 3-D model, which has none: its `encode_frames` hands
    the pixels on, and its clip_encoder takes (N, L, 3, S, S).
    pooling: how a clip is made of its frames. frames_per_clip: that it was trained with; fixed_clip_length: it takes
    no other number. fixed_image_size: it takes no other size than `preprocess.crop`. recorded_clips: those that its
    weights file says it was tested on, None where it says nothing.
    """

    name: str
    frame_encoder: nn.Module
    clip_encoder: nn.Module
    dim: int
    frame_dim: int | None
    preprocess: Preprocess
    weights: WeightsInfo
    pooling: Pooling = "mean"
    frames_per_clip: int = FRAMES_PER_CLIP
    fixed_clip_length: bool = False
    fixed_image_size: bool = False
    recorded_clips: ClipPlan | None = None
    device: torch.device = field(default=torch.device("cpu"), init=False)

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ArgumentError(f"pooling of {self.name} is {self.pooling!r}; allowed: {get_args(Pooling)}")
        if (self.frame_dim is None) != (self.pooling == "3d"):
            raise ArgumentError(
                f"{self.name}: frame_dim is {self.frame_dim} and pooling {self.pooling!r}; None goes with '3d'"
            )
        if self.frame_dim is not None:
            # Convolutions are faster that way, on CPUs by a tenth; nothing else changes.
            self.frame_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack it
        self.to("cpu")

    def to(self, device: str | torch.device) -> Self:
        """Move the modules; returns the backbone itself. device: "cpu", "cuda", "cuda:1", "mps"."""
        self.device = torch.device(device)
        for module in (self.frame_encoder, self.clip_encoder):
            module.eval().to(self.device)
        return self

    def at_size(self, image_size: int | None) -> Self:
        """Take images of this many pixels a side, None: as trained; returns the backbone itself.

        Raises ArgumentError for a size that it can't take.
        """
        if image_size is not None and image_size != self.preprocess.crop:
            if self.fixed_image_size:
                raise ArgumentError(
                    f"image size is {image_size}; {self.name} takes {self.preprocess.crop} alone "
                    "(leave out --image-size)"
                )
            self.preprocess = self.preprocess.at_size(image_size)
        return self

    @property
    def clip_plan(self) -> ClipPlan:
        """The clips where none are asked for: those recorded, else 4 of as many consecutive frames as it takes."""
        return self.recorded_clips or ClipPlan(self.frames_per_clip)

    @contextmanager
    def autocast(self, precision: Precision) -> Iterator[None]:
        """Encode inside with this precision of arithmetic; embeddings are float32 all the same."""
        if precision not in _DTYPES:
            raise ArgumentError(f"precision is {precision!r}; allowed are {', '.join(_DTYPES)} (--precision)")
        cudnn = torch.backends.cudnn
        tf32 = cudnn.allow_tf32
        # cuDNN would otherwise convolve fp32 with ten bits of mantissa, and batch sizes would show in the values.
        cudnn.allow_tf32 = tf32 and precision != "fp32"
        try:
            with torch.autocast(self.device.type, dtype=_DTYPES[precision], enabled=precision != "fp32"):
                yield
        finally:
            cudnn.allow_tf32 = tf32

    def normalise(self, pixels: Tensor) -> Tensor:
        """(T, 3, S, S) uint8 on any device, channels in the model's order, to what `encode_frames` takes, float32."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ArgumentError(
                f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}; allowed is uint8 (T, 3, S, S)"
            )
        mean, std = self._mean_std(pixels.device)
        return pixels.to(torch.float32).mul_(self.preprocess.scale).sub_(mean).div_(std)

    @torch.inference_mode()
    def encode_frames(self, frames: Tensor) -> Tensor:
        """(T, 3, S, S) float, normalised, T at least 1, to (T, frame_dim) float32; for a 3-D model the input itself.

        Raises ArgumentError for another shape or type, and for values that this model's preprocessing can't give.
        """
        if frames.ndim != 4 or frames.shape[1] != 3 or min(frames.shape) < 1 or not frames.is_floating_point():
            raise ArgumentError(
                f"frames are {frames.dtype} of shape {tuple(frames.shape)}; allowed is float (T, 3, S, S), T at least 1"
            )
        self._check_range(frames)
        if self.frame_dim is None:
            return frames
        frames = frames.to(self.device, torch.float32, memory_format=torch.channels_last)
        encoded: Tensor = self.frame_encoder(frames).to(torch.float32)
        return encoded

    @torch.inference_mode()
    def encode_clips(self, frames: Tensor) -> Tensor:
        """(N, L, frame_dim) float, from `encode_frames`, to (N, dim) float32; (N, L, 3, S, S) for a 3-D model."""
        inner = ("3", "S", "S") if self.frame_dim is None else (str(self.frame_dim),)
        if frames.ndim != 2 + len(inner) or str(frames.shape[2]) != inner[0] or min(frames.shape) < 1:
            raise ArgumentError(
                f"frames of clips have shape {tuple(frames.shape)}; {self.name} takes (N, L, {', '.join(inner)})"
            )
        if self.fixed_clip_length and frames.shape[1] != self.frames_per_clip:
            raise ArgumentError(
                f"clips have {frames.shape[1]} frames; {self.name} takes {self.frames_per_clip} (--frames-per-clip)"
            )
        encoded: Tensor = self.clip_encoder(frames.to(self.device, torch.float32)).to(torch.float32)
        return encoded

    def _mean_std(self, device: torch.device) -> tuple[Tensor, Tensor]:
        values = torch.tensor((self.preprocess.mean, self.preprocess.std), dtype=torch.float32, device=device)
        mean, std = values[:, :, None, None]
        return mean, std

    def _check_range(self, frames: Tensor) -> None:
        """Refuse pixels that were not normalised for this model, or were twice; black and white bound what can be."""
        mean, std = self._mean_std(frames.device)
        lowest, highest = ((limit - mean) / std for limit in (0.0, 255 * self.preprocess.scale))
        slack = 0.01 * (highest - lowest)
        low, high = frames.amin(dim=(0, 2, 3)).float(), frames.amax(dim=(0, 2, 3)).float()
        within = (low >= (lowest - slack).flatten()) & (high <= (highest + slack).flatten())
        if not within.all():
            raise ArgumentError(
                f"{self.name}: the frames' values go from {low.min():.4g} to {high.max():.4g}; 0-255 pixels times "
                f"{self.preprocess.scale:.4g}, minus {self.preprocess.mean}, divided by {self.preprocess.std}, go from "
                f"{lowest.min():.4g} to {highest.max():.4g}. They were normalised for another model, not at all, or "
                "twice; Backbone.normalise does it from uint8"
            )
