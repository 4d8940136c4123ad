"""Film a patient: from the polar grid to a picture, and what a scanner writes around it."""

from __future__ import annotations

import math
from typing import get_args

import cv2
import numpy as np

from panecho_embed.core.arraytypes import Floats, Floats32, UInt8Array
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Frames, Region
from panecho_embed.phantom.film import Acquisition, Fan
from panecho_embed.phantom.outlines import moments
from panecho_embed.phantom.patients import PhantomPatient, View

_INK = (210, 210, 200)


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
    screen = _Screen(film.fan, (height, width), overlay)
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


class _Screen:
    """Where a fan lies on a picture: scan conversion, the smooth edge, and what a scanner writes around it."""

    def __init__(self, fan: Fan, size: tuple[int, int], overlay: bool) -> None:
        self.height, self.width = size
        self.fan = fan
        # Drawn twice as large and averaged, a small picture looks like a large one made small, as in the public sets.
        self.over = 2 if self.height < 300 else 1
        top, tall, wide = (0.06, 0.78, 0.86) if overlay else (0.03, 0.95, 1.1)
        self.top, self.middle = top * self.height, self.width / 2
        broad = 2 * fan.depth * math.sin(fan.half_angle)
        self.per_cm = min(tall * self.height / fan.depth, wide * self.width / broad)
        x = ((np.arange(self.width * self.over) + 0.5) / self.over - self.middle)[None, :] / self.per_cm
        y = ((np.arange(self.height * self.over) + 0.5) / self.over - self.top)[:, None] / self.per_cm
        self.maps = [np.asarray(m, dtype=np.float32) for m in fan.to_grid(x, y)]
        radius, angle = np.hypot(x, y), np.abs(np.arctan2(x, y))
        inside = np.minimum.reduce([(fan.half_angle - angle) * radius, fan.depth - radius, radius - fan.near])
        self.edge = np.asarray(np.clip(inside * self.per_cm * self.over + 0.5, 0, 1), dtype=np.float32)

    def region(self) -> Region:
        """The fan's rectangle."""
        half = self.fan.depth * math.sin(self.fan.half_angle) * self.per_cm
        return Region(
            x0=max(0, math.floor(self.middle - half)),
            y0=math.floor(self.top),
            x1=min(self.width, math.ceil(self.middle + half)),
            y1=min(self.height, math.ceil(self.top + self.fan.depth * self.per_cm)),
            physical_delta_x=1 / self.per_cm,
            physical_delta_y=1 / self.per_cm,
        )

    def show(self, grey: Floats32, colours: UInt8Array) -> UInt8Array:
        """A polar frame as (H, W, 3) RGB. colours: (256, 1, 3)."""
        picture = cv2.remap(grey, self.maps[0], self.maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        picture = np.clip(picture, 0, 255) * self.edge
        if self.over > 1:
            picture = cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.applyColorMap((picture + 0.5).astype(np.uint8), colours), dtype=np.uint8)

    def annotate(self, patient: PhantomPatient, fps: float, beats: Floats) -> tuple[UInt8Array, list[tuple[int, int]]]:
        """What a scanner burns in, on black; and where on the electrocardiogram each frame stands. beats: of each."""
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        left = [patient.patient_id, "SYNTHETIC", "", f"FR {fps:.0f}Hz", f"{self.fan.depth:.0f}cm", "", "2D", "  68%"]
        for row, text in enumerate(left):
            self._write(canvas, text, 12, 24 + 18 * row)
        right = self.width / self._unit
        self._write(canvas, "01/01/1900", right - 110, 24)
        self._write(canvas, "TIS0.8  MI 1.1", right - 130, 42)
        self._write(canvas, f"{patient.heart_rate_bpm:.0f}bpm", right - 90, 585)
        self._ruler(canvas, right)
        across = np.linspace(0.06, 0.86, 900)
        volts = _electrocardiogram(np.interp(across, np.linspace(0.06, 0.86, len(beats)), beats))
        trace = np.stack([across * self.width, self.height * 0.955 - volts * 38 * self._unit], axis=1)
        cv2.polylines(canvas, [np.round(trace * 16).astype(np.int32)], False, (90, 220, 120), 1, cv2.LINE_AA, 4)
        steps = np.round(np.linspace(0, len(trace) - 1, len(beats))).astype(int)
        return canvas, [(round(x), round(y)) for x, y in trace[steps].tolist()]

    @property
    def _unit(self) -> float:
        """Pixels per pixel of a picture 600 high, for which the positions of the text are written."""
        return self.height / 600

    def _write(self, canvas: UInt8Array, text: str, x: float, y: float) -> None:
        at = (round(x * self._unit), round(y * self._unit))
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42 * self._unit, _INK, 1, cv2.LINE_AA)

    def _ruler(self, canvas: UInt8Array, right: float) -> None:
        """Depth ticks (cm), the bar of greys, and the mark of the probe's side."""
        unit = self._unit
        for cm in range(1, math.floor(self.fan.depth) + 1):
            y, start = round(self.top + cm * self.per_cm), right - (35 if cm % 5 == 0 else 30)
            cv2.line(canvas, (round(start * unit), y), (round((right - 26) * unit), y), _INK, 1)
            if cm % 5 == 0:
                self._write(canvas, str(cm), right - 22, y / unit + 4)
        greys = np.linspace(235, 0, max(1, round(110 * unit))).astype(np.uint8)
        y, x = round(60 * unit), self.width - round(66 * unit)
        canvas[y : y + len(greys), x : x + max(1, round(10 * unit))] = greys[:, None, None]
        mark = (round(self.middle + 24 * unit), round(self.top + 8 * unit))
        cv2.circle(canvas, mark, round(4 * unit), (70, 130, 250), -1, cv2.LINE_AA)


def _electrocardiogram(beats: Floats) -> Floats:
    """Millivolts over time counted in beats, the R wave at whole numbers."""
    phase = (beats + 0.3) % 1.0
    waves = ((0.12, 0.14, 0.025), (-0.1, 0.28, 0.008), (1.0, 0.3, 0.011), (-0.22, 0.325, 0.01), (0.26, 0.58, 0.045))
    return np.asarray(sum(height * np.exp(-(((phase - at) / width) ** 2)) for height, at, width in waves))
