"""The heart rate of loops without an ECG: phantoms, whose beat is known, and real loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from panecho_embed.core.records import SELF_SIMILARITY, Recording, Region
from panecho_embed.media import open_cine
from panecho_embed.media.heartbeat import heart_rate, small_picture, watched, with_heart_rate
from panecho_embed.phantoms import make_patients, render

VIEWS = ("A4C", "A2C", "PLAX", "PSAX")


def found_and_true(number: int, least_beats: float, most_beats: float) -> tuple[float, float]:
    """Heart rate found in a phantom's loop, NaN for none, and its own; every fourth of one view."""
    chance = np.random.default_rng([1234, number])
    patient = replace(make_patients(number + 1, seed=77)[-1], heart_rate_bpm=chance.uniform(40, 180))
    beats = chance.uniform(least_beats, most_beats)
    frames = math.ceil(beats * 60 / patient.heart_rate_bpm * patient.frame_rate_hz)
    film = render(patient, VIEWS[number % 4], frames, size=112)
    pictures = np.stack([small_picture(frame, film.region) for frame in film.pixels])
    assert film.fps is not None
    return heart_rate(pictures, film.fps)[0], patient.heart_rate_bpm


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_loops_of_1_2_beats_or_more_show_their_heart_rate(count: int) -> None:
    # Shorter loops in the small run: rendering is what takes time.
    pairs = np.array([found_and_true(number, 1.2, 2.5 if count == 10 else 6) for number in range(count)])
    right = np.abs(pairs[:, 0] / pairs[:, 1] - 1) <= 0.03
    print(pairs[~right])
    assert right.mean() >= 0.95 if count > 10 else right.sum() >= 9
    # What is not within 3 % is not known, or not far off.
    assert np.nanmax(np.abs(pairs[:, 0] / pairs[:, 1] - 1)) < 0.07


@pytest.mark.slow
def test_loops_of_less_than_a_beat_show_none() -> None:
    pairs = np.array([found_and_true(number, 0.4, 1.0) for number in range(100)])
    print(pairs[np.isfinite(pairs[:, 0])])
    assert np.isnan(pairs[:, 0]).mean() >= 0.95


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("color3d_jpeg_baseline.dcm", 64, 68), ("examples_ybr_color.dcm", None, None)]
)
def test_real_loops(name: str, lowest: float | None, highest: float | None) -> None:
    """The first beats four times in 120 frames, every 27 of them; the second lasts one second."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    cine, pictures = watched(open_cine(path))
    assert sum(1 for _ in cine.frames()) == len(pictures)
    assert cine.fps is not None
    recording = with_heart_rate(cine.recording, pictures, cine.fps)
    if lowest is None or highest is None:
        assert math.isnan(recording.heart_rate_bpm)
        assert recording.heart_rate_source == ""
        assert recording.heart_rate_confidence < 0.5
    else:
        assert lowest < recording.heart_rate_bpm < highest
        assert recording.heart_rate_source == SELF_SIMILARITY


@pytest.mark.parametrize("frames", [1, 2, 5, 60])
def test_what_does_not_move_has_no_heart_rate(frames: int) -> None:
    still = np.repeat(np.random.default_rng(0).random((1, 28, 28), dtype=np.float32), frames, axis=0)
    assert math.isnan(heart_rate(still * 255, 30.0)[0])


def test_noise_has_no_heart_rate() -> None:
    chance = np.random.default_rng(0)
    rates = [heart_rate(chance.random((n, 28, 28), dtype=np.float32), 30.0)[0] for n in (8, 30, 64, 300)]
    assert np.isnan(rates).all()


def test_a_steady_drift_is_no_heartbeat() -> None:
    drift = np.linspace(0, 1, 80, dtype=np.float32)[:, None, None] * np.random.default_rng(0).random((28, 28))
    assert math.isnan(heart_rate(drift.astype(np.float32), 30.0)[0])


def test_only_the_region_counts_and_large_frames_are_thinned_out() -> None:
    frame = np.zeros((600, 800, 3), np.uint8)
    frame[100:300, 200:500] = 90
    assert small_picture(frame).mean() < 20
    np.testing.assert_allclose(small_picture(frame, Region(200, 100, 500, 300)), 90, rtol=1e-5)
    assert small_picture(np.full((16, 20, 3), 7, np.uint8)).shape == (28, 28)


def test_a_recording_keeps_what_else_it_tells() -> None:
    made = with_heart_rate(Recording(112, 112), list(np.zeros((20, 28, 28), np.float32)), 30.0)
    assert made == replace(Recording(112, 112), heart_rate_confidence=0.0)
