"""Film a patient."""

from __future__ import annotations

import math
from typing import get_args

import cv2
import numpy as np

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Frames
from panecho_embed.phantom.cycle import moments
from panecho_embed.phantom.film import Acquisition
from panecho_embed.phantom.patients import PhantomPatient, View
from panecho_embed.phantom.screen import Screen


def render(
    patient: PhantomPatient,
    view: View = "A4C",
    num_frames: int = 64,
    fps: float | None = None,
    size: int | tuple[int, int] = 112,
    *,
    take: int = 0,
    study: int = 1,
    overlay: bool = False,
) -> Frames:
    """Film a patient: (num_frames, H, W, 3) uint8 RGB.

    fps: frames per second, None for the patient's own. size: side of a square, or (height, width), in pixels.
    take: another number films the same view anew: other speckle and noise, another moment of the start, a hand that has
    slipped a little. study: another number is another day: the machine set anew, the probe's place found anew; the body
    and the heart stay. overlay: with what a scanner burns in: text, depth ticks, electrocardiogram, a tint. The region
    is the fan's rectangle, cm per pixel.
    """
    fps = patient.frame_rate_hz if fps is None else fps
    height, width = (size, size) if isinstance(size, int) else size
    if view not in get_args(View):
        raise ArgumentError(f"view is {view!r}; allowed are {', '.join(get_args(View))}")
    check_format(num_frames, fps, (height, width))
    film = Acquisition(patient, view, take, study)
    screen = Screen(film.fan, (height, width), overlay)
    seconds = np.arange(num_frames) / fps
    beats = film.start + seconds * patient.heart_rate_bpm / 60
    sway = np.sin(2 * math.pi * film.breath[0] * seconds + film.breath[1])
    tint = film.tint if overlay else np.ones(3)
    colours = np.clip(np.arange(256)[:, None, None] * tint, 0, 255).astype(np.uint8)
    around, marks = screen.annotate(patient, fps, beats) if overlay else (None, [])
    pixels = np.empty((num_frames, height, width, 3), np.uint8)
    shown = None
    for i, moment in enumerate(moments(patient, beats % 1.0, film.kick)):
        grey = (film.grey(moment, float(sway[i])) - film.reject) * film.contrast
        # Persistence: scanners average over a few frames.
        shown = grey if shown is None else 0.7 * grey + 0.3 * shown
        pixels[i] = screen.show(shown, colours)
        if around is not None:
            np.maximum(pixels[i], around, out=pixels[i])
            cv2.circle(pixels[i], marks[i], 3, (255, 240, 120), -1, cv2.LINE_AA)
    return Frames(pixels, fps, "phantom", screen.region())


def check_format(num_frames: int, fps: float | None, size: tuple[int, int]) -> None:
    """Raise ArgumentError for a format that can't be filmed."""
    if num_frames < 1:
        raise ArgumentError(f"num_frames is {num_frames}; at least 1 is needed (--frames)")
    if fps is not None and not 0 < fps < float("inf"):
        raise ArgumentError(f"fps is {fps}; it must be above 0 and finite (--fps)")
    if min(size) < 32:
        raise ArgumentError(f"size is {size[0]}x{size[1]}; the smallest is 32x32 (--size)")
