"""DICOM files: right pixels however they are stored, the right rate and region, nothing told of the patient."""

from __future__ import annotations

import io
import itertools
import logging
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import iter_pixels

from panecho_embed.errors import MediaError, NotACineError
from panecho_embed.media import describe, is_dicom, open_cine, read_frames, read_identity
from panecho_embed.media.codestream import read_jpeg_header
from panecho_embed.records import Region
from tests.media.builders import (
    SECRET,
    SECRET_ID,
    jpeg,
    number_of,
    numbered_frames,
    pydicom_file,
    ultrasound_region,
    without_segments,
    write_dicom,
)

RGB = numbered_frames(5)
GREY = np.ascontiguousarray(RGB[..., 0])
STILLS = {
    "JPGLosslessP14SV1_1s_1f_8b.dcm": uid.JPEGLosslessSV1,
    "OBXXXX1A.dcm": uid.ExplicitVRLittleEndian,
    "OBXXXX1A_expb.dcm": uid.ExplicitVRBigEndian,
    "OBXXXX1A_rle.dcm": uid.RLELossless,
    "US1_J2KI.dcm": uid.JPEG2000,
    "US1_J2KR.dcm": uid.JPEG2000Lossless,
    "gdcm-US-ALOKA-16.dcm": uid.ImplicitVRLittleEndian,
    "US1_UNCR.dcm": uid.ExplicitVRLittleEndian,
}


def pixels(path: Path) -> np.ndarray:
    return read_frames(path).pixels


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


# Real files


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [("examples_ybr_color.dcm", 30, (240, 320)), ("color3d_jpeg_baseline.dcm", 120, (480, 640))],
)
def test_real_loops_agree_with_a_plain_jpeg_decoder(name: str, count: int, size: tuple[int, int]) -> None:
    path = pydicom_file(name)
    images = generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=count)
    frames = open_cine(path).frames()
    for image, frame in zip(images, frames, strict=True):
        assert frame.shape == (*size, 3)
        np.testing.assert_array_equal(frame, np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))


def test_real_loop_agrees_with_pydicom() -> None:
    path = pydicom_file("examples_ybr_color.dcm")
    for ours, theirs in zip(open_cine(path).frames(), iter_pixels(path, decoding_plugin="pylibjpeg"), strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 6


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "color3d_jpeg_baseline.dcm"])
def test_real_loops_run_at_30_frames_per_second(name: str) -> None:
    cine = open_cine(pydicom_file(name))
    assert (cine.fps, cine.fps_source) == (30.0, "(0018,1063) FrameTime")


def test_real_region_is_read() -> None:
    region = open_cine(pydicom_file("color3d_jpeg_baseline.dcm")).region
    assert region is not None
    assert (region.x0, region.y0, region.x1, region.y1) == (84, 31, 596, 415)
    assert region.physical_delta_x == pytest.approx(0.05105, abs=1e-5)


def test_real_region_outside_its_own_image_is_left_out() -> None:
    assert open_cine(pydicom_file("examples_ybr_color.dcm")).region is None


def test_colour_tints_nothing() -> None:
    """A second conversion from YCbCr turns grey tissue green."""
    frames = pixels(pydicom_file("examples_ybr_color.dcm")).astype(int)
    tissue = frames[:, 60:180, 100:220]
    assert np.abs(tissue[..., 1] - tissue[..., 0]).mean() < 2
    assert np.abs(tissue[..., 1] - tissue[..., 2]).mean() < 2


@pytest.mark.parametrize("name", STILLS)
def test_real_stills_are_recognised(name: str) -> None:
    path = pydicom_file(name)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == STILLS[name]
    assert describe(path).cine == "still"
    with pytest.raises(NotACineError, match="still image") as caught:
        open_cine(path)
    assert caught.value.stage == "skipped"


@pytest.mark.parametrize("name", STILLS)
def test_real_stills_are_read_when_included(name: str) -> None:
    path = pydicom_file(name)
    frames = read_frames(path, include_stills=True).pixels
    info = describe(path)
    assert frames.shape == (1, info.height, info.width, 3)
    assert frames.std() > 5


@pytest.mark.parametrize("other", ["US1_J2KR.dcm", "US1_J2KI.dcm"])
def test_compressed_still_agrees_with_its_original(other: str) -> None:
    original = "US1_UNCR.dcm" if other.endswith("R.dcm") else "US1_UNCI.dcm"
    ours, theirs = (read_frames(pydicom_file(name), include_stills=True).pixels for name in (other, original))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["OBXXXX1A_expb_2frame.dcm", "OBXXXX1A_rle_2frame.dcm"])
def test_palette_is_the_same_in_every_syntax(name: str) -> None:
    np.testing.assert_array_equal(pixels(pydicom_file(name)), pixels(pydicom_file("OBXXXX1A_2frame.dcm")))


@pytest.mark.parametrize(
    "name",
    [
        "emri_small_RLE.dcm",
        "emri_small_big_endian.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
    ],
)
def test_lossless_syntaxes_give_the_same_16_bit_loop(name: str) -> None:
    np.testing.assert_array_equal(pixels(pydicom_file(name)), pixels(pydicom_file("emri_small.dcm")))


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_rle_2frame.dcm",
        "SC_rgb_16bit_2frame.dcm",
        "SC_rgb_expb_16bit_2frame.dcm",
        "SC_rgb_expb_2frame.dcm",
        "SC_rgb_rle_32bit_2frame.dcm",
    ],
)
def test_colour_bars_are_the_same_in_every_format(name: str) -> None:
    frame = pixels(pydicom_file(name))[0]
    bars = [tuple(frame[row, 50]) for row in (5, 15, 25, 45)]
    assert bars == [(255, 0, 0), (255, 128, 128), (0, 255, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_ybr_full_uncompressed.dcm",
    ],
)
def test_colour_bars_are_red_green_and_blue_however_they_were_written(name: str) -> None:
    frame = read_frames(pydicom_file(name), include_stills=True).pixels[0].astype(int)
    for row, colour in ((5, (255, 0, 0)), (24, (0, 255, 0)), (45, (0, 0, 255))):
        assert np.abs(frame[row, 50] - colour).max() <= 4


def test_deflated_file_is_read() -> None:
    path = pydicom_file("image_dfl.dcm")
    frame = read_frames(path, include_stills=True).pixels[0, ..., 0]
    np.testing.assert_array_equal(frame, pydicom.dcmread(path).pixel_array)


# Every way to store a loop


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
    ],
)
@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_comes_back_as_stored(tmp_path: Path, syntax: str, planar: int) -> None:
    path = tmp_path / "a"
    if syntax == uid.RLELossless:
        dataset = pydicom.dcmread(write_dicom(path, RGB))
        dataset.compress(uid.RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    else:
        stored = RGB if planar == 0 else np.ascontiguousarray(RGB.transpose(0, 3, 1, 2))
        write_dicom(path, stored.tobytes(), syntax=syntax, NumberOfFrames=5, PlanarConfiguration=planar)
    np.testing.assert_array_equal(pixels(path), RGB)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.JPEG2000Lossless, uid.RLELossless]
)
def test_grey_of_8_and_16_bits(tmp_path: Path, dtype: type, syntax: str) -> None:
    stored = GREY.astype(dtype) * (257 if dtype == np.uint16 else 1)
    path = tmp_path / "a.dcm"
    compressed = syntax in (uid.JPEG2000Lossless, uid.RLELossless)
    write_dicom(path, stored, syntax=uid.ExplicitVRLittleEndian if compressed else syntax)
    if compressed:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_array_equal(pixels(path), as_rgb(GREY))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", GREY, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(pixels(path), as_rgb(255 - GREY))


def test_signed_16_bits_are_stretched_over_the_whole_loop(tmp_path: Path) -> None:
    stored = np.zeros((3, 32, 32), dtype=np.int16)
    stored[0], stored[1, 0, 0], stored[2, 0, 0] = -500, 500, 0
    frames = pixels(write_dicom(tmp_path / "a.dcm", stored))[..., 0]
    assert (frames[0, 5, 5], frames[1, 0, 0], frames[2, 0, 0], frames[1, 5, 5]) == (0, 255, 128, 128)


@pytest.mark.parametrize(
    ("tags", "value", "expected"),
    [
        ({"WindowCenter": "600", "WindowWidth": "400"}, 600, 128),
        ({"WindowCenter": "600", "WindowWidth": "400"}, 100, 0),
        ({"WindowCenter": "600", "WindowWidth": "400"}, 2000, 255),
        ({"WindowCenter": ["600", "40"], "WindowWidth": ["400", "80"]}, 600, 128),
        ({"WindowCenter": "600", "WindowWidth": "400", "VOILUTFunction": "LINEAR_EXACT"}, 500, 64),
        ({"WindowCenter": "600", "WindowWidth": "400", "VOILUTFunction": "SIGMOID"}, 500, 69),
        ({"WindowCenter": "0", "WindowWidth": "400", "RescaleSlope": "2", "RescaleIntercept": "-1200"}, 600, 128),
    ],
)
def test_window_is_applied_after_the_rescale(tmp_path: Path, tags: dict[str, Any], value: int, expected: int) -> None:
    stored = np.full((2, 32, 32), value, dtype=np.uint16)
    assert pixels(write_dicom(tmp_path / "a.dcm", stored, **tags))[0, 0, 0, 0] == expected


def test_unused_high_bits_are_ignored(tmp_path: Path) -> None:
    stored = (GREY.astype(np.uint16) << 4) | 0xF000
    path = write_dicom(tmp_path / "a.dcm", stored, BitsStored=12)
    low, high = int(GREY.min()), int(GREY.max())
    expected = np.rint((GREY.astype(float) - low) / (high - low) * 255)
    np.testing.assert_allclose(pixels(path)[..., 0], expected, atol=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_entries_of_8_and_16_bits(tmp_path: Path, bits: int) -> None:
    ramp = np.arange(256)
    entries = {"Red": ramp, "Green": 255 - ramp, "Blue": ramp // 2}
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, values in entries.items():
        stored = values.astype(np.uint8) if bits == 8 else (values * 257).astype("<u2")
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = stored.tobytes()
    frames = pixels(write_dicom(tmp_path / "a.dcm", GREY, **tags))
    np.testing.assert_array_equal(frames, np.stack([GREY, 255 - GREY, GREY // 2], axis=-1))


def test_uncompressed_ybr_422_is_right_in_every_frame(tmp_path: Path) -> None:
    ycc = np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in RGB])
    ycc[:, :, 1::2, 1:] = ycc[:, :, ::2, 1:]
    # Two luma samples, then the pair's chroma (PS3.3 C.7.6.3.1.2).
    pairs = [ycc[:, :, ::2, 0], ycc[:, :, 1::2, 0], ycc[:, :, ::2, 1], ycc[:, :, ::2, 2]]
    stored = np.stack(pairs, axis=-1).tobytes()
    path = write_dicom(tmp_path / "a.dcm", stored, NumberOfFrames=5, PhotometricInterpretation="YBR_FULL_422")
    images = [Image.frombytes("YCbCr", (80, 64), frame.tobytes()) for frame in ycc]
    expected = np.stack([np.asarray(image.convert("RGB")) for image in images])
    assert np.abs(pixels(path).astype(int) - expected).max() <= 2


def test_422_in_name_only_is_read_as_it_is(tmp_path: Path) -> None:
    ycc = np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in RGB])
    path = write_dicom(tmp_path / "a.dcm", ycc, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(pixels(path).astype(int) - RGB).max() <= 3


def write_jpegs(path: Path, images: list[bytes], photometric: str) -> Path:
    tags = {"NumberOfFrames": len(images), "PhotometricInterpretation": photometric}
    return write_dicom(path, images, syntax=uid.JPEGBaseline8Bit, **tags)


@pytest.mark.parametrize(
    ("subsampling", "photometric", "dropped"),
    [
        *itertools.product([0, 1, 2], ["YBR_FULL_422", "YBR_FULL", "RGB"], [()]),
        *itertools.product([0, 1, 2], ["YBR_FULL_422", "YBR_FULL"], [(0xE0,)]),
        # Writers that forget to change the header: half the chroma gives YCbCr away.
        *itertools.product([1, 2], ["RGB"], [(0xE0,)]),
    ],
)
def test_jpeg_of_ybr_is_converted_once(tmp_path: Path, subsampling: int, photometric: str, dropped: tuple[int]) -> None:
    images = [without_segments(jpeg(frame, subsampling=subsampling), *dropped) for frame in RGB]
    frames = pixels(write_jpegs(tmp_path / "a.dcm", images, photometric))
    assert [number_of(frame) for frame in frames] == list(range(5))
    assert np.abs(frames[:, 20:].astype(int) - RGB[:, 20:]).max() <= 12


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422"])
def test_jpeg_that_says_rgb_is_not_converted(tmp_path: Path, photometric: str) -> None:
    images = [jpeg(frame, subsampling=0, rgb=True) for frame in RGB]
    frames = pixels(write_jpegs(tmp_path / "a.dcm", images, photometric))
    assert np.abs(frames[:, 20:].astype(int) - RGB[:, 20:]).max() <= 12


def test_silent_jpeg_is_rgb_where_the_header_says_so(tmp_path: Path) -> None:
    """A JPEG library left to itself would take it for YCbCr."""
    images = [without_segments(jpeg(frame, subsampling=0, rgb=True), 0xEE) for frame in RGB]
    for letters in ((b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0"), (b"\3R\0G\0B\0", b"\3\1\0\2\0\3\0")):
        images = [image.replace(*letters) for image in images]
    header = read_jpeg_header(images[0])
    assert header is not None
    assert (header.component_ids, header.jfif, header.adobe_transform) == ((1, 2, 3), False, None)
    frames = pixels(write_jpegs(tmp_path / "a.dcm", images, "RGB"))
    assert np.abs(frames[:, 20:].astype(int) - RGB[:, 20:]).max() <= 12


def test_grey_jpeg(tmp_path: Path) -> None:
    images = [jpeg(frame) for frame in GREY]
    path = write_dicom(
        tmp_path / "a.dcm",
        images,
        syntax=uid.JPEGBaseline8Bit,
        NumberOfFrames=5,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
    )
    assert np.abs(pixels(path)[:, 20:, :, 0].astype(int) - GREY[:, 20:]).max() <= 6


@pytest.mark.parametrize("photometric", ["YBR_RCT", "YBR_ICT"])
def test_jpeg_2000_in_colour(tmp_path: Path, photometric: str) -> None:
    lossless = photometric == "YBR_RCT"
    images = []
    for frame in RGB:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG2000", irreversible=not lossless, mct=1, no_jp2=True)
        images.append(buffer.getvalue())
    syntax = uid.JPEG2000Lossless if lossless else uid.JPEG2000
    path = write_dicom(
        tmp_path / "a.dcm", images, syntax=syntax, NumberOfFrames=5, PhotometricInterpretation=photometric
    )
    assert np.abs(pixels(path).astype(int) - RGB).max() <= (0 if lossless else 12)


@pytest.mark.parametrize("shape", [(33, 47), (17, 16), (16, 255)])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_odd_sizes_with_their_padding(tmp_path: Path, shape: tuple[int, int], syntax: str) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (3, *shape), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(write_dicom(tmp_path / "a.dcm", stored, syntax=syntax))[..., 0], stored)


def test_big_endian_words_of_8_bit_pixels(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", GREY[:, :33, :47], syntax=uid.ExplicitVRBigEndian)
    data = bytearray(path.read_bytes())
    # The same pixels as OW: bytes swapped in pairs (PS3.5 D.2).
    element = data.index(b"\x7f\xe0\0\x10OB")
    data[element + 4 : element + 6] = b"OW"
    swapped = np.frombuffer(bytes(data[element + 12 :]), dtype="u2").byteswap().tobytes()
    path.write_bytes(bytes(data[: element + 12]) + swapped)
    np.testing.assert_array_equal(pixels(path)[..., 0], GREY[:, :33, :47])


def test_excess_bytes_behind_the_last_frame_are_padding(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RGB.tobytes() + b"\0" * 1000, NumberOfFrames=5)
    np.testing.assert_array_equal(pixels(path), RGB)


@pytest.mark.parametrize("has_bot", [True, False])
@pytest.mark.parametrize("fragments", [1, 3])
def test_frames_in_several_fragments(tmp_path: Path, has_bot: bool, fragments: int) -> None:
    images = [jpeg(frame) for frame in RGB]
    path = write_dicom(
        tmp_path / "a.dcm",
        images,
        syntax=uid.JPEGBaseline8Bit,
        NumberOfFrames=5,
        PhotometricInterpretation="YBR_FULL_422",
    )
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate(images, fragments_per_frame=fragments, has_bot=has_bot)
    dataset.save_as(path)
    assert [number_of(frame) for frame in open_cine(path).frames()] == list(range(5))


def test_offset_table_full_of_nonsense_is_not_needed(tmp_path: Path) -> None:
    images = [jpeg(frame) for frame in RGB]
    path = write_dicom(
        tmp_path / "a.dcm",
        images,
        syntax=uid.JPEGBaseline8Bit,
        NumberOfFrames=5,
        PhotometricInterpretation="YBR_FULL_422",
    )
    dataset = pydicom.dcmread(path)
    data = encapsulate(images, has_bot=True)
    dataset.PixelData = data[:8] + b"\x07" * 20 + data[28:]
    dataset.save_as(path)
    assert [number_of(frame) for frame in open_cine(path).frames()] == list(range(5))


def test_file_without_preamble_or_meta_is_recognised(tmp_path: Path) -> None:
    data = write_dicom(tmp_path / "a.dcm", RGB).read_bytes()
    bare = tmp_path / "bare.avi"
    bare.write_bytes(data[data.index(b"\x08\0\x08\0CS") :])
    assert is_dicom(bare)
    np.testing.assert_array_equal(pixels(bare), RGB)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400).filter(lambda data: data[128:132] != b"DICM"))
def test_other_bytes_are_no_dicom(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(data)
    assert not is_dicom(path)


def test_frames_can_be_read_again(tmp_path: Path) -> None:
    cine = open_cine(write_dicom(tmp_path / "a.dcm", RGB))
    interrupted = cine.frames()
    next(interrupted)
    assert [number_of(frame) for frame in cine.frames()] == list(range(5))
    assert number_of(next(interrupted)) == 1


# Frame rate


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


# What it shows, and where


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


# Damage and nonsense


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
    path = write_dicom(tmp_path / "a.dcm", [b"video"], syntax=uid.MPEG4HP41, NumberOfFrames=5)
    with pytest.raises(MediaError, match=r"transfer syntax is MPEG-4 AVC/H\.264"):
        open_cine(path)


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


# Identifiers


def test_identity_is_read_and_never_shown(tmp_path: Path) -> None:
    identity = read_identity(write_dicom(tmp_path / "a.dcm", RGB))
    assert (identity.patient_id, identity.issuer, identity.study_uid) == (SECRET_ID, "Clinic", "1.2.3")
    assert (identity.series_uid, identity.sop_uid, identity.view) == ("1.2.3.4", "1.2.3.4.5", "")
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
