"""DICOM files that are cut, damaged or lie: a clear error, and never fewer frames in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder

from panecho_embed.core.errors import MediaError
from panecho_embed.media import describe, open_cine
from tests.media.builders import (
    jpeg,
    numbered_frames,
    pydicom_file,
    write_dicom,
)

RGB = numbered_frames(5)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(
    "name",
    ["examples_ybr_color.dcm", "OBXXXX1A_rle_2frame.dcm", "OBXXXX1A_2frame.dcm", "emri_small_jpeg_2k_lossless.dcm"],
)
def test_cut_file_is_an_error(tmp_path: Path, name: str, share: float) -> None:
    data = pydicom_file(name).read_bytes()
    path = tmp_path / "a.dcm"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MediaError) as caught:
        list(open_cine(path).frames())
    assert caught.value.stage in ("open", "pixels")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_anywhere_loses_no_frame_silently(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = pydicom_file("examples_ybr_color.dcm").read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut.dcm"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    try:
        count = sum(1 for _ in open_cine(path).frames())
    except MediaError:
        return
    assert count == 30


@pytest.mark.parametrize(
    "syntax", [uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless]
)
def test_compressed_frame_that_was_cut_before_it_was_stored(tmp_path: Path, syntax: str) -> None:
    names = {
        uid.JPEGBaseline8Bit: "examples_ybr_color.dcm",
        uid.JPEGLosslessSV1: "JPGLosslessP14SV1_1s_1f_8b.dcm",
        uid.JPEGLSLossless: "emri_small_jpeg_ls_lossless.dcm",
        uid.JPEG2000Lossless: "US1_J2KR.dcm",
    }
    dataset = pydicom.dcmread(pydicom_file(names[syntax]))
    images = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1))))
    dataset.PixelData = encapsulate([*images[:-1], images[-1][: len(images[-1]) // 2]])
    path = tmp_path / "a.dcm"
    dataset.save_as(path)
    with pytest.raises(MediaError, match=f"frame {len(images)} of {len(images)}") as caught:
        list(open_cine(path, include_stills=True).frames())
    assert caught.value.stage == "decode"


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Rows": 60000, "Columns": 60000}, "claims 60000 x 60000 pixels"),
        ({"NumberOfFrames": 10**9}, "promises 1000000000 frames"),
        ({"NumberOfFrames": -4}, "NumberOfFrames is -4"),
        ({"Rows": 1, "Columns": 1}, "1 x 1 pixels"),
        ({"Rows": None}, "no Rows"),
        ({"BitsAllocated": 1, "BitsStored": 1}, "BitsAllocated is 1"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation is 'CMYK'"),
        ({"SamplesPerPixel": 1}, "PhotometricInterpretation is 'RGB' with 1 samples"),
    ],
)
def test_header_that_can_not_be_true(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", RGB, **tags)
    with pytest.raises(MediaError, match=message):
        open_cine(path)
    assert describe(path).cine.startswith("unreadable: ")


@pytest.mark.parametrize("tags", [{"NumberOfFrames": 10**9}, {"Rows": 640, "Columns": 800}])
def test_compressed_file_that_can_not_be_true(tmp_path: Path, tags: dict[str, Any]) -> None:
    options = {"NumberOfFrames": 5, "PhotometricInterpretation": "YBR_FULL_422"} | tags
    path = write_dicom(tmp_path / "a.dcm", [jpeg(frame) for frame in RGB], syntax=uid.JPEGBaseline8Bit, **options)
    with pytest.raises(MediaError, match=r"promises 1000000000 frames|80 x 64 pixels, the header says 800 x 640"):
        next(open_cine(path).frames())


def test_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panecho_embed.media.dicom_header._MAX_INFLATED_BYTES", 10_000)
    path = write_dicom(tmp_path / "a.dcm", RGB, syntax=uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(MediaError, match="more than 10000 bytes"):
        open_cine(path)


def test_transfer_syntax_that_is_not_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", [b"images"], syntax=uid.UID("1.2.840.10008.1.2.4.94"), NumberOfFrames=5)
    with pytest.raises(MediaError, match=r"transfer syntax is JPIP Referenced; read are uncompressed, .* HEVC"):
        open_cine(path)


def test_twelve_bits_of_jpeg_extended_name_the_extra_that_reads_them() -> None:
    path, decoder = pydicom_file("JPGExtended.dcm"), get_decoder(uid.JPEGExtended12Bit)
    is_there = "pylibjpeg" in decoder.available_plugins
    if is_there:
        decoder.remove_plugin("pylibjpeg")
    try:
        with pytest.raises(MediaError, match=r"pip install 'panecho-embed\[gpl\]'") as caught:
            list(open_cine(path, include_stills=True).frames())
    finally:
        if is_there:
            decoder.add_plugin("pylibjpeg", ("pydicom.pixels.decoders.pylibjpeg", "_decode_frame"))
    assert caught.value.stage == "decode"


def test_file_without_pixels() -> None:
    path = pydicom_file("test-SR.dcm")
    assert describe(path).cine == "no pixels"
    with pytest.raises(MediaError, match="no pixel data") as caught:
        open_cine(path)
    assert caught.value.stage == "pixels"


@pytest.mark.parametrize(
    "path", sorted(Path(pydicom_file("CT_small.dcm")).parent.glob("*.dcm")), ids=lambda path: path.name
)
def test_every_sample_file_gives_frames_or_a_clear_error(path: Path) -> None:
    """pydicom's collection of odd files, warnings being errors here."""
    message = "frames"
    try:
        assert next(open_cine(path, include_stills=True).frames()).ndim == 3
    except MediaError as error:
        message = str(error)
    assert 5 < len(message) < 600
    assert "\n" not in message
