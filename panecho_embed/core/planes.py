"""Which pictures the image encoder sees of a clip: a pure function of the clip's frames.

A *plane* is one channel of one frame. A *picture* is three planes, which is what an image encoder takes. Usually a
picture is a frame. PanEcho as released is different: its forward pass reshapes a clip (N, 3, L, H, W) to (N L, 3, H, W)
without moving the frame axis in front of the channels, so a picture is three consecutive planes of the clip in
channel-major order. For L = 16, picture 0 is channel 0 of frames 0, 1, 2; picture 5 is channel 0 of frame 15 and
channel 1 of frames 0 and 1. The released weights were trained that way, and give other embeddings on frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.clips import PADDING
from panecho_embed.core.errors import ArgumentError

PlaneOrder = Literal["published", "frames"]
"""How a clip's planes become pictures.

"published": three consecutive planes in channel-major order, as PanEcho was released; "frames": a frame is a picture.
"""

CHANNELS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """The distinct pictures of some clips of one video, so that each is encoded once.

    planes: (P, 3) int64, 3 * frame + channel of every plane of a picture, no picture twice.
    clips: as they were given, (N, L) int64 each: for every clip the positions of its pictures in `planes`, in order.
    """

    planes: Ints
    clips: tuple[Ints, ...]


def frame_planes(num_frames: int) -> Ints:
    """The planes of every frame as a picture, (num_frames, 3) int64."""
    return np.arange(CHANNELS * num_frames, dtype=np.int64).reshape(num_frames, CHANNELS)


def pictures_of(clips: Sequence[Ints], num_frames: int, order: PlaneOrder) -> Pictures:
    """The distinct pictures of the clips of one video.

    clips: of one plan or several, (N, L) int64 each, frame numbers from 0 to below `num_frames`, in the order "frames"
    also `PADDING`, which stays. In the order "frames" every one of the `num_frames` frames is a picture, whether a clip
    uses it or not. Raises ArgumentError for padding in the published order.
    """
    if order == "frames":
        return Pictures(frame_planes(num_frames), tuple(clips))
    if any((some == PADDING).any() for some in clips):
        raise ArgumentError("clips padded with zeros have no planes in the published order (--short)")
    every = np.concatenate([_published(some) for some in clips])
    planes, position = np.unique(every, axis=0, return_inverse=True)
    ends = np.cumsum([some.size for some in clips])[:-1]
    parts = np.split(position.reshape(-1), ends)
    return Pictures(planes, tuple(part.reshape(some.shape) for part, some in zip(parts, clips, strict=True)))


def _published(clips: Ints) -> Ints:
    """The planes of every picture of clips (N, L), clip after clip, (N L, 3)."""
    count, length = clips.shape
    place = np.arange(CHANNELS * length)
    planes: Ints = CHANNELS * clips[:, place % length] + place // length
    return planes.reshape(count * length, CHANNELS)
