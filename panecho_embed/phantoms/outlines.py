"""The heart at each moment of its cycle, and what a view cuts through: outlines and how bright each is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from panecho_embed.core.arraytypes import Floats
from panecho_embed.phantoms.patients import AT_BASE, PROFILE, PhantomPatient, Shape, U, profile, ramp, walls

_STEPS = np.arange(8) / 8

_CATMULL_ROM = np.stack(
    [
        -0.5 * _STEPS + _STEPS**2 - 0.5 * _STEPS**3,
        1 - 2.5 * _STEPS**2 + 1.5 * _STEPS**3,
        0.5 * _STEPS + 2 * _STEPS**2 - 1.5 * _STEPS**3,
        -0.5 * _STEPS**2 + 0.5 * _STEPS**3,
    ],
    axis=1,
)

_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 48)), np.sin(np.linspace(0, 2 * np.pi, 48))], axis=1)


def _closed(points: Sequence[tuple[float, float]]) -> Floats:
    p = np.array(points)
    around = np.stack([np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)], axis=1)
    return np.asarray(_CATMULL_ROM @ around).reshape(-1, 2)


def _curve(points: Sequence[tuple[float, float]]) -> Floats:
    p = np.array(points)
    p = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    around = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], axis=1)
    return np.concatenate([np.asarray(_CATMULL_ROM @ around).reshape(-1, 2), p[-2:-1]])


def _ribbon(line: Floats, width: float) -> Floats:
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(along[:, 0], along[:, 1])[:, None]
    return np.concatenate([line + normal * width / 2, (line - normal * width / 2)[::-1]])


def _ellipse(w: float, z: float, half_w: float, half_z: float) -> Floats:
    return _CIRCLE * (half_w, half_z) + (w, z)


def _leaflet(
    hinge: tuple[float, float], shut: tuple[float, float], wide: tuple[float, float], opening: float
) -> Floats:
    """A valve leaflet from its hinge to a tip between `shut` and `wide`, bowed a little."""
    h, tip = np.array(hinge), np.array(shut) + opening * (np.array(wide) - np.array(shut))
    middle = (h + tip) / 2 + (0.12 - 0.2 * opening) * np.array([tip[1] - h[1], h[0] - tip[0]])
    return _ribbon(_curve([tuple(h), tuple(middle), tuple(tip)]), 0.15)


def _cavity(m: Moment) -> Floats:
    half, z = PROFILE * m.radius, m.tip + U * m.length
    return np.concatenate([np.stack([-half, z], axis=1)[::-1], np.stack([half, z], axis=1)])


def _epicardium(m: Moment, minus: float, plus: float) -> Floats:
    z = U * m.base
    sides = [np.stack([sign * PROFILE * (m.radius + wall), z], axis=1) for sign, wall in ((-1, minus), (1, plus))]
    return np.concatenate([sides[0][::-1], sides[1]])


def _side(m: Moment, wall: float, start: float, stop: float) -> Floats:
    """The epicardial border of one side, from share `start` to share `stop` of the way to the base."""
    u = np.linspace(start, stop, 24)
    return np.stack([math.copysign(1, wall) * profile(u) * (m.radius + abs(wall)), u * m.base], axis=1)


_BLOOD, _ATRIUM, _MUSCLE, _WALL, _VALVE, _FIBROUS, _PERICARDIUM = 8, 14, 112, 108, 150, 158, 172


def _mitral(m: Moment) -> list[Shape]:
    r, b, s = AT_BASE * m.radius, m.base, m.scale
    return [
        (_ellipse(-r, b, 0.24, 0.26), _FIBROUS),
        (_ellipse(r, b, 0.24, 0.26), _FIBROUS),
        (_leaflet((-r, b), (0.12 * r, b - 0.4 * s), (-0.5 * r, b - 1.9 * s), m.mitral), _VALVE),
        (_leaflet((r, b), (0.18 * r, b - 0.35 * s), (0.62 * r, b - 1.3 * s), m.mitral)[::-1], _VALVE),
    ]


def _atrium(m: Moment, w: float, half: float, floor: float) -> Floats:
    """An atrium below the annulus: its far wall stays, its near wall follows the annulus."""
    top, bottom = m.base - 0.1 * m.scale, m.base0 + floor
    tall = bottom - top
    right = [(0.66, 0.0), (0.93, 0.3), (0.97, 0.62), (0.72, 0.92)]
    outline = [*right, (0.05, 1.0), *((-x, z) for x, z in reversed(right))]
    return _closed([(w + half * x, top + tall * z) for x, z in outline])


def _thickened(outline: Floats) -> Floats:
    return np.asarray(outline + (outline - outline.mean(axis=0)) * 0.135)


def _a4c(m: Moment) -> list[Shape]:
    s, b = m.scale, m.base
    squeeze = 1 - 1.75 * (1 - m.length / m.length0)
    left = {u: -float(profile(u)) * (m.radius + m.septum) for u in (0.26, 0.42, 0.55, 0.7, 0.85, 1.0)}
    hinge = (left[1.0] - 3.1 * s * (0.5 + 0.5 * squeeze), b - 0.5 * s)
    free = [
        hinge,
        (left[0.85] - 3.2 * s * squeeze, 0.8 * b),
        (left[0.55] - 2.3 * s * squeeze, 0.58 * b),
        (left[0.42] - 1.3 * s * squeeze, 0.42 * b),
        (left[0.26] - 0.4 * s, 0.3 * b),
    ]
    septal = [(left[u] - 0.03, u * b) for u in (0.42, 0.55, 0.7, 0.85, 1.0)]
    la, ra = _atrium(m, 0.1 * s, 2.05 * s, 4.1 * s), _atrium(m, -4.05 * s, 1.85 * s, 3.6 * s)
    tip = (0.5 * (hinge[0] + left[1.0]), b - 0.55 * s)
    lateral = _side(m, m.posterior + 0.12, 0.2, 1.0)
    return [
        (_thickened(la), _WALL),
        (_thickened(ra), _WALL),
        (_ribbon(_curve(free), 0.75), _WALL),
        (_epicardium(m, m.septum, m.posterior), _MUSCLE),
        (_closed(free + septal), _BLOOD),
        (ra, _ATRIUM),
        (la, _ATRIUM),
        (_cavity(m), _BLOOD),
        (_ellipse(0.95 * float(profile(0.5)) * m.radius, m.tip + 0.5 * m.length, 0.26 * s, 0.7 * s), 88),
        (_ribbon(_curve([(left[0.55], 0.5 * b), (left[0.55] - 2.0 * s * squeeze, 0.62 * b)]), 0.22 * s), 104),
        (_ribbon(lateral, 0.26), _PERICARDIUM),
        (_ribbon(la[22:44] + np.array((0.0, 0.2)), 0.26), _PERICARDIUM),
        (_ellipse(*hinge, 0.2, 0.22), _FIBROUS),
        (_leaflet((left[1.0], b), (tip[0] + 0.1, tip[1]), (left[1.0] - 0.5, b - 1.6 * s), m.mitral)[::-1], _VALVE - 15),
        (_leaflet(hinge, tip, (hinge[0] + 0.7, b - 1.9 * s), m.mitral), _VALVE - 15),
        *_mitral(m),
    ]


def _a2c(m: Moment) -> list[Shape]:
    s = m.scale
    la = _atrium(m, 0.0, 2.35 * s, 4.2 * s)
    r = AT_BASE * m.radius
    return [
        (_thickened(la), _WALL),
        (_epicardium(m, m.posterior, m.septum), _MUSCLE),
        (la, _ATRIUM),
        (_cavity(m), _BLOOD),
        (_ellipse(-0.93 * float(profile(0.55)) * m.radius, m.tip + 0.52 * m.length, 0.3 * s, 0.85 * s), 90),
        (_ellipse(-r - m.posterior - 0.25, m.base + 0.35, 0.42 * s, 0.36 * s), _ATRIUM),
        (_ribbon(_side(m, -m.posterior - 0.12, 0.25, 1.0), 0.28), _PERICARDIUM - 12),
        (_ribbon(_side(m, m.septum + 0.12, 0.3, 1.0), 0.24), _PERICARDIUM - 24),
        (_ribbon(la[22:52] + np.array((0.0, 0.2)), 0.28), _PERICARDIUM),
        *_mitral(m),
    ]


def _plax(m: Moment) -> list[Shape]:
    """w runs away from the transducer here, z from the apex at the left to the base at the right."""
    s, b, r = m.scale, m.base, m.radius
    top = -r - m.septum
    roof = [
        (top - 1.1 * s, 0.2 * b),
        (top - 2.0 * s, 0.45 * b),
        (top - 2.3 * s, 0.75 * b),
        (top - 2.2 * s, b + 0.6 * s),
        (top - 1.8 * s, b + 2.6 * s),
    ]
    floor = [
        (-1.15 * r - 0.6 * s, b + 2.4 * s),
        (-1.0 * r - 0.55 * s, b + 0.3 * s),
        (top - 0.05, 0.82 * b),
        (top - 0.05, 0.6 * b),
        (-float(profile(0.35)) * (r + m.septum) - 0.05, 0.35 * b),
    ]
    half = 1.75 * s * (1 + 0.1 * m.contraction)
    shift = 0.5 * (b - m.base0)
    la = _ellipse(0.16 * r + 0.25 * s + half, m.base0 + 1.75 * s + shift, half, 2.2 * s - shift)
    groove, shut = 0.86 * r, (0.42 * r, b - 0.7 * s)
    descending = (m.posterior + r + 1.75 * s, m.base0 + 0.9 * s)
    return [
        (_ribbon(_curve(roof), 0.7 * s), _WALL),
        (_thickened(la), _WALL),
        (_epicardium(m, m.septum, m.posterior), _MUSCLE),
        (_closed(roof + floor), _BLOOD),
        (la, _ATRIUM),
        (_cavity(m), _BLOOD),
        *_aortic_root(m),
        (_ribbon(_side(m, m.posterior + 0.14, 0.1, 1.0), 0.34), 196),
        (_ribbon(la[2:20] + np.array((0.22, 0.0)), 0.28), _PERICARDIUM),
        (_ellipse(*descending, 1.1 * s, 1.15 * s), 128),
        (_ellipse(*descending, 0.9 * s, 0.95 * s), _ATRIUM),
        (_ellipse(groove, b, 0.3, 0.3), _FIBROUS),
        (_leaflet((0.04 * r, b + 0.2), shut, (-0.45 * r, b - 2.3 * s), m.mitral), _VALVE),
        (_leaflet((groove, b), shut, (0.72 * r, b - 1.3 * s), m.mitral)[::-1], _VALVE),
        (_ribbon(_curve([(0.5 * r, b - 2.1 * s), (0.62 * r, b - 3.4 * s), (0.78 * r, b - 4.3 * s)]), 0.13), 120),
    ]


def _aortic_root(m: Moment) -> list[Shape]:
    s, b, r = m.scale, m.base, m.radius
    front = [(-0.86, 0.0, -0.2), (-1.0, -0.2, 0.9), (-1.0, -0.4, 1.9), (-1.0, -1.3, 4.6)]
    back = [(0.02, 0.0, -0.1), (0.14, 0.0, 0.9), (-0.05, -0.2, 1.9), (-0.05, -1.1, 4.6)]
    walls = [_curve([(x * r + y * s, b + z * s) for x, y, z in side]) for side in (front, back)]
    shut = (-0.45 * r, b + 1.1 * s)
    return [
        (np.concatenate([walls[0], walls[1][::-1]]), _BLOOD),
        *((_ribbon(wall, 0.22), 150) for wall in walls),
        (_leaflet((-0.98 * r, b + 0.5), shut, (-0.98 * r, b + 1.9 * s), m.aortic), 92),
        (_leaflet((0.02 * r, b + 0.5), shut, (-0.02 * r, b + 1.9 * s), m.aortic), 92),
    ]


def psax(m: Moment) -> list[Shape]:
    """Mid-papillary level, around the cavity's centre."""
    r, s = m.radius, m.scale
    outer = r + (m.septum + m.posterior) / 2
    depth = 2.5 * s * (1 - 1.9 * (1 - m.length / m.length0))
    around = np.radians(np.linspace(158, 292, 9))
    inner = [(outer * math.cos(a), outer * math.sin(a)) for a in around]
    swell = np.sin(np.linspace(0, np.pi, 9)) ** 0.7 * depth
    free = [((outer + d) * math.cos(a), (outer + d) * math.sin(a)) for a, d in zip(around, swell, strict=True)][::-1]
    arc = np.radians(np.linspace(-35, 150, 40))
    sac = np.stack([np.cos(arc), np.sin(arc)], axis=1) * (outer + 0.14)
    papillary = [
        (_ellipse(0.8 * r * math.cos(a), 0.8 * r * math.sin(a), 0.2 * r + across, 0.2 * r + 0.12), 100)
        for a, across in ((0.66, 0.06), (2.5, 0.18))
    ]
    return [
        (_ribbon(_curve(free), 0.75), _WALL),
        (_ellipse(0, 0, outer, outer), _MUSCLE),
        (_closed(free + inner[1:-1]), _BLOOD),
        (_ellipse(0, 0, r, r), _BLOOD),
        *papillary,
        (_ribbon(sac, 0.3), _PERICARDIUM),
    ]


@dataclass(frozen=True, slots=True)
class _Projection:
    """How a view lays the heart into the fan. origin, depth: of an adult's heart, cm; axis: degrees from downwards."""

    shapes: Callable[[Moment], list[Shape]]
    origin: tuple[float, float]
    axis: float
    mirrored: bool
    depth: float


PROJECTIONS: dict[str, _Projection] = {
    "A4C": _Projection(_a4c, (0.15, 1.7), 5.5, False, 16.2),
    "A2C": _Projection(_a2c, (-0.2, 1.7), 1.0, False, 16.2),
    "PLAX": _Projection(_plax, (-7.2, 8.2), 97.0, True, 14.6),
    "PSAX": _Projection(psax, (0.6, 7.0), 0.0, False, 13.4),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """The heart at one moment. contraction: 0 at end-diastole, 1 at end-systole. mitral, aortic: 0 shut, 1 wide open.

    length0, radius0: of the cavity at end-diastole. tip: wall thickness at the apex. scale: 1 for an adult's heart.
    """

    length0: float
    radius0: float
    tip: float
    scale: float
    contraction: float
    length: float
    radius: float
    septum: float
    posterior: float
    mitral: float
    aortic: float

    @property
    def base(self) -> float:
        """Depth of the mitral annulus below the epicardial apex."""
        return self.tip + self.length

    @property
    def base0(self) -> float:
        """The same at end-diastole."""
        return self.tip + self.length0


def moments(patient: PhantomPatient, phase: Floats, kick: float) -> list[Moment]:
    """The heart at each phase of the cycle, 0 = R wave; kick: share of the filling that the atrium gives."""
    systole = 0.34 * math.sqrt(patient.heart_rate_bpm / 60)
    early = phase / systole
    late = np.clip((phase - systole) / (1 - systole), 0, 1)
    filling = (1 - kick) * ramp(late, 0.12, 0.45) + kick * ramp(late, 0.72, 0.97)
    contraction = np.where(early < 1, ramp(early, 0.08, 1.0), 1 - filling)
    e_wave = ramp(late, 0.10, 0.2) * (1 - 0.65 * ramp(late, 0.38, 0.55))
    mitral = np.where(early < 1, 0.0, (e_wave + 0.55 * ramp(late, 0.72, 0.82)) * (1 - ramp(late, 0.93, 1.0)))
    aortic = np.where(early < 1, ramp(early, 0.06, 0.2) * (1 - ramp(early, 0.88, 1.0)), 0.0)
    length, diameter, septum, posterior = walls(patient, contraction)
    fixed = (patient.lv_length_cm, patient.lvidd_cm / 2, 0.7 * patient.posterior_wall_cm, patient.lv_length_cm / 8.7)
    moving = np.stack([contraction, length, diameter / 2, septum, posterior, mitral, aortic], axis=1)
    return [Moment(*fixed, *row) for row in moving.tolist()]
