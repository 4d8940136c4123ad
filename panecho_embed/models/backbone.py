"""What every encoder is here: pictures to vectors, those to clip embeddings, how it is fed, and its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.planes import Pictures, PlaneOrder, frame_planes, pictures_of
from panecho_embed.core.provenance import Precision, WeightsInfo

Pooling = Literal["transformer", "mean", "3d"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class MeanOverFrames(nn.Module):
    """A clip encoder without weights: (N, L, D) to the mean (N, D)."""

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, L, D) to (N, D)."""
        return pictures.mean(dim=1)


@dataclass(eq=False)
class Backbone:
    """An encoder, how it is fed, and its weights' origin.

    image_encoder: a module (P, 3, S, S) -> (P, image_dim). clip_encoder: a module (N, L, image_dim) -> (N, dim). Both
    are plain modules, to fine-tune as they are; here they run in eval mode and without gradients.
    dim: of a clip's embedding. image_dim: of a picture's; None for a 3-D model, which has none: its `encode_pictures`
    hands the pixels on, and its clip_encoder takes (N, L, 3, S, S).
    pooling: how a clip is made of its pictures. l2_normalised: whether the vector of every picture is scaled to unit
    length before clips are made of them; training (`finetune`) takes `image_encoder` without. plane_order: which
    pictures a clip is made of, see `PlaneOrder`: a property of the weights. feeding: how frames and clips become its
    input. own_feeding: that of the weights, where `feeding` was changed. min_frames: the least frames of a clip that it
    takes; fixed_clip_length: it takes no other number than `own_feeding.clips` has. fixed_image_size: it takes no other
    size than `feeding.crop`. patients: that its weights file says it was trained on.
    """

    name: str
    image_encoder: nn.Module
    clip_encoder: nn.Module
    dim: int
    image_dim: int | None
    feeding: Feeding
    weights: WeightsInfo
    pooling: Pooling = "mean"
    l2_normalised: bool = False
    plane_order: PlaneOrder = "frames"
    own_feeding: Feeding | None = None
    min_frames: int = 1
    fixed_clip_length: bool = False
    fixed_image_size: bool = False
    patients: TrainingPatients = field(default_factory=TrainingPatients)
    device: torch.device = field(default=torch.device("cpu"), init=False)

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ArgumentError(f"pooling of {self.name} is {self.pooling!r}; allowed: {get_args(Pooling)}")
        if self.plane_order not in get_args(PlaneOrder):
            raise ArgumentError(f"plane_order of {self.name} is {self.plane_order!r}; allowed: {get_args(PlaneOrder)}")
        if (self.image_dim is None) != (self.pooling == "3d"):
            raise ArgumentError(
                f"{self.name}: image_dim is {self.image_dim} and pooling {self.pooling!r}; None goes with '3d'"
            )
        if self.image_dim is None and (self.plane_order != "frames" or self.l2_normalised):
            raise ArgumentError(
                f"{self.name} sees a clip as a whole; its plane_order must be 'frames', and l2_normalised False"
            )
        self.own_feeding = self.own_feeding or self.feeding
        self.check_clips(self.feeding.clips)
        if self.image_dim is not None:
            # Convolutions are faster that way, on CPUs by a tenth; nothing else changes.
            self.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack it
        self.to("cpu")

    def to(self, device: str | torch.device) -> Self:
        """Move the modules; returns the backbone itself. device: "cpu", "cuda", "cuda:1", "mps"."""
        self.device = torch.device(device)
        for module in (self.image_encoder, self.clip_encoder):
            module.eval().to(self.device)
        return self

    def at_size(self, image_size: int | None) -> Self:
        """Take images of this many pixels a side, None: as trained; returns the backbone itself.

        Raises ArgumentError for a size that it can't take.
        """
        if image_size is not None and image_size != self.feeding.crop:
            if self.fixed_image_size:
                raise ArgumentError(
                    f"image size is {image_size}; {self.name} takes {self.feeding.crop} alone (leave out --image-size)"
                )
            self.feeding = self.feeding.at_size(image_size)
        return self

    def check_clips(self, plan: ClipPlan) -> None:
        """Raise ArgumentError, naming the flag, for clips that this model can't take."""
        taken, own = plan.frames_per_clip, self._own.clips.frames_per_clip
        if self.fixed_clip_length and taken != own:
            raise ArgumentError(f"clips have {taken} frames; {self.name} takes {own} (--frames-per-clip)")
        if taken < self.min_frames:
            raise ArgumentError(
                f"clips have {taken} frames; {self.name} takes {self.min_frames} or more (--frames-per-clip)"
            )
        if plan.short == "zeros" and self.image_dim is not None:
            raise ArgumentError(
                f"short is 'zeros': that is for models that see a clip as a whole, and {self.name} sees pictures "
                "(--short repeat, wrap or skip)"
            )

    def overrides(self, feeding: Feeding, plan: ClipPlan | None) -> tuple[str, ...]:
        """What differs from the model's own feeding, a line each; see `Feeding.differences`.

        plan: the clips that are made; None for none (frame level).
        """
        return replace(feeding, clips=plan or self._own.clips).differences(self._own, self.name)

    @property
    def _own(self) -> Feeding:
        assert self.own_feeding is not None
        return self.own_feeding

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

    def pictures(self, clips: Sequence[Ints] | None, num_frames: int) -> Pictures:
        """The distinct pictures that the clips of a video are made of; see `panecho_embed.core.planes`.

        clips: of one plan or several, (N, L) int64 each, frame numbers below `num_frames`; None for no clips and every
        frame a picture: the image encoder's vectors of frames.
        """
        if clips is None:
            return Pictures(frame_planes(num_frames), ())
        return pictures_of(clips, num_frames, self.plane_order)

    def normalise(self, pixels: Tensor, channels: Tensor | None = None) -> Tensor:
        """Pictures as `encode_pictures` takes them, (P, 3, S, S) float32.

        pixels: (P, 3, S, S) uint8 on any device. channels: (P, 3) int64 on the same device, the channel (0 to 2, in
        `feeding.channel_order`) that every plane was taken from; None if pictures are frames.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ArgumentError(
                f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}; allowed is uint8 (P, 3, S, S)"
            )
        mean, std = self._mean_std(pixels.device, channels)
        return pixels.to(torch.float32).mul_(self.feeding.scale).sub_(mean).div_(std)

    @torch.inference_mode()
    def encode_pictures(self, pictures: Tensor, channels: Tensor | None = None) -> Tensor:
        """Vectors of pictures, (P, image_dim) float32; of a 3-D model the input itself.

        pictures: (P, 3, S, S) float, normalised, P at least 1. channels: as for `normalise`. Raises ArgumentError for
        another shape or type, and for values that this model's feeding can't give.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape) < 1 or not pictures.is_floating_point():
            raise ArgumentError(
                f"pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; allowed is float (P, 3, S, S), "
                "P at least 1"
            )
        self._check_range(pictures, channels)
        if self.image_dim is None:
            return pictures
        pictures = pictures.to(self.device, torch.float32, memory_format=torch.channels_last)
        encoded: Tensor = self.image_encoder(pictures).to(torch.float32)
        return nn.functional.normalize(encoded) if self.l2_normalised else encoded

    @torch.inference_mode()
    def encode_clips(self, pictures: Tensor) -> Tensor:
        """Clip embeddings, (N, dim) float32.

        pictures: (N, L, image_dim) float, the vectors of every clip's pictures in order; of a 3-D model
        (N, L, 3, S, S). Raises ArgumentError for another shape.
        """
        inner = ("3", "S", "S") if self.image_dim is None else (str(self.image_dim),)
        if pictures.ndim != 2 + len(inner) or str(pictures.shape[2]) != inner[0] or min(pictures.shape) < 1:
            raise ArgumentError(
                f"pictures of clips have shape {tuple(pictures.shape)}; {self.name} takes (N, L, {', '.join(inner)})"
            )
        own = self._own.clips.frames_per_clip
        if self.fixed_clip_length and pictures.shape[1] != own:
            raise ArgumentError(f"clips have {pictures.shape[1]} frames; {self.name} takes {own} (--frames-per-clip)")
        encoded: Tensor = self.clip_encoder(pictures.to(self.device, torch.float32)).to(torch.float32)
        return encoded

    def _mean_std(self, device: torch.device, channels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of every plane, each to be broadcast with (P, 3, S, S)."""
        values = torch.tensor((self.feeding.mean, self.feeding.std), dtype=torch.float32, device=device)
        mean, std = (values[:, None] if channels is None else values[:, channels])[..., None, None]
        return mean, std

    def _check_range(self, pictures: Tensor, channels: Tensor | None) -> None:
        """Refuse pixels that were not normalised for this model, or were twice; black and white bound what can be."""
        mean, std = self._mean_std(pictures.device, channels)
        lowest, highest = ((limit - mean) / std for limit in (0.0, 255 * self.feeding.scale))
        slack = 0.01 * (highest - lowest)
        low, high = (values.float()[..., None, None] for values in (pictures.amin((2, 3)), pictures.amax((2, 3))))
        if not ((low >= lowest - slack) & (high <= highest + slack)).all():
            raise ArgumentError(
                f"{self.name}: the pictures' values go from {low.min():.4g} to {high.max():.4g}; 0-255 pixels times "
                f"{self.feeding.scale:.4g}, minus {self.feeding.mean}, divided by {self.feeding.std}, go from "
                f"{lowest.min():.4g} to {highest.max():.4g}. They were normalised for another model, not at all, or "
                "twice; Backbone.normalise does it from uint8"
            )


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of that name, if this torch can use it; "auto": "cuda" or "mps" where there is one, else "cpu".

    Raises ArgumentError for a device that is unknown or not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    # torch raises AssertionError for an accelerator that it was built without.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentError(
            f"device is {str(device)!r}, which this torch {torch.__version__} can't use: "
            f"{str(error).splitlines()[0]}; cpu always works (--device)"
        ) from error
    return found
