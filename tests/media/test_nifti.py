"""NIfTI loops: upright whichever way they were saved, grey and colour, whole or an error."""

from __future__ import annotations

import gzip
import sys

import nibabel
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from panecho_embed.core.errors import MediaError
from panecho_embed.media import describe, open_cine, read_frames
from tests.datasets.trees import sector


def save(path, volume, **header):
    image = nibabel.Nifti1Image(volume, np.diag([-0.3, -0.15, 1, 1]))
    for name, values in header.items():
        image.header[name] = values
    nibabel.save(image, path)
    return path


def grey(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames[..., np.newaxis], 3, axis=3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("size", [(60, 80), (80, 60), (64, 64)])
@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0)], ids=["X, Y, T", "rows, columns, T"])
def test_a_sector_comes_out_with_its_apex_on_top(tmp_path, suffix, size, axes):
    frames = sector(*size)
    path = save(tmp_path / f"a{suffix}", frames.transpose(axes))
    cine = open_cine(path)
    assert (cine.kind, cine.num_frames, cine.fps) == ("nifti", 4, None)
    assert (cine.recording.frame_height, cine.recording.frame_width) == size
    assert (read_frames(path).pixels == grey(frames)).all()
    assert [frame.shape for frame in cine.frames()] == [(*size, 3)] * 4  # a second time, from the first frame


def test_text_and_an_ecg_beside_the_sector_do_not_turn_it(tmp_path):
    frames = sector(120, 160)
    frames[:, 112:116, 10:150] = 200
    frames[:, 5:12, 2:40] = 255
    for name, axes in (("a", (2, 1, 0)), ("b", (1, 2, 0))):
        path = save(tmp_path / f"{name}.nii", frames.transpose(axes))
        assert (read_frames(path).pixels == grey(frames)).all(), name


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0)], ids=["X, Y, T", "rows, columns, T"])
def test_a_real_apical_loop_with_a_dark_side_and_a_screen_around_it_comes_out_upright(tmp_path, axes):
    frames = read_frames(get_testdata_file("examples_ybr_color.dcm")).pixels.max(axis=3)
    path = save(tmp_path / "a.nii.gz", frames.transpose(axes))
    assert (read_frames(path).pixels == grey(frames)).all()


def test_a_picture_without_a_sector_is_read_as_nifti_says(tmp_path):
    frames = np.random.default_rng(0).integers(40, 255, (3, 40, 90), dtype=np.uint8)
    path = save(tmp_path / "a.nii.gz", frames.transpose(2, 1, 0))
    assert (read_frames(path).pixels == grey(frames)).all()


def test_colour_in_a_last_axis_and_as_triples(tmp_path):
    frames = np.stack([sector(), sector() // 2, sector() // 3], axis=-1)
    for name, axes in (("a", (2, 1, 0, 3)), ("b", (1, 2, 0, 3))):
        assert (read_frames(save(tmp_path / f"{name}.nii.gz", frames.transpose(axes))).pixels == frames).all()
    triples = np.zeros(frames.shape[:3], dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for i, channel in enumerate("RGB"):
        triples[channel] = frames[..., i]
    assert (read_frames(save(tmp_path / "c.nii", triples.transpose(2, 1, 0))).pixels == frames).all()


@pytest.mark.parametrize(
    "volume",
    [
        sector().transpose(2, 1, 0).astype(np.int16),
        sector().transpose(2, 1, 0).astype(np.float64),
        (sector() / 255).transpose(2, 1, 0).astype(np.float32),
        sector().transpose(2, 1, 0)[:, :, np.newaxis, :],
    ],
    ids=["int16", "0-255 floats", "0-1 floats", "X, Y, 1, T"],
)
def test_values_of_any_type_are_0_to_255(tmp_path, volume):
    assert (read_frames(save(tmp_path / "a.nii.gz", volume)).pixels == grey(sector())).all()


def test_a_slope_in_the_header_is_applied(tmp_path):
    path = save(tmp_path / "a.nii", (sector() // 2).transpose(2, 1, 0).astype(np.int16))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2, 0], dtype=np.float32).tobytes()  # scl_slope and scl_inter, which nibabel sets itself
    path.write_bytes(raw)
    assert (read_frames(path).pixels == grey(sector() // 2 * 2)).all()


def test_one_picture_is_a_still(tmp_path):
    path = save(tmp_path / "a.nii.gz", sector(frames=1)[0].T)
    info = describe(path)
    assert (info.cine, info.num_frames, info.height, info.width) == ("still", 1, 60, 80)


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (sector().transpose(2, 1, 0).astype(np.int16) - 40, "values of -40 to"),
        (sector().transpose(2, 1, 0).astype(np.float32) * 9, "allowed are 0-1 or 0-255"),
        (np.where(sector() > 0, np.nan, 1).transpose(2, 1, 0).astype(np.float32), "values of nan"),
        (np.zeros((40, 40, 5, 7), np.uint8), r"shape \(40, 40, 5, 7\); read are"),
        (np.zeros((40,), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.uint8), "at least 16 x 16"),
        (np.zeros((40, 40, 3), np.uint8), "of one colour throughout"),
    ],
)
def test_what_is_no_loop_is_refused(tmp_path, volume, message):
    path = save(tmp_path / "a.nii", volume)
    with pytest.raises(MediaError, match=message):
        read_frames(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_cut_file_never_gives_fewer_frames(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", np.random.default_rng(1).integers(0, 255, (60, 60, 9), dtype=np.uint8))
    whole = path.read_bytes()
    for part in (10, 200, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:part])
        with pytest.raises(MediaError, match="damaged or cut"):
            read_frames(path)
    path.write_bytes(b"not at all" * 50 if suffix == ".nii" else gzip.compress(b"not at all" * 50))
    with pytest.raises(MediaError, match="damaged or cut"):
        read_frames(path)


def test_without_nibabel_the_extra_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii", sector().transpose(2, 1, 0))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MediaError, match=r"nibabel is not installed: pip install 'panecho-embed\[nifti\]'"):
        open_cine(path)
    assert "panecho-embed[nifti]" in describe(path).cine
