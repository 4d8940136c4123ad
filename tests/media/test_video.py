"""Video files: every frame once, in the right colours; damage is named, and honest files are never refused."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from panecho_embed.core.errors import MediaError
from panecho_embed.media import describe, notes_on_videos, open_cine, read_frames
from panecho_embed.media.video import decode_video
from tests.media.builders import decode_independently, number_of, numbered_frames, write_avi, write_video

COUNT = 40
UNKNOWN = ("wmv", "mpg")
"""Containers that state neither a number of frames nor, where they are cut, a duration."""
FORMATS = {
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "raw.avi": ("rawvideo", "bgr24"),
    "ffv1.avi": ("ffv1", "yuv420p"),
    "h264.mp4": ("libx264", "yuv420p"),
    "mpeg4.mp4": ("mpeg4", "yuv420p"),
    "mjpeg.mov": ("mjpeg", "yuvj420p"),
    "h264.mkv": ("libx264", "yuv420p"),
    "vp8.webm": ("libvpx", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "wmv2.wmv": ("wmv2", "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "mpeg1.mpg": ("mpeg1video", "yuv420p"),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, (codec, pixels) in FORMATS.items():
        write_video(folder / name, numbered_frames(COUNT), codec, pixels=pixels)
    write_gif(folder / "animated.gif", numbered_frames(COUNT))
    return folder


def write_gif(path: Path, frames: np.ndarray, duration: int = 40) -> Path:
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration)
    return path


def numbers(path: Path) -> list[int]:
    return [number_of(frame) for frame in open_cine(path).frames()]


@pytest.mark.parametrize("name", [*FORMATS, "animated.gif"])
def test_every_frame_comes_once_and_in_order(videos: Path, name: str) -> None:
    assert numbers(videos / name) == list(range(COUNT))


@pytest.mark.parametrize("name", [*FORMATS, "animated.gif"])
def test_both_decoders_give_the_same_pixels(videos: Path, name: str) -> None:
    np.testing.assert_array_equal(read_frames(videos / name).pixels, np.stack(list(decode_video(str(videos / name)))))


@pytest.mark.parametrize(
    ("size", "pixels", "options"),
    [
        ((97, 113), "yuv444p", {}),
        ((98, 114), "yuv420p", {"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"}),
        ((720, 1280), "yuv420p", {"x264-params": "fullrange=on"}),
        ((480, 640), "yuv422p", {}),
        ((64, 80), "yuv420p10le", {}),
    ],
)
def test_both_decoders_convert_every_colour_format_alike(
    tmp_path: Path, size: tuple[int, int], pixels: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(4, *size), "libx264", pixels=pixels, options=options)
    np.testing.assert_array_equal(read_frames(path).pixels, np.stack(list(decode_video(str(path)))))


def test_frames_agree_with_what_this_library_calls_rgb(videos: Path) -> None:
    # Another path of FFmpeg's scaler, which rounds otherwise.
    for name in FORMATS:
        theirs = np.stack(decode_independently(videos / name))
        assert np.abs(read_frames(videos / name).pixels.astype(int) - theirs).max() <= 2


def test_av1_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(COUNT), "libsvtav1")
    assert numbers(path) == list(range(COUNT))
    ours = read_frames(path).pixels[:, 24:].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(ours, numbered_frames(COUNT)[:, 24:].mean(axis=(0, 1, 2)), atol=4)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(MediaError, match="cut"):
        open_cine(path)


@pytest.mark.parametrize("name", FORMATS)
def test_colours_are_those_that_were_written(videos: Path, name: str) -> None:
    # Swapped channels, or full range taken for limited, would be far beyond this.
    ours = read_frames(videos / name).pixels[:, 24:].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(ours, numbered_frames(COUNT)[:, 24:].mean(axis=(0, 1, 2)), atol=4)


@pytest.mark.parametrize("name", [*FORMATS, "animated.gif"])
def test_frame_rate_comes_from_the_container(videos: Path, name: str) -> None:
    cine = open_cine(videos / name)
    assert (cine.fps, cine.fps_source) == (pytest.approx(25 if name.endswith("gif") else 30), "container")


def test_gif_agrees_with_pillow(videos: Path) -> None:
    with Image.open(videos / "animated.gif") as image:
        for number, frame in enumerate(open_cine(videos / "animated.gif").frames()):
            image.seek(number)
            np.testing.assert_array_equal(frame, np.asarray(image.convert("RGB")))


def test_frames_can_be_read_again_from_the_start(videos: Path) -> None:
    cine = open_cine(videos / "h264.mp4")
    interrupted = cine.frames()
    next(interrupted)
    assert [number_of(frame) for frame in cine.frames()] == list(range(COUNT))
    assert number_of(next(interrupted)) == 1


def test_frames_are_contiguous_rgb(videos: Path) -> None:
    frame = next(open_cine(videos / "mjpeg.avi").frames())
    assert frame.shape == (64, 80, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous


def test_variable_frame_rate_keeps_every_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "vfr.mp4", numbered_frames(40), "libx264", durations=[33, 50, 120, 7] * 10)
    assert numbers(path) == list(range(40))
    assert open_cine(path).fps == pytest.approx(40 / 2.1, rel=0.05)


@pytest.mark.parametrize("options", [{"movflags": "frag_keyframe+empty_moov"}, {"movflags": "faststart"}])
def test_fragmented_and_streamable_mp4_are_whole(tmp_path: Path, options: dict[str, str]) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(COUNT), "libx264", container=options)
    assert numbers(path) == list(range(COUNT))


def test_live_webm_without_sizes_is_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", numbered_frames(COUNT), "libvpx", container={"live": "1"})
    assert numbers(path) == list(range(COUNT))


@pytest.mark.parametrize("count", [1, 2, 5, 255, 256, 300])
def test_any_length_is_read_whole(tmp_path: Path, count: int) -> None:
    assert numbers(write_avi(tmp_path / "a.avi", numbered_frames(count))) == list(range(count))


def test_four_thousand_frames(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "long.avi", numbered_frames(4000, 32, 64))
    assert numbers(path) == list(range(4000))


def test_odd_sizes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.avi", numbered_frames(3, 97, 113), "ffv1", pixels="bgr0")
    np.testing.assert_array_equal(read_frames(path).pixels, numbered_frames(3, 97, 113))


def test_path_with_spaces_and_accents(tmp_path: Path) -> None:
    folder = tmp_path / "étude 50% 心エコー"
    folder.mkdir()
    assert numbers(write_avi(folder / "cœur n° 1.avi", numbered_frames(3))) == [0, 1, 2]


def test_relative_path_like_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_avi(tmp_path / "a.avi", numbered_frames(3)).rename("concat:a.avi")
    assert numbers(Path("concat:a.avi")) == [0, 1, 2]


@pytest.mark.parametrize("name", ["mjpeg.avi", "animated.gif"])
def test_one_frame_video_is_a_loop_of_one_frame(tmp_path: Path, name: str) -> None:
    write = write_gif if name.endswith("gif") else write_avi
    path = write(tmp_path / name, numbered_frames(1))
    assert numbers(path) == [0]
    assert describe(path).cine == "still"


def test_describe_reads_the_header(videos: Path) -> None:
    info = describe(videos / "mjpeg.avi")
    assert (info.kind, info.cine, info.num_frames, info.fps) == ("video", "cine", COUNT, 30)
    assert (info.height, info.width) == (64, 80)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", [name for name in FORMATS if not name.endswith(UNKNOWN)] + ["animated.gif"])
def test_cut_file_is_an_error(videos: Path, tmp_path: Path, name: str, share: float) -> None:
    data = (videos / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MediaError):
        list(open_cine(path).frames())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_anywhere_loses_no_frame_silently(
    videos: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([name for name in [*FORMATS, "animated.gif"] if not name.endswith(UNKNOWN)]))
    whole = (videos / name).read_bytes()
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    try:
        count = sum(1 for _ in open_cine(path).frames())
    except MediaError:
        return
    # Only an index that stands behind the frames may be missing.
    assert count == COUNT


@pytest.mark.parametrize("name", ["wmv2.wmv", "mpeg2.mpg"])
def test_cut_file_that_states_neither_count_nor_duration_is_a_shorter_video(
    videos: Path, tmp_path: Path, name: str
) -> None:
    data = (videos / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: 2 * len(data) // 3])
    found = numbers(path)
    assert 0 < len(found) < COUNT
    # What is left of the last frame is shown upon the one before it.
    assert found[:-1] == list(range(len(found) - 1))
    assert "WMV and MPEG files (1 here)" in notes_on_videos([str(path), "a.avi"])[0]


def test_audio_that_outlasts_the_frames_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        video, audio = output.add_stream("mpeg4", rate=30), output.add_stream("aac", rate=8000)
        video.height, video.width, video.pix_fmt = 64, 80, "yuv420p"
        for frame in numbered_frames(10):
            output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for number in range(40):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 8000, 1024 * number
            output.mux(audio.encode(sound))
        output.mux(video.encode())
        output.mux(audio.encode())
    assert numbers(path) == list(range(10))


def test_cut_avi_says_what_is_missing(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret name.avi"
    path.write_bytes((videos / "mjpeg.avi").read_bytes()[:20_000])
    with pytest.raises(
        MediaError, match=r"the file is cut or damaged: frame \d+ is not all there; copy it again"
    ) as caught:
        open_cine(path)
    assert caught.value.stage == "open"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["mjpeg.avi", "mjpeg.mov"])
def test_damage_in_the_middle_is_an_error(videos: Path, tmp_path: Path, name: str) -> None:
    data = bytearray((videos / name).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        list(open_cine(path).frames())
    assert "damaged" in str(caught.value)


def test_missing_last_frames_are_counted(videos: Path, tmp_path: Path) -> None:
    data = bytearray((videos / "mjpeg.mov").read_bytes())
    # A copy that was allotted its full length, and never filled to the end.
    mdat = data.index(b"mdat")
    end = mdat - 4 + struct.unpack_from(">I", data, mdat - 4)[0]
    data[end - 4000 : end] = bytes(4000)
    path = tmp_path / "a.mov"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"only \d+ of 40 frames can be decoded") as caught:
        list(open_cine(path).frames())
    assert caught.value.stage == "decode"


def test_dropped_frames_of_an_avi_are_no_damage(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "a.avi", numbered_frames(10))
    data = bytearray(path.read_bytes())
    movi = data.index(b"movi")
    # An empty chunk stands for a frame that the recorder dropped.
    data[movi + 4 : movi + 4] = b"00dc\0\0\0\0"
    for offset in (4, movi - 4):
        struct.pack_into("<I", data, offset, struct.unpack_from("<I", data, offset)[0] + 8)
    path.write_bytes(data)
    assert numbers(path) == list(range(10))


def test_unfinished_avi_keeps_what_was_recorded(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "a.avi", numbered_frames(10))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, 0)
    struct.pack_into("<I", data, data.index(b"movi") - 4, 0)
    path.write_bytes(data[: data.index(b"idx1")])
    assert numbers(path) == list(range(10))


def test_trimmed_mp4_is_not_taken_for_damaged(videos: Path, tmp_path: Path) -> None:
    data = bytearray((videos / "h264.mp4").read_bytes())
    entry = data.index(b"elst") + 12
    struct.pack_into(">I", data, entry, struct.unpack_from(">I", data, entry)[0] // 2)
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(data)
    assert 0 < len(numbers(path)) < COUNT
    path.write_bytes(data[: data.index(b"mdat") + 200] + data[data.index(b"moov") - 4 :])
    with pytest.raises(MediaError):
        list(open_cine(path).frames())


@pytest.mark.parametrize(
    "content",
    [
        b"this is a text\n" * 40,
        "ÿ Ekkokardiografi\r\n".encode() * 40,
        "unicode".encode("utf-16"),
        b"#EXTM3U\nhttp://example.org/a.ts\n",
    ],
)
def test_text_named_avi_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(content)
    with pytest.raises(MediaError, match="this is text, not a video") as caught:
        open_cine(path)
    assert caught.value.stage == "open"


def test_noise_named_mp4_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(MediaError, match="no video stream can be opened"):
        open_cine(path)


def test_one_pixel_video_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", np.zeros((3, 1, 1, 3), dtype=np.uint8), "ffv1", pixels="bgr0")
    with pytest.raises(MediaError, match="1 x 1 pixels; an ultrasound image has at least 16 x 16"):
        open_cine(path)


def test_zero_bytes_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    with pytest.raises(MediaError, match="0 bytes"):
        open_cine(tmp_path / "empty.avi")
    with pytest.raises(MediaError, match="no such file"):
        open_cine(tmp_path / "missing.avi")
    assert describe(tmp_path / "missing.avi").cine == "unreadable: it can't be read: there is no such file"


def test_file_that_vanishes_before_it_is_read(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "a.avi", numbered_frames(3))
    cine = open_cine(path)
    path.unlink()
    with pytest.raises(MediaError):
        next(cine.frames())


@settings(max_examples=100, deadline=None)
@given(
    noise=st.binary(min_size=1, max_size=600),
    head=st.sampled_from(
        [
            b"RIFF\0\1\0\0AVI LIST",
            b"\0\0\0\x18ftypisom",
            b"\x1aE\xdf\xa3",
            b"GIF89a",
            b"\0\0\1\xba",
            bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
        ]
    ),
)
def test_noise_behind_the_head_of_a_container_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "a"
    path.write_bytes(head + noise)
    with pytest.raises(MediaError):
        list(open_cine(path).frames())
