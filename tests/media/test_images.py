"""Folders of images and single images; and what is no file at all."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import MediaError
from panecho_embed.media import describe, open_cine, read_frames
from panecho_embed.media.images import natural_key
from tests.media.builders import number_of, numbered_frames

RGB = numbered_frames(12)


def write_image(path: Path, frame: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, frame[..., ::-1] if frame.ndim == 3 else frame)[1].tobytes())
    return path


def write_folder(folder: Path, frames: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        write_image(folder / f"frame{number}{suffix}", frame)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_folder_is_read_in_natural_order(tmp_path: Path, suffix: str) -> None:
    folder = write_folder(tmp_path / "étude 1", RGB, suffix)
    np.testing.assert_array_equal(read_frames(folder).pixels, RGB)


def test_folder_of_jpegs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", RGB, ".jpg")
    assert [number_of(frame) for frame in open_cine(folder).frames()] == list(range(12))


def test_folder_has_no_frame_rate(tmp_path: Path) -> None:
    cine = open_cine(write_folder(tmp_path / "a", RGB))
    assert (cine.kind, cine.fps, cine.fps_source, cine.num_frames) == ("folder", None, "", 12)


@given(st.lists(st.integers(0, 10**6), min_size=1, unique=True), st.text("ab _-", max_size=3))
def test_natural_order_counts(numbers: list[int], prefix: str) -> None:
    names = sorted((f"{prefix}{number}.png" for number in numbers), key=natural_key)
    assert names == [f"{prefix}{number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(max_size=8)))
def test_natural_order_takes_any_names(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    assert ordered == sorted([*ordered[1:], *ordered[:1]], key=natural_key)


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", RGB)
    write_image(folder / "._frame0.png", RGB[0])
    (folder / "notes.txt").write_text("notes")
    (folder / "Thumbs.db").write_bytes(b"\0")
    (folder / "sub.png").mkdir()
    assert describe(folder).num_frames == 12


def test_frames_of_different_sizes_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", RGB)
    write_image(folder / "frame7.png", numbered_frames(1, 70, 90)[0])
    with pytest.raises(MediaError, match=r"frame7\.png is 90 x 70 pixels, frame0\.png is 80 x 64"):
        list(open_cine(folder).frames())


def test_same_frame_in_two_formats_is_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", RGB)
    write_image(folder / "frame3.jpg", RGB[3])
    with pytest.raises(MediaError, match=r"frame3\.\w+ and frame3\.\w+, the same frame twice"):
        open_cine(folder)


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").touch()
    with pytest.raises(MediaError, match="no images among its 1 files"):
        open_cine(tmp_path)


@pytest.mark.parametrize("name", ["frame0.png", "frame5.png"])
def test_damaged_image_in_a_folder_is_named(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "a", RGB)
    (folder / name).write_bytes((folder / name).read_bytes()[:-40])
    with pytest.raises(MediaError, match=name.replace(".", r"\.")):
        list(open_cine(folder).frames())


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything; a test of permissions has to step down."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folder_without_permission(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", RGB)
    folder.chmod(0)
    try:
        with as_nobody(), pytest.raises(MediaError, match="Permission denied") as caught:
            open_cine(folder)
    finally:
        folder.chmod(0o700)
    assert caught.value.stage == "open"
    assert str(folder) not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_image_is_a_loop_of_one_frame(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a b{suffix}", RGB[3])
    np.testing.assert_array_equal(read_frames(path).pixels, RGB[3:4])
    info = describe(path)
    assert (info.kind, info.cine, info.num_frames, info.height, info.width) == ("image", "still", 1, 64, 80)


def test_grey_transparent_and_16_bit_images(tmp_path: Path) -> None:
    grey = RGB[3, ..., 0]
    expected = np.repeat(grey[None, ..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_frames(write_image(tmp_path / "8.png", grey)).pixels, expected)
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_frames(write_image(tmp_path / "16.png", deep)).pixels, expected)
    alpha = np.dstack([RGB[3][..., ::-1], np.full((64, 80), 90, np.uint8)])
    cv2.imwrite(str(tmp_path / "alpha.png"), alpha)
    np.testing.assert_array_equal(read_frames(tmp_path / "alpha.png").pixels[0], RGB[3])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_cut_image_is_an_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = write_image(tmp_path / f"a{suffix}", RGB[3])
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MediaError):
        list(open_cine(path).frames())


def test_small_and_huge_images(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="1 x 1 pixels; an ultrasound image has at least 16 x 16"):
        open_cine(write_image(tmp_path / "a.png", np.zeros((1, 1, 3), np.uint8)))
    path = write_image(tmp_path / "b.png", RGB[0])
    head = b"IHDR" + struct.pack(">2I", 60000, 60000) + path.read_bytes()[24:29]
    path.write_bytes(path.read_bytes()[:12] + head + struct.pack(">I", zlib.crc32(head)) + path.read_bytes()[33:])
    with pytest.raises(MediaError, match="claims 60000 x 60000 pixels"):
        open_cine(path)


def test_text_named_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(MediaError, match="no image"):
        open_cine(tmp_path / "a.png")


def test_tiff_of_several_pages_is_not_read_by_halves(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "a.tif"), list(RGB))
    with pytest.raises(MediaError, match="TIFF of 12 pages"):
        list(open_cine(tmp_path / "a.tif").frames())


def test_socket_is_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.avi")
        with pytest.raises(MediaError, match="neither a file nor a folder"):
            open_cine("a.avi")


def test_broken_link(tmp_path: Path) -> None:
    (tmp_path / "a.avi").symlink_to(tmp_path / "gone.avi")
    with pytest.raises(MediaError, match="no such file"):
        open_cine(tmp_path / "a.avi")


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/a\xff.avi"
    Path(os.fsdecode(path)).write_bytes(b"\0" * 100)
    with pytest.raises(MediaError, match="not valid UTF-8"):
        open_cine(os.fsdecode(path))
