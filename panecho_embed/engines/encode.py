"""Decoded videos -> embeddings: every frame encoded once, batches filled across videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from panecho_embed.clips import IntArray
from panecho_embed.engines.decode import DecodedVideo
from panecho_embed.models.backbones import Backbone
from panecho_embed.records import Failure, FloatArray, Precision, StoredType, VideoFacts


@dataclass(frozen=True, slots=True, eq=False)
class EncodedVideo:
    """The rows of one video: values (N, D) as stored; first_frame (N,), frame_step and frames_per_clip in frames."""

    values: FloatArray
    first_frame: IntArray
    frame_step: float
    frames_per_clip: int
    facts: VideoFacts


@dataclass(slots=True)
class _Waiting:
    """A video of which some frames are encoded."""

    position: int
    video: DecodedVideo
    features: list[torch.Tensor] = field(default_factory=list)
    encoded: int = 0


class Encoder:
    """Encodes videos one after another; a batch of frames may hold the end of one and the beginning of the next.

    batch_frames: frames in one run of the frame encoder. clip_batch: clips in one run of the clip encoder.
    A video decoded without clips gives a row a frame, and the clip encoder is not used. With `compile`, the frame
    encoder is compiled by TorchInductor for exactly that batch shape, and a last, smaller batch is filled up with black
    frames.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        batch_frames: int,
        precision: Precision = "fp32",
        dtype: StoredType = "float32",
        compile: bool = False,
        clip_batch: int = 64,
    ) -> None:
        self._backbone = backbone
        self._batch_frames = batch_frames
        self._precision = precision
        self._dtype = np.dtype(dtype)
        self._compile = compile
        self._clip_batch = clip_batch
        self._waiting: deque[_Waiting] = deque()
        self._pixels: deque[tuple[_Waiting, torch.Tensor]] = deque()
        self._pending = 0
        if compile:
            backbone.compile_frame_encoder()

    def add(self, position: int, video: DecodedVideo) -> Iterator[tuple[int, EncodedVideo | Failure]]:
        """Take a video in; give back those that this completes, in order.

        A video whose embedding is not finite is a Failure: half precision can overflow.
        """
        waiting = _Waiting(position, video)
        self._waiting.append(waiting)
        self._pixels.append((waiting, torch.from_numpy(video.pixels)))
        self._pending += len(video.pixels)
        while self._pending >= self._batch_frames:
            self._encode_batch()
            yield from self._completed()

    def flush(self) -> Iterator[tuple[int, EncodedVideo | Failure]]:
        """Encode what waits for a full batch."""
        while self._pending:
            self._encode_batch()
            yield from self._completed()

    def _encode_batch(self) -> None:
        shares: list[tuple[_Waiting, torch.Tensor]] = []
        room = self._batch_frames
        while room and self._pixels:
            waiting, pixels = self._pixels.popleft()
            shares.append((waiting, pixels[:room]))
            if len(pixels) > room:
                self._pixels.appendleft((waiting, pixels[room:]))
            room -= len(shares[-1][1])
        batch = torch.cat([pixels for _, pixels in shares])
        self._pending -= len(batch)
        features = self._features(batch).split([len(pixels) for _, pixels in shares])
        for (waiting, _), share in zip(shares, features, strict=True):
            waiting.features.append(share)
            waiting.encoded += len(share)

    def _features(self, batch: torch.Tensor) -> torch.Tensor:
        count = len(batch)
        if self._compile and count < self._batch_frames:
            batch = torch.cat([batch, batch.new_zeros(self._batch_frames - count, *batch.shape[1:])])
        device = self._backbone.device
        if device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(device, non_blocking=True)
        with self._backbone.autocast(self._precision):
            return self._backbone.encode_frames(self._backbone.normalise(batch))[:count]

    def _completed(self) -> Iterator[tuple[int, EncodedVideo | Failure]]:
        while self._waiting and self._waiting[0].encoded == len(self._waiting[0].video.pixels):
            done = self._waiting.popleft()
            yield done.position, self._encoded(torch.cat(done.features), done.video)

    def _encoded(self, features: torch.Tensor, video: DecodedVideo) -> EncodedVideo | Failure:
        if video.clips is not None:
            features = encode_clips(self._backbone, features, video.clips, self._precision, self._clip_batch)
        with np.errstate(over="ignore"):
            # What overflows is told below.
            values = features.float().cpu().numpy().astype(self._dtype)
        if not np.isfinite(values).all():
            message = (
                f"the embedding is not finite, computed in {self._precision} and stored as {self._dtype} "
                "(--precision fp32 and --dtype float32 have the widest range)"
            )
            return Failure(video.video_id, video.path, "encode", message)
        frames_per_clip = 1 if video.clips is None else video.clips.shape[1]
        return EncodedVideo(values, video.first_frame, video.frame_step, frames_per_clip, video.facts)


def encode_clips(
    backbone: Backbone, features: torch.Tensor, clips: IntArray, precision: Precision, clip_batch: int = 64
) -> torch.Tensor:
    """Frame features (U, ...) and clips (N, L) of positions in them -> clip embeddings (N, dim) float32."""
    index = torch.from_numpy(clips).to(features.device)
    with backbone.autocast(precision):
        return torch.cat([backbone.encode_clips(features[some]) for some in index.split(clip_batch)])
