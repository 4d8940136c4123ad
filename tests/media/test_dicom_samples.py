"""Real DICOM files, of pydicom's own collection: right colours, rates, regions and kinds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels

from panecho_embed.core.errors import NotACineError
from panecho_embed.media import describe, open_cine, read_frames
from tests.media.builders import pydicom_file

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
    for ours, theirs in zip(open_cine(path).frames(), iter_pixels(path, decoding_plugin="gdcm"), strict=True):
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
