"""The heart rate of a loop without an ECG: how long it takes until its frames resemble each other again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from panecho_embed.core.arraytypes import Floats, Floats32, UInt8Array
from panecho_embed.core.records import SELF_SIMILARITY, Recording, Region
from panecho_embed.media.cine import Cine

BELIEVED, BELIEVED_TWICE = 0.65, 0.5
"""Confidence from which on a heart rate is believed, in a loop of one beat and in one that holds two of it or more."""

_SIDE = 28
# Of a loop that is looked at: enough for a dozen beats, and the cost grows with the square.
_MOST_FRAMES = 600
# Beats per minute.
_SLOWEST, _FASTEST = 36.0, 200.0
# That a loop has to hold, a little below the 1.2 from which on it works, as frames are whole.
_LEAST_BEATS = 1.15
_COMPONENTS = 8
_WEIGHT_OF_CHANGE = 2.0
# A longer lag has to be better by more than this.
_AS_GOOD = 0.15


def watched(cine: Cine) -> tuple[Cine, list[Floats32]]:
    """The same cine, and a list that holds a small grey picture of every frame once it was read; see `heart_rate`.

    The pictures are (28, 28), of the 2-D region where the file names one: text and traces around it have no heartbeat.
    """
    pictures: list[Floats32] = []

    def reader() -> Iterator[UInt8Array]:
        pictures.clear()
        for frame in cine.reader():
            if len(pictures) < _MOST_FRAMES:
                pictures.append(small_picture(frame, cine.region))
            yield frame

    return replace(cine, reader=reader), pictures


def small_picture(frame: UInt8Array, region: Region | None = None) -> Floats32:
    """A frame (H, W, 3) as 28 x 28 grey values."""
    if region is not None:
        frame = frame[region.y0 : region.y1, region.x0 : region.x1]
    # Every n-th pixel is as good, and takes a fraction of the time on large frames.
    step = max(min(frame.shape[:2]) // (4 * _SIDE), 1)
    grey = cv2.cvtColor(np.ascontiguousarray(frame[::step, ::step]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)


def with_heart_rate(recording: Recording, pictures: Sequence[Floats32], fps: float) -> Recording:
    """A recording that tells no heart rate, with the one that its small pictures show, if it can be believed."""
    rate, confidence = heart_rate(np.stack(pictures), fps)
    known = not math.isnan(rate)
    return replace(
        recording,
        heart_rate_bpm=rate,
        heart_rate_source=SELF_SIMILARITY if known else "",
        heart_rate_confidence=confidence,
    )


def heart_rate(pictures: Floats32, fps: float) -> tuple[float, float]:
    """The heart rate of a loop: the shortest time after which its frames look, and move, as they did before.

    Parameters
    ----------
    pictures : (T, H, W) float32
        Small grey pictures of the frames, in order.
    fps : float
        Frames per second.

    Returns
    -------
    rate : float
        Beats per minute, between 36 and 200; NaN where the loop holds fewer than about 1.2 beats, or where the
        resemblance is too weak to be believed.
    confidence : float
        0 to 1: how much more alike frames one beat apart are than the least alike frames within a beat. A rate is
        believed from 0.65 on; from 0.5 on if the loop holds two beats or more.
    """
    count = len(pictures)
    last = min(math.floor(min(60 * fps / _SLOWEST, count / _LEAST_BEATS)) + 1, count - 2)
    lags = range(max(math.floor(60 * fps / _FASTEST), 2), last + 1)
    states = _states(pictures.reshape(count, -1).astype(np.float64)) if lags else None
    if states is None:
        return math.nan, 0.0
    apart = _differences(states, last + 1)
    minima = [lag for lag in lags if apart[lag] <= apart[lag - 1] and apart[lag] < apart[lag + 1]]
    if not minima:
        return math.nan, 0.0
    # Twice the beat is as good as the beat.
    deepest = min(apart[lag] for lag in minima)
    lag = next(lag for lag in minima if apart[lag] <= deepest + _AS_GOOD)
    confidence = float(np.clip(1 - apart[lag] / apart[1:lag].max(), 0, 1))
    rate = 60 * fps / (lag + _shift(states[:-lag], states[lag:]))
    believed = confidence >= (BELIEVED_TWICE if count >= 2 * lag else BELIEVED) and _SLOWEST <= rate <= _FASTEST
    return (rate if believed else math.nan), confidence


def _states(values: Floats) -> Floats | None:
    """What a heart is like at each frame, (T, 16): principal components of its picture, and how fast they change.

    The change tells the contracting ventricle from the relaxing one. None where nothing changes.
    """
    values = values - values.mean(axis=0)
    variances, axes = np.linalg.eigh(values @ values.T)
    kept = axes[:, -_COMPONENTS:] * np.sqrt(np.maximum(variances[-_COMPONENTS:], 0))
    change = np.gradient(kept, axis=0)
    size, speed = np.sqrt((kept**2).sum()), np.sqrt((change**2).sum())
    if not speed > 1e-6 * len(values):
        return None
    return np.concatenate([kept, _WEIGHT_OF_CHANGE * size / speed * change], axis=1)


def _differences(states: Floats, most: int) -> Floats:
    """Mean squared difference of frames that lie 0, 1, ... `most` frames apart; 1 is that of any two frames."""
    squares = (states**2).sum(axis=1)
    every = squares[:, None] + squares[None, :] - 2 * states @ states.T
    usual = every.mean(axis=1)
    count = len(states)
    return np.array(
        [np.trace(every, lag) / np.sqrt(usual[: count - lag] * usual[lag:]).sum() for lag in range(most + 1)]
    )


def _shift(before: Floats, behind: Floats) -> float:
    """By how many frames a beat is longer than the lag of two runs of states; least squares on their change."""
    change = (np.gradient(before, axis=0) + np.gradient(behind, axis=0)) / 2
    return float(np.clip(((before - behind) * change).sum() / (change**2).sum(), -0.75, 0.75))
