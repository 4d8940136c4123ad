"""Arrays in .npy and .npz files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.errors import MediaError
from panecho_embed.media import describe, open_cine, read_frames
from tests.media.builders import numbered_frames

RGB = numbered_frames(12)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("shape", ["THWC", "THW", "THW1"])
@pytest.mark.parametrize(("dtype", "top"), [("u1", 255), ("f4", 1), ("f8", 255), (">f4", 1), ("f2", 1)])
def test_arrays_of_every_shape_and_scale(tmp_path: Path, suffix: str, shape: str, dtype: str, top: int) -> None:
    values = RGB if dtype == "u1" else (RGB / 255 * top).astype(dtype)
    array = np.ascontiguousarray({"THWC": values, "THW": values[..., 0], "THW1": values[..., :1]}[shape])
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, frames=array, fps=25.0)
    expected = RGB if shape == "THWC" else np.repeat(RGB[..., :1], 3, axis=-1)
    frames = read_frames(path)
    np.testing.assert_array_equal(frames.pixels, expected)
    assert (frames.fps, frames.fps_source) == ((25.0, "fps in the .npz") if suffix == ".npz" else (None, ""))


def test_only_array_of_an_npz_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", video=RGB, fps=25.0)
    assert describe(tmp_path / "a.npz").num_frames == 12


def test_frames_of_an_array_are_writable_copies(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RGB)
    cine = open_cine(tmp_path / "a.npy")
    next(cine.frames())[:] = 0
    np.testing.assert_array_equal(next(cine.frames()), RGB[0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 20), np.uint8), r"shape \(5, 20\)"),
        (np.zeros((5, 3, 20, 20), np.uint8), r"shape \(5, 3, 20, 20\); read are \(T, H, W\)"),
        (np.asfortranarray(RGB), r"Fortran order; save np.ascontiguousarray\(frames\)"),
        (np.zeros((0, 20, 20), np.uint8), "no frames"),
        (np.zeros((5, 1, 1), np.uint8), "1 x 1 pixels"),
        (np.zeros((5, 20, 20), np.int16), "holds int16"),
        (np.zeros((5, 20, 20), object), "holds object"),
        (np.full((5, 20, 20), -0.5), "values of -0.5 to -0.5"),
        (np.full((5, 20, 20), 256.0), "values of 256 to 256"),
        (np.full((5, 20, 20), np.nan), "not finite"),
    ],
)
def test_array_that_is_no_video(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(MediaError, match=message):
        list(open_cine(tmp_path / "a.npy").frames())


def test_two_possible_arrays_in_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=RGB, b=RGB)
    with pytest.raises(MediaError, match=r"2 arrays \(a, b\); name the one meant `frames`"):
        open_cine(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_cut_array_is_an_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    np.save(path, RGB) if suffix == ".npy" else np.savez(path, frames=RGB)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MediaError):
        list(open_cine(path).frames())


def test_array_header_that_can_not_be_true(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RGB)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(12, 64, 80, 3), }" + b" " * 9, b"(12000000000, 64, 80, 3), }"))
    with pytest.raises(MediaError, match="promises 184320000000000 bytes"):
        open_cine(tmp_path / "a.npy")


def test_damaged_npz_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, frames=RGB)
    data = bytearray(path.read_bytes())
    data[5000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(MediaError, match="damaged"):
        list(open_cine(path).frames())


def test_npz_without_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "text")
    with pytest.raises(MediaError, match="0 arrays"):
        open_cine(tmp_path / "a.npz")
