"""Synthetic echocardiogram studies with a known ejection fraction, for demonstrations and tests.

A left ventricle of known volume beats in a sector. Its cavity is a solid of revolution, so the volume curve fixes every
outline; the wall keeps its own volume and so thickens in systole. The image is formed as a scanner forms it: random
scatterers that move with the tissue, weighted by its echogenicity, blurred by the beam on its polar grid, their
envelope log-compressed (fully developed, Rayleigh speckle: Burckhardt, IEEE Trans. Sonics Ultrason. 25(1), 1978) and
scan-converted. Nothing but geometry and motion carries the ejection fraction. Lengths are centimetres, volumes
millilitres.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    JPEGBaseline8Bit,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from panecho_embed.errors import ArgumentError, StoreError
from panecho_embed.records import Frames, Region, UInt8Array

View = Literal["A4C", "A2C", "PLAX", "PSAX"]
Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Shape = tuple[Float, int]

# The ventricle's half width along its axis (0 = apex, 1 = base): an ellipse to its widest point, then a slight taper.
_WIDEST, _AT_BASE = 0.62, 0.78


def _profile(u: Any) -> Float:
    u = np.clip(u, 0.0, 1.0)
    tip = np.sqrt(np.maximum(0.0, 1 - (1 - u / _WIDEST) ** 2))
    return np.asarray(np.where(u < _WIDEST, tip, 1 - (1 - _AT_BASE) * ((u - _WIDEST) / (1 - _WIDEST)) ** 2))


_U = np.sin(np.linspace(0, np.pi / 2, 40)) ** 2
_PROFILE = _profile(_U)
# Volume of the solid of revolution = _BULK x diameter^2 x length.
_BULK = float(np.pi / 4 * np.mean(_profile(np.linspace(0, 1, 4001)) ** 2))


@dataclass(frozen=True, slots=True)
class PhantomPatient:
    """One synthetic patient, the truth that the pictures are drawn from.

    number: counts from 1. ef_percent = 100 (edv_ml - esv_ml) / edv_ml. frame_rate_hz: at which this patient is filmed
    unless told otherwise. lv_length_cm: apex to mitral annulus at end-diastole. septum_cm, posterior_wall_cm:
    wall thickness at end-diastole.
    """

    patient_id: str
    number: int
    seed: int
    ef_percent: float
    edv_ml: float
    esv_ml: float
    heart_rate_bpm: float
    frame_rate_hz: float
    age_years: float
    sex: Literal["F", "M"]
    height_cm: float
    weight_kg: float
    lv_length_cm: float
    septum_cm: float
    posterior_wall_cm: float

    @property
    def lvidd_cm(self) -> float:
        """The ventricle's inner diameter at end-diastole."""
        return float(_walls(self, np.zeros(1))[1][0])

    @property
    def lvids_cm(self) -> float:
        """The ventricle's inner diameter at end-systole."""
        return float(_walls(self, np.ones(1))[1][0])


def make_patients(count: int, seed: int = 0, *, pediatric: bool = False) -> list[PhantomPatient]:
    """Patients 1 to `count`; each depends on `seed` and its own number alone. EF spreads evenly over 15-75 %."""
    if count < 1:
        raise ArgumentError(f"patients is {count}; at least 1 is needed (--patients)")
    return [_make_patient(number, seed, pediatric) for number in range(1, count + 1)]


def _make_patient(number: int, seed: int, pediatric: bool) -> PhantomPatient:
    chance = np.random.default_rng([seed, number])
    # Steps of the golden ratio fill the range evenly however many patients there are.
    health = (number * 0.6180339887498949 + np.random.default_rng(seed).uniform()) % 1.0
    age = chance.uniform(0.5, 18) if pediatric else chance.uniform(22, 88)
    sex: Literal["F", "M"] = "F" if chance.uniform() < 0.5 else "M"
    if pediatric:
        height = 52 + 6.6 * age + chance.normal(0, 4)
        weight = 3.5 + 2.1 * age * (1 + 0.02 * age) + chance.normal(0, 1 + 0.2 * age) ** 2 / 4
    else:
        height = chance.normal(176 if sex == "M" else 163, 7)
        weight = (height / 100) ** 2 * chance.uniform(20, 33)
    surface = math.sqrt(height * weight / 3600)
    edv = surface * (58 + 42 * (1 - health) ** 2) * math.exp(chance.normal(0, 0.17))
    slenderness = np.clip(chance.normal(1.87 - 0.25 * (1 - health), 0.07), 1.45, 2.1)
    wall = (0.62 + 0.2 * surface) * chance.uniform(0.8, 1.25)
    ef = 15 + 60 * health
    return PhantomPatient(
        patient_id=f"PHANTOM-{number:04d}",
        number=number,
        seed=seed,
        ef_percent=ef,
        edv_ml=edv,
        esv_ml=edv * (1 - ef / 100),
        heart_rate_bpm=chance.uniform(80, 130) if pediatric else chance.uniform(52, 98),
        frame_rate_hz=float(chance.choice([30, 40, 50])),
        age_years=round(age, 1),
        sex=sex,
        height_cm=round(height, 1),
        weight_kg=round(weight, 1),
        lv_length_cm=float(slenderness * (edv / (_BULK * slenderness)) ** (1 / 3)),
        septum_cm=wall * chance.uniform(0.95, 1.15),
        posterior_wall_cm=wall,
    )


@dataclass(frozen=True, slots=True)
class _Moment:
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


def _ramp(x: Any, start: float, stop: float) -> Float:
    t = np.clip((np.asarray(x, dtype=np.float64) - start) / (stop - start), 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t))


def _walls(patient: PhantomPatient, contraction: Float) -> tuple[Float, Float, Float, Float]:
    """Length, diameter, thickness of septum and posterior wall: the volume is exact, the wall's own volume constant."""
    volume = patient.edv_ml - (patient.edv_ml - patient.esv_ml) * contraction
    length = patient.lv_length_cm * (1 - 0.27 * patient.ef_percent / 100 * contraction)
    diameter = np.sqrt(volume / (_BULK * length))
    thickness = (patient.septum_cm + patient.posterior_wall_cm) / 2
    diameter0 = math.sqrt(patient.edv_ml / (_BULK * patient.lv_length_cm))
    muscle = _BULK * (diameter0 + 2 * thickness) ** 2 * (patient.lv_length_cm + thickness) - patient.edv_ml
    now = np.full_like(volume, thickness)
    for _ in range(8):
        width, height = diameter + 2 * now, length + now
        excess = _BULK * width**2 * height - volume - muscle
        now = now - excess / (_BULK * (4 * width * height + width**2))
    return length, diameter, patient.septum_cm * now / thickness, patient.posterior_wall_cm * now / thickness


def _moments(patient: PhantomPatient, phase: Float, kick: float) -> list[_Moment]:
    """The heart at each phase of the cycle, 0 = R wave; kick: share of the filling that the atrium gives."""
    systole = 0.34 * math.sqrt(patient.heart_rate_bpm / 60)
    early = phase / systole
    late = np.clip((phase - systole) / (1 - systole), 0, 1)
    filling = (1 - kick) * _ramp(late, 0.12, 0.45) + kick * _ramp(late, 0.72, 0.97)
    contraction = np.where(early < 1, _ramp(early, 0.08, 1.0), 1 - filling)
    e_wave = _ramp(late, 0.10, 0.2) * (1 - 0.65 * _ramp(late, 0.38, 0.55))
    mitral = np.where(early < 1, 0.0, (e_wave + 0.55 * _ramp(late, 0.72, 0.82)) * (1 - _ramp(late, 0.93, 1.0)))
    aortic = np.where(early < 1, _ramp(early, 0.06, 0.2) * (1 - _ramp(early, 0.88, 1.0)), 0.0)
    length, diameter, septum, posterior = _walls(patient, contraction)
    fixed = (patient.lv_length_cm, patient.lvidd_cm / 2, 0.7 * patient.posterior_wall_cm, patient.lv_length_cm / 8.7)
    moving = np.stack([contraction, length, diameter / 2, septum, posterior, mitral, aortic], axis=1)
    return [_Moment(*fixed, *row) for row in moving.tolist()]


# Outlines are in the heart's own coordinates: w across the long axis, z along it from the epicardial apex, in cm.

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


def _closed(points: Sequence[tuple[float, float]]) -> Float:
    p = np.array(points)
    around = np.stack([np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)], axis=1)
    return np.asarray(_CATMULL_ROM @ around).reshape(-1, 2)


def _curve(points: Sequence[tuple[float, float]]) -> Float:
    p = np.array(points)
    p = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    around = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], axis=1)
    return np.concatenate([np.asarray(_CATMULL_ROM @ around).reshape(-1, 2), p[-2:-1]])


def _ribbon(line: Float, width: float) -> Float:
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(along[:, 0], along[:, 1])[:, None]
    return np.concatenate([line + normal * width / 2, (line - normal * width / 2)[::-1]])


def _ellipse(w: float, z: float, half_w: float, half_z: float) -> Float:
    return _CIRCLE * (half_w, half_z) + (w, z)


def _leaflet(hinge: tuple[float, float], shut: tuple[float, float], wide: tuple[float, float], opening: float) -> Float:
    """A valve leaflet from its hinge to a tip between `shut` and `wide`, bowed a little."""
    h, tip = np.array(hinge), np.array(shut) + opening * (np.array(wide) - np.array(shut))
    middle = (h + tip) / 2 + (0.12 - 0.2 * opening) * np.array([tip[1] - h[1], h[0] - tip[0]])
    return _ribbon(_curve([tuple(h), tuple(middle), tuple(tip)]), 0.15)


def _cavity(m: _Moment) -> Float:
    half, z = _PROFILE * m.radius, m.tip + _U * m.length
    return np.concatenate([np.stack([-half, z], axis=1)[::-1], np.stack([half, z], axis=1)])


def _epicardium(m: _Moment, minus: float, plus: float) -> Float:
    z = _U * m.base
    sides = [np.stack([sign * _PROFILE * (m.radius + wall), z], axis=1) for sign, wall in ((-1, minus), (1, plus))]
    return np.concatenate([sides[0][::-1], sides[1]])


def _side(m: _Moment, wall: float, start: float, stop: float) -> Float:
    """The epicardial border of one side, from share `start` to share `stop` of the way to the base."""
    u = np.linspace(start, stop, 24)
    return np.stack([math.copysign(1, wall) * _profile(u) * (m.radius + abs(wall)), u * m.base], axis=1)


_BLOOD, _ATRIUM, _MUSCLE, _WALL, _VALVE, _FIBROUS, _PERICARDIUM = 8, 14, 112, 108, 150, 158, 172


def _mitral(m: _Moment) -> list[Shape]:
    r, b, s = _AT_BASE * m.radius, m.base, m.scale
    return [
        (_ellipse(-r, b, 0.24, 0.26), _FIBROUS),
        (_ellipse(r, b, 0.24, 0.26), _FIBROUS),
        (_leaflet((-r, b), (0.12 * r, b - 0.4 * s), (-0.5 * r, b - 1.9 * s), m.mitral), _VALVE),
        (_leaflet((r, b), (0.18 * r, b - 0.35 * s), (0.62 * r, b - 1.3 * s), m.mitral)[::-1], _VALVE),
    ]


def _atrium(m: _Moment, w: float, half: float, floor: float) -> Float:
    """An atrium below the annulus: its far wall stays, its near wall follows the annulus."""
    top, bottom = m.base - 0.1 * m.scale, m.base0 + floor
    tall = bottom - top
    right = [(0.66, 0.0), (0.93, 0.3), (0.97, 0.62), (0.72, 0.92)]
    outline = [*right, (0.05, 1.0), *((-x, z) for x, z in reversed(right))]
    return _closed([(w + half * x, top + tall * z) for x, z in outline])


def _a4c(m: _Moment) -> list[Shape]:
    s, b = m.scale, m.base
    squeeze = 1 - 1.75 * (1 - m.length / m.length0)
    left = {u: -float(_profile(u)) * (m.radius + m.septum) for u in (0.26, 0.42, 0.55, 0.7, 0.85, 1.0)}
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
        (la * 1.0 + (la - la.mean(0)) * 0.13, _WALL),
        (ra + (ra - ra.mean(0)) * 0.14, _WALL),
        (_ribbon(_curve(free), 0.75), _WALL),
        (_epicardium(m, m.septum, m.posterior), _MUSCLE),
        (_closed(free + septal), _BLOOD),
        (ra, _ATRIUM),
        (la, _ATRIUM),
        (_cavity(m), _BLOOD),
        (_ellipse(0.95 * float(_profile(0.5)) * m.radius, m.tip + 0.5 * m.length, 0.26 * s, 0.7 * s), 88),
        (_ribbon(_curve([(left[0.55], 0.5 * b), (left[0.55] - 2.0 * s * squeeze, 0.62 * b)]), 0.22 * s), 104),
        (_ribbon(lateral, 0.26), _PERICARDIUM),
        (_ribbon(la[22:44] + np.array((0.0, 0.2)), 0.26), _PERICARDIUM),
        (_ellipse(*hinge, 0.2, 0.22), _FIBROUS),
        (_leaflet((left[1.0], b), (tip[0] + 0.1, tip[1]), (left[1.0] - 0.5, b - 1.6 * s), m.mitral)[::-1], _VALVE - 15),
        (_leaflet(hinge, tip, (hinge[0] + 0.7, b - 1.9 * s), m.mitral), _VALVE - 15),
        *_mitral(m),
    ]


def _a2c(m: _Moment) -> list[Shape]:
    s = m.scale
    la = _atrium(m, 0.0, 2.35 * s, 4.2 * s)
    r = _AT_BASE * m.radius
    return [
        (la + (la - la.mean(0)) * 0.13, _WALL),
        (_epicardium(m, m.posterior, m.septum), _MUSCLE),
        (la, _ATRIUM),
        (_cavity(m), _BLOOD),
        (_ellipse(-0.93 * float(_profile(0.55)) * m.radius, m.tip + 0.52 * m.length, 0.3 * s, 0.85 * s), 90),
        (_ellipse(-r - m.posterior - 0.25, m.base + 0.35, 0.42 * s, 0.36 * s), _ATRIUM),
        (_ribbon(_side(m, -m.posterior - 0.12, 0.25, 1.0), 0.28), _PERICARDIUM - 12),
        (_ribbon(_side(m, m.septum + 0.12, 0.3, 1.0), 0.24), _PERICARDIUM - 24),
        (_ribbon(la[22:52] + np.array((0.0, 0.2)), 0.28), _PERICARDIUM),
        *_mitral(m),
    ]


def _plax(m: _Moment) -> list[Shape]:
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
        (-float(_profile(0.35)) * (r + m.septum) - 0.05, 0.35 * b),
    ]
    front = _curve(
        [
            (-0.86 * r, b - 0.2),
            (-1.0 * r - 0.2 * s, b + 0.9 * s),
            (-1.0 * r - 0.4 * s, b + 1.9 * s),
            (-r - 1.3 * s, b + 4.6 * s),
        ]
    )
    back = _curve(
        [
            (0.02 * r, b - 0.1),
            (0.14 * r, b + 0.9 * s),
            (-0.05 * r - 0.2 * s, b + 1.9 * s),
            (-0.05 * r - 1.1 * s, b + 4.6 * s),
        ]
    )
    half = 1.75 * s * (1 + 0.1 * m.contraction)
    la = _ellipse(
        0.16 * r + 0.25 * s + half, m.base0 + 1.75 * s + 0.5 * (b - m.base0), half, 2.2 * s + 0.5 * (m.base0 - b)
    )
    groove = 0.86 * r
    shut, middle = (0.42 * r, b - 0.7 * s), -0.45 * r
    aorta = m.posterior + r + 1.75 * s
    return [
        (_ribbon(_curve(roof), 0.7 * s), _WALL),
        (la + (la - la.mean(0)) * 0.14, _WALL),
        (_epicardium(m, m.septum, m.posterior), _MUSCLE),
        (_closed(roof + floor), _BLOOD),
        (la, _ATRIUM),
        (_cavity(m), _BLOOD),
        (np.concatenate([front, back[::-1]]), _BLOOD),
        (_ribbon(front, 0.22), 150),
        (_ribbon(back, 0.22), 150),
        (_leaflet((-0.98 * r, b + 0.5), (middle, b + 1.1 * s), (-0.98 * r, b + 1.9 * s), m.aortic), 92),
        (_leaflet((0.02 * r, b + 0.5), (middle, b + 1.1 * s), (-0.02 * r, b + 1.9 * s), m.aortic), 92),
        (_ribbon(_side(m, m.posterior + 0.14, 0.1, 1.0), 0.34), 196),
        (_ribbon(la[2:20] + np.array((0.22, 0.0)), 0.28), _PERICARDIUM),
        (_ellipse(aorta, m.base0 + 0.9 * s, 1.1 * s, 1.15 * s), 128),
        (_ellipse(aorta, m.base0 + 0.9 * s, 0.9 * s, 0.95 * s), _ATRIUM),
        (_ellipse(groove, b, 0.3, 0.3), _FIBROUS),
        (_leaflet((0.04 * r, b + 0.2), shut, (-0.45 * r, b - 2.3 * s), m.mitral), _VALVE),
        (_leaflet((groove, b), shut, (0.72 * r, b - 1.3 * s), m.mitral)[::-1], _VALVE),
        (_ribbon(_curve([(0.5 * r, b - 2.1 * s), (0.62 * r, b - 3.4 * s), (0.78 * r, b - 4.3 * s)]), 0.13), 120),
    ]


def _psax(m: _Moment) -> list[Shape]:
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

    shapes: Callable[[_Moment], list[Shape]]
    origin: tuple[float, float]
    axis: float
    mirrored: bool
    depth: float


_PROJECTIONS: dict[str, _Projection] = {
    "A4C": _Projection(_a4c, (0.4, 1.7), 7.0, False, 16.2),
    "A2C": _Projection(_a2c, (-0.2, 1.7), 1.0, False, 16.2),
    "PLAX": _Projection(_plax, (-7.2, 8.2), 97.0, True, 14.6),
    "PSAX": _Projection(_psax, (0.6, 7.0), 0.0, False, 13.4),
}

_BEAMS, _SAMPLES = 192, 384
_DECIBELS = 60.0
# Natural logarithm of amplitude per grey level of the log-compressed image.
_PER_GREY = _DECIBELS / 255 * math.log(10) / 20
_PSF_LATERAL, _PSF_AXIAL = 1.5, 0.95


@dataclass(frozen=True, slots=True)
class _Fan:
    """The polar grid (_SAMPLES, _BEAMS) of an acquisition: `near` to `depth` cm, `half_angle` radians to each side."""

    depth: float
    half_angle: float
    near: float = 0.35

    @property
    def radius(self) -> Float:
        """(_SAMPLES, 1), cm."""
        return np.linspace(self.near, self.depth, _SAMPLES)[:, None]

    @property
    def angle(self) -> Float:
        """(1, _BEAMS), radians, 0 = straight down."""
        return np.linspace(-self.half_angle, self.half_angle, _BEAMS)[None, :]

    def to_grid(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Fractional column and row of points in cm, x to the right and y down from the transducer."""
        column = (np.arctan2(x, y) + self.half_angle) * ((_BEAMS - 1) / (2 * self.half_angle))
        return column, (np.hypot(x, y) - self.near) * ((_SAMPLES - 1) / (self.depth - self.near))


def _smooth_noise(chance: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float]) -> Float32:
    """Unit-variance noise, correlated over `sigma` (columns, rows)."""
    noise = chance.standard_normal(shape, dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1], borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth / np.std(smooth), dtype=np.float32)


class _Acquisition:
    """One view of one patient, as filmed: everything that stays the same from frame to frame."""

    def __init__(self, patient: PhantomPatient, view: View, take: int) -> None:
        chance = np.random.default_rng([patient.seed, patient.number, get_args(View).index(view), take])
        projection = _PROJECTIONS[view]
        scale = patient.lv_length_cm / 8.7
        self.fan = _Fan(projection.depth * scale * chance.uniform(0.97, 1.08), math.radians(chance.uniform(36, 42)))
        self.shapes, self.mirrored = projection.shapes, projection.mirrored
        self.origin = (np.array(projection.origin) + chance.normal(0, (0.25, 0.15))) * scale
        self.axis = math.radians(projection.axis + chance.normal(0, 3.5))
        self.start = chance.uniform()
        self.kick = chance.uniform(0.15, 0.4)
        self.sway = chance.uniform(0.04, 0.14, 2) * scale
        self.breath = chance.uniform(0.2, 0.3), chance.uniform(0, 2 * math.pi)
        self.reject, self.contrast = chance.uniform(28, 50), chance.uniform(1.2, 1.5)
        self.tint = np.array([1.0, 1.0, 1.0]) + chance.uniform(-0.06, 0.06) * np.array([1, 0.1, -1])
        self._scatterers(chance)
        self._gains(chance)
        self._motion(*_moments(patient, np.array([0.0, 0.34 * math.sqrt(patient.heart_rate_bpm / 60)]), self.kick))
        self.chance = chance

    def _scatterers(self, chance: np.random.Generator) -> None:
        """Tissue: (rows, columns, 3), real and imaginary part and slow variation; static clutter and noise: complex."""
        shape = (_SAMPLES, _BEAMS)
        pairs = [_smooth_noise(chance, shape, (0.6, 0.6)) for _ in range(4)]
        grain = _smooth_noise(chance, shape, (3.0, 4.0)) + 0.8 * _smooth_noise(chance, shape, (9.0, 12.0))
        self.tissue = np.dstack([pairs[0], pairs[1], grain * 12])
        wobble = [
            0.13 * _smooth_noise(chance, shape, (26, 34))
            + 0.09 * _smooth_noise(chance, shape, (10, 14))
            + 0.045 * _smooth_noise(chance, shape, (3, 4))
            for _ in range(2)
        ]
        per_cm = (_SAMPLES - 1) / (self.fan.depth - self.fan.near)
        lateral = (_BEAMS - 1) / (2 * self.fan.half_angle) / np.maximum(self.fan.radius, 1)
        self.ragged = np.dstack([wobble[0] * lateral, wobble[1] * per_cm]).astype(np.float32)
        self.noise = chance.standard_normal((2 * _SAMPLES, 2 * _BEAMS, 2), dtype=np.float32)
        self.clutter = np.dstack(pairs[2:])
        self.background = np.clip(
            46 + 20 * _smooth_noise(chance, shape, (24.0, 18.0)) + 9 * _smooth_noise(chance, shape, (9.0, 4.0)), 5, 130
        ).astype(np.uint8)

    def _gains(self, chance: np.random.Generator) -> None:
        """Grey levels added everywhere (attenuation, drop-outs), and the amplitudes of clutter and noise."""
        depth = (self.fan.radius - self.fan.near) / (self.fan.depth - self.fan.near)
        across = self.fan.angle / self.fan.half_angle
        beams = _smooth_noise(chance, (1, _BEAMS), (11.0, 1.0)) * 9 + _smooth_noise(chance, (1, _BEAMS), (2.5, 1.0)) * 3
        gain = beams - 26 * depth**1.5 + 10 * np.exp(-((depth - 0.55) ** 2) / 0.06)
        gain = gain - 46 * _ramp(np.abs(across), chance.uniform(0.62, 0.8), 1.08)
        for side in (-1, 1):
            if chance.uniform() < 0.4:
                edge = side * chance.uniform(0.72, 0.95)
                gain = gain - 60 * _ramp(side * (across - edge), -0.12, 0.12) * _ramp(depth, 0.04, 0.2)
        self.gain = np.asarray(gain, dtype=np.float32)
        cm = self.fan.radius * (16 / self.fan.depth)
        haze = chance.uniform(70, 100) * np.exp(-((cm / 3) ** 1.5)) + 60 * np.exp(-(((cm - 0.55) / 0.35) ** 2))
        lines = cm + 0.05 * _smooth_noise(chance, (1, _BEAMS), (30.0, 1.0))
        layers = sum(
            h * np.exp(-(((lines - d) / 0.11) ** 2))
            for d, h in zip((0.8, 1.2, 1.6), chance.uniform(30, 75, 3), strict=True)
        )
        clutter = 22 + haze + layers + 0.4 * beams + 15 * _smooth_noise(chance, (_SAMPLES, _BEAMS), (26.0, 10.0))
        self.clutter = np.asarray(self.clutter * np.exp((clutter - 255) * _PER_GREY)[..., None], dtype=np.float32)
        floor = 14 + 24 * depth**2 + 0 * across
        self.floor = np.asarray(np.exp((floor - 255) * _PER_GREY)[..., None], dtype=np.float32)

    def place(self, points: Float) -> tuple[Any, Any]:
        """Heart coordinates (..., 2) to cm in the fan."""
        w = -points[..., 0] if self.mirrored else points[..., 0]
        z, cos, sin = points[..., 1], math.cos(self.axis), math.sin(self.axis)
        return self.origin[0] + w * cos + z * sin, self.origin[1] + z * cos - w * sin

    def _motion(self, relaxed: _Moment, tight: _Moment) -> None:
        """Where each sample's tissue comes from at full contraction, in grid steps: (rows, columns) twice."""
        x, y = self.fan.radius * np.sin(self.fan.angle), self.fan.radius * np.cos(self.fan.angle)
        cos, sin = math.cos(self.axis), math.sin(self.axis)
        dx, dy = x - self.origin[0], y - self.origin[1]
        w, z = dx * cos - dy * sin, dx * sin + dy * cos
        round_view = self.shapes is _psax
        u = np.full_like(z, _WIDEST) if round_view else (z - relaxed.tip) / relaxed.length0
        off = np.hypot(w, z) if round_view else np.abs(w)
        inner = np.maximum(_profile(u) * (relaxed.radius0 + tight.radius) / 2, 0.5)
        near = np.where(off < inner, off / inner, np.exp(-np.maximum(off - inner, 0) / (1.3 * relaxed.septum)))
        inward = (tight.radius - relaxed.radius) * _profile(u) * near * (1 - _ramp(u, 1.0, 1.3))
        unit = np.stack([w, z if round_view else np.zeros_like(z)]) / np.maximum(off, 0.05)
        up = 0 if round_view else (tight.length - relaxed.length) * np.clip(u, 0, 1) * (1 - _ramp(u, 1.0, 1.5))
        up = up * np.exp(-np.maximum(off - 1.8 * inner - relaxed.septum, 0) / 3)
        shift_w, shift_z = inward * unit[0], inward * unit[1] + up
        moved = x + shift_w * cos + shift_z * sin, y + shift_z * cos - shift_w * sin
        here, there = self.fan.to_grid(x, y), self.fan.to_grid(*moved)
        self.here = [np.asarray(h, dtype=np.float32) for h in here]
        self.flow = [np.asarray(h - t, dtype=np.float32) for h, t in zip(here, there, strict=True)]
        swayed = self.fan.to_grid(x + self.sway[0], y + self.sway[1])
        self.drift = [np.asarray(h - t, dtype=np.float32) for h, t in zip(here, swayed, strict=True)]

    def grey(self, moment: _Moment, sway: float) -> Float32:
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
        power = (echo * echo).sum(axis=2) * np.float32(2 * math.pi * _PSF_LATERAL * _PSF_AXIAL * 2) + 1e-12
        return np.asarray(255 + np.log(power) / np.float32(2 * _PER_GREY), dtype=np.float32)


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

    def show(self, grey: Float32, colours: UInt8Array) -> UInt8Array:
        """A polar frame as (H, W, 3) RGB. colours: (256, 1, 3)."""
        picture = cv2.remap(grey, self.maps[0], self.maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        picture = np.clip(picture, 0, 255) * self.edge
        if self.over > 1:
            picture = cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.applyColorMap((picture + 0.5).astype(np.uint8), colours), dtype=np.uint8)

    def annotate(self, patient: PhantomPatient, fps: float, phase: Float) -> tuple[UInt8Array, list[tuple[int, int]]]:
        """Text, depth ticks, grey bar and electrocardiogram on black, and where the latter stands at each frame."""
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        unit = self.height / 600
        white, green = (210, 210, 200), (90, 220, 120)

        def write(text: str, x: float, y: float) -> None:
            at = (round(x * unit), round(y * unit))
            cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42 * unit, white, 1, cv2.LINE_AA)

        right = self.width / unit
        lines = (
            patient.patient_id,
            "SYNTHETIC",
            "",
            f"FR {fps:.0f}Hz",
            f"{self.fan.depth:.0f}cm",
            "",
            "2D",
            "  68%",
            "  C 50",
        )
        for row, text in enumerate(lines):
            write(text, 12, 24 + 18 * row)
        write("01/01/1900", right - 110, 24)
        write("TIS0.8  MI 1.1", right - 130, 42)
        write(f"{patient.heart_rate_bpm:.0f}bpm", right - 90, 585)
        for cm in range(1, math.floor(self.fan.depth) + 1):
            y, long = self.top + cm * self.per_cm, 9 if cm % 5 == 0 else 4
            cv2.line(
                canvas, (round((right - 26 - long) * unit), round(y)), (round((right - 26) * unit), round(y)), white, 1
            )
            if cm % 5 == 0:
                write(str(cm), right - 22, y / unit + 4)
        bar = np.linspace(235, 0, max(1, round(110 * unit))).astype(np.uint8)
        canvas[round(60 * unit) :, self.width - round(66 * unit) : self.width - round(56 * unit)][: len(bar)] = bar[
            :, None, None
        ]
        cv2.circle(
            canvas,
            (round(self.middle + 24 * unit), round(self.top + 8 * unit)),
            round(4 * unit),
            (70, 130, 250),
            -1,
            cv2.LINE_AA,
        )

        across = np.linspace(0.06, 0.86, 900)
        volts = _electrocardiogram(np.interp(across, np.linspace(0.06, 0.86, len(phase)), phase))
        trace = np.stack([across * self.width, self.height * 0.955 - volts * 38 * unit], axis=1)
        cv2.polylines(canvas, [np.round(trace * 16).astype(np.int32)], False, green, 1, cv2.LINE_AA, 4)
        steps = np.round(np.linspace(0, len(trace) - 1, len(phase))).astype(int)
        return canvas, [(round(float(trace[i, 0])), round(float(trace[i, 1]))) for i in steps]


def _electrocardiogram(beats: Float) -> Float:
    """Millivolts over time counted in beats, the R wave at whole numbers."""
    phase = (beats + 0.3) % 1.0
    waves = ((0.12, 0.14, 0.025), (-0.1, 0.28, 0.008), (1.0, 0.3, 0.011), (-0.22, 0.325, 0.01), (0.26, 0.58, 0.045))
    return np.asarray(sum(height * np.exp(-(((phase - at) / width) ** 2)) for height, at, width in waves))


def render(
    patient: PhantomPatient,
    view: View = "A4C",
    num_frames: int = 64,
    fps: float | None = None,
    size: int | tuple[int, int] = 112,
    *,
    take: int = 0,
    overlay: bool = False,
) -> Frames:
    """Film a patient: (num_frames, H, W, 3) uint8 RGB.

    fps: frames per second, None for the patient's own. size: side of a square, or (height, width), in pixels.
    take: another number films the same view anew (position, gain, noise, moment of the start). overlay: with what a
    scanner burns in: text, depth ticks, electrocardiogram, a tint. The region is the fan's rectangle, cm per pixel.
    """
    fps = patient.frame_rate_hz if fps is None else fps
    height, width = (size, size) if isinstance(size, int) else size
    if view not in get_args(View):
        raise ArgumentError(f"view is {view!r}; allowed are {', '.join(get_args(View))}")
    _check_format(num_frames, fps, (height, width))
    film = _Acquisition(patient, view, take)
    screen = _Screen(film.fan, (height, width), overlay)
    seconds = np.arange(num_frames) / fps
    beats = film.start + seconds * patient.heart_rate_bpm / 60
    sway = np.sin(2 * math.pi * film.breath[0] * seconds + film.breath[1])
    tint = film.tint if overlay else np.ones(3)
    colours = np.clip(np.arange(256)[:, None, None] * tint, 0, 255).astype(np.uint8)
    around, marks = screen.annotate(patient, fps, beats) if overlay else (None, [])
    pixels = np.empty((num_frames, height, width, 3), np.uint8)
    shown = None
    for i, moment in enumerate(_moments(patient, beats % 1.0, film.kick)):
        grey = (film.grey(moment, float(sway[i])) - film.reject) * film.contrast
        # Persistence: scanners average over a few frames.
        shown = grey if shown is None else 0.7 * grey + 0.3 * shown
        pixels[i] = screen.show(shown, colours)
        if around is not None:
            np.maximum(pixels[i], around, out=pixels[i])
            cv2.circle(pixels[i], marks[i], 3, (255, 240, 120), -1, cv2.LINE_AA)
    return Frames(pixels, fps, "phantom", screen.region())


def _check_format(num_frames: int, fps: float | None, size: tuple[int, int] | None) -> None:
    if num_frames < 1:
        raise ArgumentError(f"num_frames is {num_frames}; at least 1 is needed (--frames)")
    if fps is not None and not 0 < fps < float("inf"):
        raise ArgumentError(f"fps is {fps}; it must be above 0 and finite (--fps)")
    if size is not None and min(size) < 32:
        raise ArgumentError(f"size is {size[0]}x{size[1]}; the smallest is 32x32 (--size)")


@dataclass(frozen=True, slots=True)
class _Video:
    """One video to be written. path: relative to the folder written, with forward slashes."""

    path: str
    patient: PhantomPatient
    view: View
    take: int
    split: str
    num_frames: int
    fps: float
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.path).stem

    def film(self, overlay: bool) -> Frames:
        return render(self.patient, self.view, self.num_frames, self.fps, self.size, take=self.take, overlay=overlay)


Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a data set lies on disk.

    views: of each study. place: path of a video. rows: the table lines of a video, each with its table's path. save:
    films and writes. input: what `panecho-embed extract` takes, relative to the folder written.
    """

    views: tuple[View, ...]
    size: tuple[int, int]
    place: Callable[[PhantomPatient, View, int], str]
    rows: Callable[[_Video], list[tuple[str, Row]]]
    save: Callable[[Path, _Video], None]
    input: str = ""
    pediatric: bool = False
    many_takes: bool = False


def _digest(patient: PhantomPatient, *more: object) -> str:
    return hashlib.sha256(repr((patient.seed, patient.number, *more)).encode()).hexdigest()


def _volumes(patient: PhantomPatient) -> dict[str, object]:
    return {"EF": round(patient.ef_percent, 4), "ESV": round(patient.esv_ml, 4), "EDV": round(patient.edv_ml, 4)}


def _dynamic_rows(video: _Video) -> list[tuple[str, Row]]:
    row = {"FileName": video.name, **_volumes(video.patient), "FrameHeight": video.size[0], "FrameWidth": video.size[1]}
    return [
        ("FileList.csv", row | {"FPS": video.fps, "NumberOfFrames": video.num_frames, "Split": video.split.upper()})
    ]


def _pediatric_place(patient: PhantomPatient, view: View, take: int) -> str:
    who, study = _digest(patient)[:7], _digest(patient, "study")[:7]
    return f"{view}/Videos/CR{who}-CR{study}-{take:06d}.avi"


def _pediatric_rows(video: _Video) -> list[tuple[str, Row]]:
    p = video.patient
    row = {"FileName": Path(video.path).name, "EF": round(p.ef_percent, 4), "Sex": p.sex, "Age": int(p.age_years)}
    row |= {"Weight": p.weight_kg, "Height": p.height_cm, "Split": p.number % 10}
    return [(f"{video.view}/FileList.csv", row)]


def _lvh_rows(video: _Video) -> list[tuple[str, Row]]:
    p = video.patient
    sizes = {"IVSd": p.septum_cm, "LVIDd": p.lvidd_cm, "LVPWd": p.posterior_wall_cm, "LVIDs": p.lvids_cm}
    # The real table lacks a measurement here and there.
    if p.number % 7 == 0:
        del sizes[("LVIDs", "IVSd")[p.number % 2]]
    rest = {"Frames": video.num_frames, "FPS": video.fps, "split": video.split}
    return [
        ("MeasurementsList.csv", {"HashedFileName": video.name, "Calc": calc, "CalcValue": round(value, 4), **rest})
        for calc, value in sizes.items()
    ]


def _save_avi(path: Path, video: _Video) -> None:
    """Motion-JPEG; OpenCV's own writer, whose bytes do not depend on how FFmpeg was built."""
    height, width = video.size
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, code, video.fps, (width, height))
    for picture in video.film(overlay=False).pixels:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    # It says nothing of a full disk.
    written = cv2.VideoCapture(str(path))
    count = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
    written.release()
    if count != video.num_frames:
        raise OSError(errno.EIO, f"{count} of {video.num_frames} frames arrived", str(path))


def _study(patient: PhantomPatient) -> str:
    return f"{patient.patient_id}-S1"


def _folder_place(patient: PhantomPatient, view: View, take: int) -> str:
    return f"{_study(patient)}/{view}" + (f"-{take + 1}" if take else "")


def _folder_rows(video: _Video) -> list[tuple[str, Row]]:
    p = video.patient
    ids = {"path": video.path, "video_id": video.path, "study_id": _study(p), "patient_id": p.patient_id}
    return [("manifest.csv", {**ids, "view": video.view, "split": video.split, "fps": video.fps, **_volumes(p)})]


def _save_images(path: Path, video: _Video) -> None:
    path.mkdir(exist_ok=True)
    for i, picture in enumerate(video.film(overlay=False).pixels):
        png = cv2.imencode(".png", picture[..., ::-1])[1]
        (path / f"frame_{i:04d}.png").write_bytes(png.tobytes())


def _dicom_place(patient: PhantomPatient, view: View, take: int) -> str:
    # Half of the files go without a suffix, as they come from a scanner.
    index = 1 + get_args(View).index(view) + len(get_args(View)) * take
    return f"{patient.patient_id}/{_study(patient)}/IM_{index:04d}" + ("" if index % 2 else ".dcm")


def _dicom_rows(video: _Video) -> list[tuple[str, Row]]:
    p = video.patient
    ids = {"video_id": video.path, "patient_id": p.patient_id, "study_id": _study(p), "view": video.view}
    return [("labels.csv", {**ids, **_volumes(p), "split": video.split})]


def _save_dicom(path: Path, video: _Video) -> None:
    """The cine loop, and beside a study's first one a still of it."""
    frames = video.film(overlay=True)
    _dicom(video, frames, still=False).save_as(path, enforce_file_format=True)
    if video.view == "A4C" and video.take == 0:
        still = dataclasses.replace(frames, pixels=frames.pixels[len(frames.pixels) // 2 :][:1])
        _dicom(video, still, still=True).save_as(path.with_name("IM_0000.dcm"), enforce_file_format=True)


def _dicom(video: _Video, frames: Frames, still: bool) -> FileDataset:
    """Ultrasound (Multi-frame) Image Storage, JPEG baseline (DICOM PS3.3 A.6, A.7 and C.8.5; PS3.5 A.4)."""
    patient, rate = video.patient, frames.fps or 0.0
    uids = {
        part: generate_uid(entropy_srcs=[repr(patient), part]) for part in ("study", "series", f"{video.path}{still}")
    }
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundImageStorage if still else UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = uids[f"{video.path}{still}"]
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids["study"], uids["series"]
    ds.PatientName, ds.PatientID = f"Phantom^Synthetic {patient.number:04d}", patient.patient_id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19000101", patient.sex, f"{int(patient.age_years):03d}Y"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "19000101", "000000", "1", ""
    ds.ReferringPhysicianName, ds.StudyDescription = "", "Synthetic echocardiogram"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "US", "panecho-embed", "phantom"
    ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = 1, 0 if still else int(video.name[3:]), ""
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.HeartRate, ds.BurnedInAnnotation = round(patient.heart_rate_bpm), "YES"
    ds.Rows, ds.Columns = frames.pixels.shape[1:3]
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_10918_1"
    ds.SequenceOfUltrasoundRegions = _regions(frames)
    if not still:
        ds.NumberOfFrames, ds.FrameIncrementPointer = len(frames.pixels), Tag("FrameTime")
        ds.FrameTime, ds.CineRate = f"{1000 / rate:.8g}", round(rate)
        ds.RecommendedDisplayFrameRate = round(rate)
    quality = (cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422)
    pictures = [cv2.imencode(".jpg", p[..., ::-1], quality)[1].tobytes() for p in frames.pixels]
    ds.LossyImageCompressionRatio = f"{frames.pixels.nbytes / sum(map(len, pictures)):.4g}"
    ds.PixelData = encapsulate(pictures)
    ds["PixelData"].VR = "OB"
    return ds


def _regions(frames: Frames) -> list[Dataset]:
    """The fan (2-D tissue, centimetres) and the electrocardiogram below it (a wave form)."""
    fan = frames.region
    assert fan is not None
    height, width = frames.pixels.shape[1:3]
    trace = (round(0.06 * width), round(0.87 * height), round(0.86 * width), round(0.97 * height))
    regions = []
    for box, spatial_format, data_type, unit in (((fan.x0, fan.y0, fan.x1, fan.y1), 1, 1, 3), (trace, 4, 10, 0)):
        item = Dataset()
        item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial_format, data_type, 0
        item.RegionLocationMinX0, item.RegionLocationMinY0 = box[:2]
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box[2] - 1, box[3] - 1
        item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
        item.PhysicalDeltaX = fan.physical_delta_x if unit else 1.0
        item.PhysicalDeltaY = fan.physical_delta_y if unit else 1.0
        regions.append(item)
    return regions


_ALL: tuple[View, ...] = get_args(View)
_SMALL = (112, 112)
_PLANS: dict[str, _Plan] = {
    "echonet-dynamic": _Plan(
        ("A4C",), _SMALL, lambda p, _v, _t: f"Videos/0X{_digest(p)[:16].upper()}.avi", _dynamic_rows, _save_avi
    ),
    "echonet-pediatric": _Plan(("A4C", "PSAX"), _SMALL, _pediatric_place, _pediatric_rows, _save_avi, pediatric=True),
    "echonet-lvh": _Plan(
        ("PLAX",),
        _SMALL,
        lambda p, _v, _t: f"Batch{p.number % 4 + 1}/0X{_digest(p)[:16].upper()}.avi",
        _lvh_rows,
        _save_avi,
    ),
    "dicom": _Plan(_ALL, (600, 800), _dicom_place, _dicom_rows, _save_dicom, many_takes=True),
    "folders": _Plan(_ALL, _SMALL, _folder_place, _folder_rows, _save_images, "manifest.csv", many_takes=True),
}
LAYOUTS = tuple(_PLANS)
_MARK = ".phantom.json"


def write_studies(
    out: str | Path,
    layout: str = "echonet-dynamic",
    patients: int = 60,
    videos_per_study: int | None = None,
    seed: int = 0,
    *,
    num_frames: int = 64,
    fps: float | None = None,
    size: int | tuple[int, int] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[Path]:
    """Write synthetic studies, one a patient, as a public data set, DICOM or image folders; returns the videos' paths.

    layout: echonet-dynamic (A4C), echonet-pediatric (A4C and PSAX, children), echonet-lvh (PLAX), dicom (four views and
    a still) or folders (four views). videos_per_study: the first so many views, or, above four, takes of the same views
    again; for dicom and folders alone. num_frames, fps, size: as in `render`; None: each patient's own rate, and the
    layout's size (600x800 for DICOM, otherwise 112x112). progress: called with videos done and in all.

    The same arguments give the same bytes. Raises ArgumentError for a folder that holds anything else, or phantoms of
    other settings, and StoreError if it can't be written.
    """
    if layout not in _PLANS:
        raise ArgumentError(f"layout is {layout!r}; allowed are {', '.join(LAYOUTS)} (--layout)")
    plan = _PLANS[layout]
    pixels = plan.size if size is None else (size, size) if isinstance(size, int) else size
    _check_format(num_frames, fps, pixels)
    count = len(plan.views) if videos_per_study is None else videos_per_study
    if count < 1 or (count != len(plan.views) and not plan.many_takes):
        allowed = "1 or more" if plan.many_takes else f"{len(plan.views)}, which the data set sets"
        raise ArgumentError(f"videos_per_study is {count}; for {layout} it must be {allowed}")
    people = make_patients(patients, seed, pediatric=plan.pediatric)
    videos = [
        _Video(plan.place(p, view, take), p, view, take, split, num_frames, fps or p.frame_rate_hz, pixels)
        for p, split in zip(people, _splits(patients, seed), strict=True)
        for take, view in ((i // len(plan.views), plan.views[i % len(plan.views)]) for i in range(count))
    ]
    settings = [layout, patients, count, seed, num_frames, fps, list(pixels)]
    root = Path(out)
    try:
        _claim(root, settings)
        for done, video in enumerate(videos, start=1):
            path = root / video.path
            path.parent.mkdir(parents=True, exist_ok=True)
            plan.save(path, video)
            if progress is not None:
                progress(done, len(videos))
        _write_tables(root, [row for video in videos for row in plan.rows(video)])
    except OSError as error:
        raise StoreError(f"can't write {error.filename or root}: {error.strerror or error}") from error
    return [root / video.path for video in videos]


def _splits(count: int, seed: int) -> list[str]:
    """About 75 / 12.5 / 12.5 %, by chance, at least one patient each (two: train and test; one: train)."""
    eighth = max(1, round(count / 8))
    names = ["test"] * (eighth if count > 1 else 0) + ["val"] * (eighth if count > 2 else 0)
    names += ["train"] * (count - len(names))
    return [names[i] for i in np.random.default_rng([seed, count]).permutation(count)]


def _claim(root: Path, settings: list[Any]) -> None:
    """Make the folder ours, or raise ArgumentError if it is another's."""
    names = ("layout", "patients", "videos_per_study", "seed", "num_frames", "fps", "size")
    mine = dict(zip(names, settings, strict=True))
    mark = root / _MARK
    if mark.is_file():
        theirs = json.loads(mark.read_text(encoding="utf-8"))
        differ = [
            f"{name} {theirs.get(name)}, not {value}" for name, value in mine.items() if theirs.get(name) != value
        ]
        if differ:
            raise ArgumentError(f"{root} holds phantoms of other settings: {'; '.join(differ)}; choose another folder")
    elif root.is_dir() and any(root.iterdir()):
        raise ArgumentError(f"{root} is not empty and was not written by this command; choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(mine) + "\n", encoding="utf-8")


def _write_tables(root: Path, lines: Sequence[tuple[str, Row]]) -> None:
    for name in dict.fromkeys(name for name, _ in lines):
        rows = [row for table, row in lines if table == name]
        with (root / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def manifest_input(out: str | Path, layout: str) -> Path:
    """What `panecho-embed extract` takes to read the studies that `write_studies` wrote, ids and splits included."""
    return Path(out) / _PLANS[layout].input
