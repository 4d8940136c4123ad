"""The heartbeat of a video, in frames: what clips that follow it are cut by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError

_SHORTEST, _LONGEST = 0.5, 1.5
"""Of a beat from R wave to R wave, as shares of the usual one: beyond, a beat came early or an R wave was missed."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The heartbeat of a video.

    Parameters
    ----------
    frames : float
        Length of a beat, in frames, above 0; NaN where it is not known.
    r_waves : tuple of float
        Times of the R waves, in frames from the first frame, ascending; () where they are not known.
    end_diastole, end_systole : float
        The frames of one cycle's end diastole and end systole, from 0; NaN where they are not known.
    """

    frames: float = math.nan
    r_waves: tuple[float, ...] = ()
    end_diastole: float = math.nan
    end_systole: float = math.nan

    def __post_init__(self) -> None:
        if not (math.isnan(self.frames) or 0 < self.frames < math.inf):
            raise ArgumentError(f"a beat has {self.frames} frames; it must be above 0, or NaN where it is not known")

    def spans(self, beats: int, num_frames: int, reach: float) -> Floats:
        """Where stretches of whole beats are in a video, one after the other, (N, 2): first frame and length in frames.

        From R wave to R wave where they are known; beats before the first and behind the last are taken to be of the
        usual length. Where no stretch between R waves is in the video, or none is known, the stretches are laid in
        the middle of the video, at distances of whole beats.

        beats: in a stretch. reach: share of a stretch that has to be in the video. N is 0 if none does.
        """
        if math.isnan(self.frames):
            return np.zeros((0, 2))
        found = self._between_r_waves(beats, num_frames, reach) if self.r_waves else np.zeros((0, 2))
        return found if len(found) else self._in_the_middle(beats, num_frames, reach)

    def _between_r_waves(self, beats: int, num_frames: int, reach: float) -> Floats:
        first, last = self.r_waves[0], self.r_waves[-1]
        before = first - self.frames * np.arange(math.floor(first / self.frames + 1), 0, -1)
        behind = last + self.frames * np.arange(1, max(math.ceil((num_frames - last) / self.frames), 0) + beats + 1)
        marks = np.concatenate([before, self.r_waves, behind])
        starts, lengths, each = marks[:-beats], marks[beats:] - marks[:-beats], np.diff(marks)
        is_usual = (each >= _SHORTEST * self.frames) & (each <= _LONGEST * self.frames)
        usual = np.lib.stride_tricks.sliding_window_view(is_usual, beats).all(axis=1)
        inside = (starts >= -0.5) & (starts + reach * lengths <= num_frames - 0.5)
        chosen = np.flatnonzero(usual & inside)
        kept: list[int] = []
        for place in chosen.tolist():
            if not kept or place >= kept[-1] + beats:
                kept.append(place)
        return np.column_stack([np.maximum(starts[kept], 0), lengths[kept]])

    def _in_the_middle(self, beats: int, num_frames: int, reach: float) -> Floats:
        length = beats * self.frames
        room = num_frames - 1 - reach * length
        if room < -0.5:
            return np.zeros((0, 2))
        count = math.floor(max(room, 0) / length) + 1
        starts = max(room - (count - 1) * length, 0) / 2 + length * np.arange(count)
        return np.column_stack([starts, np.full(count, length)])
