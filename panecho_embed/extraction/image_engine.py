"""What runs the image encoder: PyTorch operator by operator, rearranged for a CPU, or compiled for a GPU.

An engine takes a batch of pictures in memory and returns (P, image_dim) float32 on the model's device. `choose.py`
says which one runs, and checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from panecho_embed.core.errors import EngineError
from panecho_embed.core.provenance import Precision
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.fused import can_fuse, fuse
from panecho_embed.models.rearranged import PixelEncoder, rearranged

_WORDS = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc")
WEIGHTS_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, eq=False)
class PictureBatch:
    """Pictures on their way to an image encoder.

    pixels: (P, 3, S, S) uint8. channels: (P, 3) int64, the channel (0 to 2, in the model's order) that every plane was
    taken from, which says how it is normalised.
    """

    pixels: Tensor
    channels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, some: slice) -> PictureBatch:
        return PictureBatch(self.pixels[some], self.channels[some])

    @classmethod
    def of_frames(cls, frames: Tensor) -> PictureBatch:
        """Whole frames (T, 3, S, S) uint8 as pictures."""
        return cls(frames, torch.arange(frames.shape[1]).expand(len(frames), -1))

    def filled(self, count: int) -> PictureBatch:
        """The same with black pictures behind it, `count` in all."""
        missing = count - len(self)
        if not missing:
            return PictureBatch(self.pixels.contiguous(), self.channels.contiguous())
        black = self.pixels.new_zeros(missing, *self.pixels.shape[1:])
        channels = self.channels.new_zeros(missing, self.channels.shape[1])
        return PictureBatch(torch.cat([self.pixels, black]), torch.cat([self.channels, channels]))


class ImageEngine(Protocol):
    """Runs the image encoder. name: for people and the provenance. batch_pictures: all that it takes, None for any."""

    name: str
    batch_pictures: int | None

    def __call__(self, batch: PictureBatch) -> Tensor:
        """P pictures to (P, image_dim) float32; P at most `batch_pictures`."""
        ...


class EagerEngine:
    """PyTorch as it is, one operator after the other: what every other engine is checked against."""

    name = "eager"
    batch_pictures: int | None = None

    def __init__(self, backbone: Backbone, precision: Precision) -> None:
        self._backbone = backbone
        self._precision: Precision = precision
        self._move = _mover(backbone.device)

    def __call__(self, batch: PictureBatch) -> Tensor:
        """See ImageEngine; for a 3-D model the normalised pixels themselves."""
        pixels, channels = self._move(batch.pixels), self._move(batch.channels)
        with self._backbone.autocast(self._precision):
            return self._backbone.encode_pictures(self._backbone.normalise(pixels, channels), channels)


class RearrangedEngine:
    """The rearranged modules, by oneDNN's fused operators where they are: no compiler and hardly a start-up.

    In bf16 and fp16 the weights are rounded too. Raises EngineError if the model has nothing to rearrange.
    """

    name = "rearranged"
    batch_pictures: int | None = None

    def __init__(self, backbone: Backbone, precision: Precision) -> None:
        encoder, count = rearranged(backbone.image_encoder)
        if not count:
            raise EngineError(
                f"{backbone.name} has no ConvNeXt blocks that could be rearranged (--engine-backend eager)"
            )
        self._move = _mover(backbone.device)
        dtype = WEIGHTS_DTYPES[precision]
        self._encoder = PixelEncoder(backbone, encoder, dtype).eval().to(backbone.device)
        if backbone.device.type == "cpu" and can_fuse(dtype):
            fuse(self._encoder)

    @torch.inference_mode()
    def __call__(self, batch: PictureBatch) -> Tensor:
        """See ImageEngine."""
        encoded: Tensor = self._encoder(self._move(batch.pixels), self._move(batch.channels))
        return encoded


class AcceleratorEngine:
    """Compiled by TorchInductor when it first runs, for exactly `batch_pictures`, so that nothing recompiles."""

    name = "compiled"

    def __init__(self, backbone: Backbone, precision: Precision, batch_pictures: int) -> None:
        self.batch_pictures: int | None = batch_pictures
        self._backbone = backbone
        self._precision: Precision = precision
        self._move = _mover(backbone.device)
        self._encoder: nn.Module = PixelEncoder(backbone, backbone.image_encoder).eval().to(backbone.device)
        self._encoder.compile(dynamic=False)

    @torch.inference_mode()
    def __call__(self, batch: PictureBatch) -> Tensor:
        """See ImageEngine."""
        assert self.batch_pictures is not None
        whole = batch.filled(self.batch_pictures)
        moved = self._move(whole.pixels), self._move(whole.channels)
        try:
            with self._backbone.autocast(self._precision):
                encoded: Tensor = self._encoder(*moved)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Whatever a compiler stumbles over, the way on is the same.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(
                f"{self._backbone.name} can't be compiled for {self._backbone.device}: {reason} "
                "(--engine-backend eager)"
            ) from error
        return encoded[: len(batch)].to(torch.float32)


class _Mover:
    """Pictures to a GPU, from pinned memory on a separate stream: beside the computation of the batch before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def __call__(self, tensor: Tensor) -> Tensor:
        with torch.cuda.stream(self._stream):
            moved = tensor.pin_memory().to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        # The copy's memory must not be handed out again before the computation has read it.
        moved.record_stream(computing)
        return moved


class _PlainMover:
    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)


def _mover(device: torch.device) -> _Mover | _PlainMover:
    """What brings pictures to a device."""
    return _Mover(device) if device.type == "cuda" else _PlainMover(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Is that memory that ran out? CPUs' allocators say it as a RuntimeError, in words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
