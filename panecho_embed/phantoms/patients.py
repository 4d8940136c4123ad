"""Synthetic patients, the truth that the pictures are drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError

View = Literal["A4C", "A2C", "PLAX", "PSAX"]


Shape = tuple[Floats, int]

# The ventricle's half width along its axis (0 = apex, 1 = base): an ellipse to its widest point, then a slight taper.
WIDEST, AT_BASE = 0.62, 0.78


def profile(u: Any) -> Floats:
    """The cavity's half width, as a share of its widest, at share `u` of the way from the apex to the base."""
    u = np.clip(u, 0.0, 1.0)
    tip = np.sqrt(np.maximum(0.0, 1 - (1 - u / WIDEST) ** 2))
    return np.asarray(np.where(u < WIDEST, tip, 1 - (1 - AT_BASE) * ((u - WIDEST) / (1 - WIDEST)) ** 2))


U = np.sin(np.linspace(0, np.pi / 2, 40)) ** 2

PROFILE = profile(U)

# Volume of the solid of revolution = _BULK x diameter^2 x length.
_BULK = float(np.pi / 4 * np.mean(profile(np.linspace(0, 1, 4001)) ** 2))


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
        return float(walls(self, np.zeros(1))[1][0])

    @property
    def lvids_cm(self) -> float:
        """The ventricle's inner diameter at end-systole."""
        return float(walls(self, np.ones(1))[1][0])


def make_patients(count: int, seed: int = 0, *, pediatric: bool = False) -> list[PhantomPatient]:
    """Patients 1 to `count`; each depends on `seed` and its own number only. EF spreads evenly over 15-75 %."""
    if count < 1:
        raise ArgumentError(f"patients is {count}; at least 1 is needed (--patients)")
    return [_make_patient(number, seed, pediatric) for number in range(1, count + 1)]


def _make_patient(number: int, seed: int, pediatric: bool) -> PhantomPatient:
    chance = np.random.default_rng([seed, number])
    # Steps of the golden ratio fill the range evenly however many patients there are.
    health = (number * 0.6180339887498949 + np.random.default_rng(seed).uniform()) % 1.0
    age = chance.uniform(0.5, 17.9) if pediatric else chance.uniform(22, 88)
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


def ramp(x: Any, start: float, stop: float) -> Floats:
    """0 up to `start`, 1 from `stop`, smooth between."""
    t = np.clip((np.asarray(x, dtype=np.float64) - start) / (stop - start), 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t))


def walls(patient: PhantomPatient, contraction: Floats) -> tuple[Floats, Floats, Floats, Floats]:
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
