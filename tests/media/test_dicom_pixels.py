"""Every way to store a loop in a DICOM file gives the same frames."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from panecho_embed.media import is_dicom, open_cine, read_frames
from panecho_embed.media.codestream import read_jpeg_header
from tests.media.builders import (
    jpeg,
    number_of,
    numbered_frames,
    without_segments,
    write_dicom,
)

RGB = numbered_frames(5)
GREY = np.ascontiguousarray(RGB[..., 0])


def pixels(path: Path) -> np.ndarray:
    return read_frames(path).pixels


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


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
    # A loop of one grey throughout would be no content.
    stored[0, 1, 1] = 3000 if value < 700 else 0
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
