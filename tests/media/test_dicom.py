"""What a DICOM file shows, how fast and where; nothing of it is told of the patient."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from panecho_embed.core.errors import MediaError, NotACineError
from panecho_embed.core.records import Recording, Region
from panecho_embed.media import describe, open_cine, read_identity
from tests.media.builders import (
    SECRET,
    SECRET_ID,
    number_of,
    numbered_frames,
    ultrasound_region,
    write_avi,
    write_dicom,
)

RGB = numbered_frames(5)


@pytest.mark.parametrize(
    ("tags", "fps", "source"),
    [
        ({"FrameTime": "33.333"}, 30.0, "(0018,1063) FrameTime"),
        ({"FrameTime": "33.367"}, 29.97, "(0018,1063) FrameTime"),
        ({"FrameTime": "20", "CineRate": "30", "RecommendedDisplayFrameRate": "25"}, 50.0, "(0018,1063) FrameTime"),
        (
            {"FrameTimeVector": ["0", "20", "20", "20", "80"], "FrameIncrementPointer": 0x00181065},
            50.0,
            "(0018,1065) FrameTimeVector",
        ),
        ({"FrameTime": None, "ActualFrameDuration": "25", "CineRate": "30"}, 40.0, "(0018,1242) ActualFrameDuration"),
        ({"FrameTime": None, "CineRate": "30", "RecommendedDisplayFrameRate": "25"}, 30.0, "(0018,0040) CineRate"),
        ({"FrameTime": None, "RecommendedDisplayFrameRate": "25"}, 25.0, "(0008,2144) RecommendedDisplayFrameRate"),
        ({"FrameTime": "0", "CineRate": "30"}, 30.0, "(0018,0040) CineRate"),
        ({"FrameTime": "-5"}, None, ""),
        ({"FrameTime": "0.0333"}, None, ""),
        ({"FrameTime": "", "CineRate": "0"}, None, ""),
        ({"FrameTime": None, "FrameIncrementPointer": None}, None, ""),
    ],
)
def test_frame_rate_and_the_tag_it_comes_from(
    tmp_path: Path, tags: dict[str, Any], fps: float | None, source: str
) -> None:
    cine = open_cine(write_dicom(tmp_path / "a.dcm", RGB, **tags))
    assert (cine.fps, cine.fps_source) == (fps, source)


@pytest.mark.parametrize(
    ("formats", "cine"),
    [
        ([1], "cine"),
        ([1, 4, 5], "cine"),
        ([1, 3], "spectral Doppler"),
        ([2], "M-mode"),
        ([1, 2], "M-mode"),
        ([0], "cine"),
    ],
)
def test_spectral_doppler_and_m_mode_by_their_regions(tmp_path: Path, formats: list[int], cine: str) -> None:
    regions = [ultrasound_region(0, 0, 79, 63, spatial_format=number) for number in formats]
    path = write_dicom(tmp_path / "a.dcm", RGB, SequenceOfUltrasoundRegions=regions)
    assert describe(path).cine == cine
    if cine != "cine":
        with pytest.raises(NotACineError, match=f"{cine}, not a 2-D loop"):
            open_cine(path, include_stills=True)


@pytest.mark.parametrize(
    ("code", "cine"),
    [
        ("0001", "cine"),
        ("0011", "cine"),
        ("0009", "spectral Doppler"),
        ("0004", "spectral Doppler"),
        ("0002", "M-mode"),
        ("TTE", "cine"),
    ],
)
def test_spectral_doppler_and_m_mode_by_the_image_type(tmp_path: Path, code: str, cine: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", RGB, ImageType=["ORIGINAL", "PRIMARY", "", code])
    assert describe(path).cine == cine


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((10, 5, 69, 54), (10, 5, 70, 55)),
        ((0, 0, 79, 63), (0, 0, 80, 64)),
        ((10, 5, 99, 54), (10, 5, 80, 55)),
        ((60, 5, 200, 54), None),
        ((100, 100, 300, 300), None),
        ((10, 5, 20, 54), None),
        ((70, 50, 10, 5), None),
    ],
)
def test_region_is_cut_to_the_image_or_left_out(
    tmp_path: Path, corners: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    path = write_dicom(tmp_path / "a.dcm", RGB, SequenceOfUltrasoundRegions=[ultrasound_region(*corners)])
    region = open_cine(path).region
    assert region == (None if expected is None else Region(*expected, 1, 1, 0.05, 0.04))


def test_largest_tissue_region_is_taken(tmp_path: Path) -> None:
    regions = [
        ultrasound_region(0, 0, 70, 60, data_type=2),
        ultrasound_region(0, 0, 29, 29),
        ultrasound_region(30, 0, 79, 59),
    ]
    region = open_cine(write_dicom(tmp_path / "a.dcm", RGB, SequenceOfUltrasoundRegions=regions)).region
    assert region is not None
    assert (region.x0, region.y0, region.x1, region.y1) == (30, 0, 80, 60)


def test_identity_is_read_and_never_shown(tmp_path: Path) -> None:
    identity = read_identity(write_dicom(tmp_path / "a.dcm", RGB))
    assert (identity.patient_id, identity.issuer, identity.study_uid) == (SECRET_ID, "Clinic", "1.2.3")
    assert (identity.series_uid, identity.sop_uid) == ("1.2.3.4", "1.2.3.4.5")
    shown = f"{identity} {identity!r} {[identity]}"
    assert SECRET_ID not in shown
    assert "1.2.3" not in shown


def test_missing_identity_is_empty(tmp_path: Path) -> None:
    identity = read_identity(write_dicom(tmp_path / "a.dcm", RGB, PatientID=None, IssuerOfPatientID=None))
    assert (identity.patient_id, identity.issuer) == ("", "")


SPOILERS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "cut in the header": lambda data: data[: data.index(SECRET_ID.encode()) + 4],
    "text for a number": lambda data: data.replace(b"\x18\0\x63\x10DS\x02\x0020", b"\x18\0\x63\x10DS\x02\x00xx"),
    "invalid VR": lambda data: data.replace(b"\x10\0\x20\0LO", b"\x10\0\x20\0ZZ"),
    "shifted": lambda data: data.replace(b"\x10\0\x20\0LO", b"\x10\0\x20\0LO\xff\xff"),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_nothing_of_the_patient_is_told(
    tmp_path: Path, spoiler: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.dcm"
    tags = {"StudyInstanceUID": f"1.2.{'9' * 80}", "FrameTime": "20", "CineRate": "30"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dicom(path, RGB, **tags)
    path.write_bytes(SPOILERS[spoiler](path.read_bytes()))
    told = []
    with caplog.at_level(logging.DEBUG):
        for work in (open_cine, describe, read_identity):
            try:
                told.append(repr(work(path)))
            except MediaError as error:
                told += [str(error), repr(error), repr(error.__cause__)]
    out, err = capfd.readouterr()
    everything = " ".join([*told, caplog.text, out, err])
    for secret in (SECRET, SECRET_ID, "999999", "1.2.3.4"):
        assert secret not in everything


def test_opened_file_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    cine = open_cine(write_dicom(tmp_path / "a.dcm", RGB))
    assert [number_of(frame) for frame in pickle.loads(pickle.dumps(cine)).frames()] == list(range(5))


def test_the_header_says_how_it_was_recorded(tmp_path: Path) -> None:
    region = [ultrasound_region(0, 0, 79, 63), ultrasound_region(10, 10, 50, 50, data_type=2)]
    path = write_dicom(
        tmp_path / "a.dcm",
        RGB,
        Manufacturer="Acme",
        ManufacturerModelName="Echo 9",
        HeartRate=72,
        RWaveTimeVector=[845.0, 12.5],
        SequenceOfUltrasoundRegions=region,
    )
    cine = open_cine(path)
    rate, source = 60_000 / 832.5, "(0018,6060) RWaveTimeVector"
    told = Recording(64, 80, 0.05, 0.04, 1.0, "Acme", "Echo 9", rate, source)
    assert cine.recording == replace(told, r_wave_times_ms=(12.5, 845.0))
    assert (describe(path).heart_rate_bpm, describe(path).heart_rate_source) == (rate, source)


def test_the_heart_rate_tag_stands_in_for_r_waves(tmp_path: Path) -> None:
    one = open_cine(write_dicom(tmp_path / "a.dcm", RGB, HeartRate=72, RWaveTimeVector=[12.5])).recording
    assert (one.heart_rate_bpm, one.heart_rate_source) == (72, "(0018,1088) HeartRate")
    assert one.r_wave_times_ms == (12.5,)
    none = open_cine(write_dicom(tmp_path / "b.dcm", RGB, HeartRate=0)).recording
    assert (math.isnan(none.heart_rate_bpm), none.heart_rate_source, none.r_wave_times_ms) == (True, "", ())


def test_the_header_says_whether_there_is_colour(tmp_path: Path) -> None:
    assert open_cine(write_dicom(tmp_path / "c.dcm", RGB, UltrasoundColorDataPresent=0)).recording.colour_flow == 0
    # pydicom's own still of a Philips scanner: a region of tissue in grey, and the flag set.
    path = get_testdata_file("examples_palette.dcm")
    assert open_cine(path, include_stills=True).recording.colour_flow == 0


def test_every_kind_of_file_says_its_size(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RGB)
    cv2.imwrite(str(tmp_path / "a.png"), RGB[0])
    for path in (tmp_path / "a.npy", tmp_path / "a.png", write_avi(tmp_path / "a.avi", RGB)):
        assert open_cine(path).recording == Recording(frame_height=64, frame_width=80)
