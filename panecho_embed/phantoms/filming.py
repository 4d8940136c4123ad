"""Film a patient: speckle on the polar grid of the beam, the picture, and what a scanner writes around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import cv2
import numpy as np

from panecho_embed.core.arraytypes import Floats, Floats32, UInt8Array
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Frames, Region
from panecho_embed.phantoms.outlines import PROJECTIONS, Moment, moments, psax
from panecho_embed.phantoms.patients import WIDEST, PhantomPatient, View, profile, ramp

_BEAMS, _SAMPLES = 192, 384

_DECIBELS = 60.0

# Natural logarithm of amplitude per grey level of the log-compressed image.
_PER_GREY = _DECIBELS / 255 * math.log(10) / 20

_PSF_LATERAL, _PSF_AXIAL = 1.5, 0.95
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
    take: another number films the same view again: other speckle and noise, another starting moment, a hand that has
    slipped a little. study: another number is another day: machine set again, probe's place found again; the body
    and the heart stay. overlay: with what a scanner burns in: text, depth ticks, electrocardiogram, a tint. The region
    is the fan's rectangle, cm per pixel.
    """
    fps = patient.frame_rate_hz if fps is None else fps
    height, width = (size, size) if isinstance(size, int) else size
    if view not in get_args(View):
        raise ArgumentError(f"view is {view!r}; allowed are {', '.join(get_args(View))}")
    check_format(num_frames, fps, (height, width))
    film = _Acquisition(patient, view, take, study)
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

    def __init__(self, fan: _Fan, size: tuple[int, int], overlay: bool) -> None:
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


@dataclass(frozen=True, slots=True)
class _Fan:
    """The polar grid (_SAMPLES, _BEAMS) of an acquisition: `near` to `depth` cm, `half_angle` radians to each side."""

    depth: float
    half_angle: float
    near: float = 0.35

    @property
    def radius(self) -> Floats:
        """(_SAMPLES, 1), cm."""
        return np.linspace(self.near, self.depth, _SAMPLES)[:, None]

    @property
    def angle(self) -> Floats:
        """(1, _BEAMS), radians, 0 = straight down."""
        return np.linspace(-self.half_angle, self.half_angle, _BEAMS)[None, :]

    def to_grid(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Fractional column and row of points in cm, x to the right and y down from the transducer."""
        column = (np.arctan2(x, y) + self.half_angle) * ((_BEAMS - 1) / (2 * self.half_angle))
        return column, (np.hypot(x, y) - self.near) * ((_SAMPLES - 1) / (self.depth - self.near))


def _smooth_noise(chance: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float]) -> Floats32:
    """Unit-variance noise, correlated over `sigma` (columns, rows)."""
    noise = chance.standard_normal(shape, dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1], borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth / np.std(smooth), dtype=np.float32)


class _Chance:
    """What varies, and with what: a patient's studies share the body, a study's loops the machine, takes the window.

    body: build and heart, of a patient. heart: the same in one view. machine: how the scanner is set, of a study.
    window: where the probe is held for a view, of a study. take: of one loop: speckle, noise, the hand's small slips.
    """

    def __init__(self, patient: PhantomPatient, view: View, take: int, study: int) -> None:
        def stream(*what: int) -> np.random.Generator:
            return np.random.default_rng([patient.seed, patient.number, *what])

        plane = get_args(View).index(view)
        self.body, self.heart = stream(1), stream(2, plane)
        self.machine, self.window = stream(3, study), stream(4, study, plane)
        self.take = stream(5, study, plane, take)


class _Acquisition:
    """One view of one patient, as filmed: everything that stays the same from frame to frame."""

    def __init__(self, patient: PhantomPatient, view: View, take: int, study: int = 1) -> None:
        chance = _Chance(patient, view, take, study)
        body, machine, window, slip = chance.body, chance.machine, chance.window, chance.take
        projection = PROJECTIONS[view]
        scale = patient.lv_length_cm / 8.7
        self.fan = _Fan(projection.depth * scale * window.uniform(0.97, 1.08), math.radians(machine.uniform(36, 42)))
        self.shapes, self.mirrored = projection.shapes, projection.mirrored
        held = window.normal(0, (0.24, 0.14)) + slip.normal(0, (0.08, 0.05))
        self.origin = (np.array(projection.origin) + held) * scale
        self.axis = math.radians(projection.axis + window.normal(0, 3.3) + slip.normal(0, 1.2))
        self.start = slip.uniform()
        self.kick = body.uniform(0.15, 0.4)
        self.sway = slip.uniform(0.04, 0.14, 2) * scale
        self.breath = slip.uniform(0.2, 0.3), slip.uniform(0, 2 * math.pi)
        self.reject, self.contrast = machine.uniform(28, 50), machine.uniform(1.2, 1.5)
        self.tint = np.array([1.0, 1.0, 1.0]) + machine.uniform(-0.06, 0.06) * np.array([1, 0.1, -1])
        self._scatterers(chance, scale)
        self._gains(chance)
        self._motion(*moments(patient, np.array([0.0, 0.34 * math.sqrt(patient.heart_rate_bpm / 60)]), self.kick))
        self.chance = slip

    def _scatterers(self, chance: _Chance, scale: float) -> None:
        """Tissue, moving: real and imaginary part, grain in grey levels; raggedness of borders; clutter and noise."""
        shape = (_SAMPLES, _BEAMS)
        heart, take = chance.heart, chance.take
        # Every take cuts another slice, so speckle and fine structure are new; what is coarse is the organ's.
        pairs = [_smooth_noise(take, shape, (0.6, 0.6)) for _ in range(4)]
        grain = _smooth_noise(take, shape, (3.0, 4.0)) + 0.8 * _smooth_noise(heart, shape, (9.0, 12.0))
        self.tissue = np.dstack([pairs[0], pairs[1], grain * 12])
        sizes = ((0.13, (26.0, 34.0), heart), (0.09, (10.0, 14.0), heart), (0.045, (3.0, 4.0), take))
        wobble = [scale * sum(cm * _smooth_noise(whose, shape, sigma) for cm, sigma, whose in sizes) for _ in range(2)]
        per_cm = (_SAMPLES - 1) / (self.fan.depth - self.fan.near)
        lateral = (_BEAMS - 1) / (2 * self.fan.half_angle) / np.maximum(self.fan.radius, 1)
        self.ragged = np.asarray(np.dstack([wobble[0] * lateral, wobble[1] * per_cm]), dtype=np.float32)
        self.noise = take.standard_normal((2 * _SAMPLES, 2 * _BEAMS, 2), dtype=np.float32)
        self.clutter = np.dstack(pairs[2:])
        patches = 20 * _smooth_noise(heart, shape, (24.0, 18.0)) + 9 * _smooth_noise(take, shape, (9.0, 4.0))
        self.background = np.clip(46 + patches, 5, 130).astype(np.uint8)

    def _gains(self, chance: _Chance) -> None:
        """Grey levels added everywhere (attenuation, drop-outs), and the amplitudes of clutter and noise."""
        depth = (self.fan.radius - self.fan.near) / (self.fan.depth - self.fan.near)
        across = self.fan.angle / self.fan.half_angle
        body, window, take = chance.body, chance.window, chance.take
        beams = _smooth_noise(window, (1, _BEAMS), (11.0, 1.0)) * 9 + _smooth_noise(take, (1, _BEAMS), (2.5, 1.0)) * 3
        gain = beams - 26 * depth**1.5 + 10 * np.exp(-((depth - 0.55) ** 2) / 0.06)
        gain = gain - 46 * ramp(np.abs(across), window.uniform(0.7, 0.85), 1.08)
        for side in (-1, 1):
            if window.uniform() < 0.3:
                edge = side * window.uniform(0.72, 0.95)
                gain = gain - 60 * ramp(side * (across - edge), -0.12, 0.12) * ramp(depth, 0.04, 0.2)
        self.gain = np.asarray(gain, dtype=np.float32)
        cm = self.fan.radius * (16 / self.fan.depth)
        haze = body.uniform(70, 100) * np.exp(-((cm / 3) ** 1.5)) + 60 * np.exp(-(((cm - 0.55) / 0.35) ** 2))
        lines = cm + 0.05 * _smooth_noise(window, (1, _BEAMS), (30.0, 1.0))
        layers = sum(
            h * np.exp(-(((lines - d) / 0.11) ** 2))
            for d, h in zip((0.8, 1.2, 1.6), body.uniform(30, 75, 3), strict=True)
        )
        clutter = 22 + haze + layers + 0.4 * beams + 15 * _smooth_noise(take, (_SAMPLES, _BEAMS), (26.0, 10.0))
        self.clutter = np.asarray(self.clutter * np.exp((clutter - 255) * _PER_GREY)[..., None], dtype=np.float32)
        floor = 14 + 24 * depth**2 + 0 * across
        self.floor = np.asarray(np.exp((floor - 255) * _PER_GREY)[..., None], dtype=np.float32)

    def place(self, points: Floats) -> tuple[Any, Any]:
        """Heart coordinates (..., 2) to cm in the fan."""
        w = -points[..., 0] if self.mirrored else points[..., 0]
        z, cos, sin = points[..., 1], math.cos(self.axis), math.sin(self.axis)
        return self.origin[0] + w * cos + z * sin, self.origin[1] + z * cos - w * sin

    def _motion(self, relaxed: Moment, tight: Moment) -> None:
        """Where each sample's tissue comes from at full contraction, in grid steps: (rows, columns) twice."""
        x, y = self.fan.radius * np.sin(self.fan.angle), self.fan.radius * np.cos(self.fan.angle)
        cos, sin = math.cos(self.axis), math.sin(self.axis)
        dx, dy = x - self.origin[0], y - self.origin[1]
        w, z = dx * cos - dy * sin, dx * sin + dy * cos
        round_view = self.shapes is psax
        u = np.full_like(z, WIDEST) if round_view else (z - relaxed.tip) / relaxed.length0
        off = np.hypot(w, z) if round_view else np.abs(w)
        inner = np.maximum(profile(u) * (relaxed.radius0 + tight.radius) / 2, 0.5)
        near = np.where(off < inner, off / inner, np.exp(-np.maximum(off - inner, 0) / (1.3 * relaxed.septum)))
        inward = (tight.radius - relaxed.radius) * profile(u) * near * (1 - ramp(u, 1.0, 1.3))
        unit = np.stack([w, z if round_view else np.zeros_like(z)]) / np.maximum(off, 0.05)
        up = 0 if round_view else (tight.length - relaxed.length) * np.clip(u, 0, 1) * (1 - ramp(u, 1.0, 1.5))
        up = up * np.exp(-np.maximum(off - 1.8 * inner - relaxed.septum, 0) / 3)
        shift_w, shift_z = inward * unit[0], inward * unit[1] + up
        moved = x + shift_w * cos + shift_z * sin, y + shift_z * cos - shift_w * sin
        here, there = self.fan.to_grid(x, y), self.fan.to_grid(*moved)
        self.here = [np.asarray(h, dtype=np.float32) for h in here]
        self.flow = [np.asarray(h - t, dtype=np.float32) for h, t in zip(here, there, strict=True)]
        swayed = self.fan.to_grid(x + self.sway[0], y + self.sway[1])
        self.drift = [np.asarray(h - t, dtype=np.float32) for h, t in zip(here, swayed, strict=True)]

    def grey(self, moment: Moment, sway: float) -> Floats32:
        """One frame on the polar grid, 0-255. sway: -1 to 1, how far breathing has moved the heart."""
        level = self.background.copy()
        for points, value in self.shapes(moment):
            x, y = self.place(points)
            x, y = x + self.sway[0] * sway, y + self.sway[1] * sway
            grid = np.stack(self.fan.to_grid(x, np.maximum(y, 0.05)), axis=1)
            cv2.fillPoly(level, [np.round(grid * 16).astype(np.int32)], value, cv2.LINE_AA, 4)
        maps = [h + moment.contraction * f + sway * d for h, f, d in zip(self.here, self.flow, self.drift, strict=True)]
        ragged = cv2.remap(self.ragged, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        soft = cv2.GaussianBlur(level.astype(np.float32), (0, 0), sigmaX=0.9, sigmaY=1.1)
        soft = cv2.remap(
            soft,
            self.here[0] + ragged[..., 0],
            self.here[1] + ragged[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        # Interfaces that face the beam reflect more.
        across, along = (np.abs(cv2.Sobel(soft, cv2.CV_32F, d, 1 - d, ksize=3, scale=0.25)) for d in (1, 0))
        soft += np.minimum(1.5 * along, 64) - np.minimum(1.1 * across, 44)
        tissue = cv2.remap(self.tissue, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        amplitude = np.exp((soft + tissue[..., 2] + self.gain - 255) * np.float32(_PER_GREY))
        row, column = self.chance.integers(_SAMPLES), self.chance.integers(_BEAMS)
        noise = self.noise[row : row + _SAMPLES, column : column + _BEAMS]
        echo = tissue[..., :2] * amplitude[..., None] + self.clutter + noise * self.floor
        echo = cv2.GaussianBlur(echo, (0, 0), sigmaX=_PSF_LATERAL, sigmaY=_PSF_AXIAL, borderType=cv2.BORDER_REFLECT)
        real, imaginary = cv2.split(echo)
        # The blur takes away that share of the power of white noise.
        power = (real * real + imaginary * imaginary) * np.float32(4 * math.pi * _PSF_LATERAL * _PSF_AXIAL) + 1e-12
        return np.asarray(255 + np.log(power) / np.float32(2 * _PER_GREY), dtype=np.float32)
