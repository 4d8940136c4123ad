"""Image formation on the polar grid of the beam: scatterers, gain, speckle, log compression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import cv2
import numpy as np

from panecho_embed.core.arraytypes import Floats, Floats32
from panecho_embed.phantom.outlines import PROJECTIONS, Moment, moments, psax
from panecho_embed.phantom.patients import WIDEST, PhantomPatient, View, profile, ramp

_BEAMS, _SAMPLES = 192, 384

_DECIBELS = 60.0

# Natural logarithm of amplitude per grey level of the log-compressed image.
_PER_GREY = _DECIBELS / 255 * math.log(10) / 20

_PSF_LATERAL, _PSF_AXIAL = 1.5, 0.95


@dataclass(frozen=True, slots=True)
class Fan:
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


class Acquisition:
    """One view of one patient, as filmed: everything that stays the same from frame to frame."""

    def __init__(self, patient: PhantomPatient, view: View, take: int, study: int = 1) -> None:
        chance = _Chance(patient, view, take, study)
        body, machine, window, slip = chance.body, chance.machine, chance.window, chance.take
        projection = PROJECTIONS[view]
        scale = patient.lv_length_cm / 8.7
        self.fan = Fan(projection.depth * scale * window.uniform(0.97, 1.08), math.radians(machine.uniform(36, 42)))
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
