"""The heart at each moment of its cycle: volumes, walls and valves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from panecho_embed.core.arraytypes import Floats
from panecho_embed.phantom.patients import PhantomPatient, ramp, walls


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
