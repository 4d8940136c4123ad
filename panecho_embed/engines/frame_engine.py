"""What runs the frame encoder: PyTorch operator by operator, rearranged for a CPU, or compiled on a GPU.

An engine takes pixels (T, 3, S, S) uint8 in memory, channels in the model's order, and returns (T, frame_dim) float32
on the model's device. `choose.py` says which one runs, and checks it; `compiled.py` has the one for CPUs.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from panecho_embed.engines.memory import is_out_of_memory
from panecho_embed.errors import EngineError
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.fused import can_fuse, fuse
from panecho_embed.models.rearranged import PixelEncoder, rearranged
from panecho_embed.provenance import Precision

WEIGHTS_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FrameEngine(Protocol):
    """Runs the frame encoder. name: for people and the provenance. batch_frames: all that it takes, None for any."""

    name: str
    batch_frames: int | None

    def __call__(self, pixels: Tensor) -> Tensor:
        """(T, 3, S, S) uint8 to (T, frame_dim) float32; T at most `batch_frames`."""
        ...


class EagerEngine:
    """PyTorch as it is, one operator after the other: what every other engine is checked against."""

    name = "eager"
    batch_frames: int | None = None

    def __init__(self, backbone: Backbone, precision: Precision) -> None:
        self._backbone = backbone
        self._precision: Precision = precision
        self._move = mover(backbone.device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """See FrameEngine; for a 3-D model the normalised pixels themselves."""
        moved = self._move(pixels)
        with self._backbone.autocast(self._precision):
            return self._backbone.encode_frames(self._backbone.normalise(moved))


class RearrangedEngine:
    """The rearranged modules, by oneDNN's fused operators where they are: no compiler and hardly a start-up.

    In bf16 and fp16 the weights are rounded too. Raises EngineError if the model has nothing to rearrange.
    """

    name = "rearranged"
    batch_frames: int | None = None

    def __init__(self, backbone: Backbone, precision: Precision) -> None:
        encoder, count = rearranged(backbone.frame_encoder)
        if not count:
            raise EngineError(
                f"{backbone.name} has no ConvNeXt blocks that could be rearranged (--engine-backend eager or compiled)"
            )
        self._move = mover(backbone.device)
        dtype = WEIGHTS_DTYPES[precision]
        self._encoder = PixelEncoder(backbone, encoder, dtype).eval().to(backbone.device)
        if backbone.device.type == "cpu" and can_fuse(dtype):
            fuse(self._encoder)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """See FrameEngine."""
        encoded: Tensor = self._encoder(self._move(pixels))
        return encoded


class AcceleratorEngine:
    """Compiled by TorchInductor when it first runs, for exactly `batch_frames` frames, so that nothing recompiles."""

    name = "compiled"

    def __init__(self, backbone: Backbone, precision: Precision, batch_frames: int) -> None:
        self.batch_frames: int | None = batch_frames
        self._backbone = backbone
        self._precision: Precision = precision
        self._move = mover(backbone.device)
        self._encoder: nn.Module = PixelEncoder(backbone, backbone.frame_encoder).eval().to(backbone.device)
        self._encoder.compile(dynamic=False)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """See FrameEngine."""
        assert self.batch_frames is not None
        moved = self._move(filled(pixels, self.batch_frames))
        try:
            with self._backbone.autocast(self._precision):
                encoded: Tensor = self._encoder(moved)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Whatever a compiler stumbles over, the way on is the same.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(
                f"{self._backbone.name} can't be compiled for {self._backbone.device}: {reason} "
                "(--engine-backend eager)"
            ) from error
        return encoded[: len(pixels)].to(torch.float32)


def filled(pixels: Tensor, batch_frames: int) -> Tensor:
    """A batch of exactly that many frames, black ones behind those that are there."""
    if len(pixels) == batch_frames:
        return pixels
    return torch.cat([pixels, pixels.new_zeros(batch_frames - len(pixels), *pixels.shape[1:])])


class _Mover:
    """Pixels to a GPU, from pinned memory on a stream of their own: beside the computation of the batch before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        with torch.cuda.stream(self._stream):
            moved = pixels.pin_memory().to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        # The copy's memory must not be handed out again before the computation has read it.
        moved.record_stream(computing)
        return moved


class _PlainMover:
    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._device)


def mover(device: torch.device) -> _Mover | _PlainMover:
    """What brings uint8 pixels to a device."""
    return _Mover(device) if device.type == "cuda" else _PlainMover(device)
