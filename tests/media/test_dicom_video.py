"""Video streams in DICOM (PS3.5 8.2.5 to 8.2.8): the frames of the same stream in a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from panecho_embed.core.errors import MediaError
from panecho_embed.media import describe, open_cine, read_frames
from tests.media.builders import number_of, numbered_frames, write_dicom, write_video

COUNT = 24
TAGS = {"NumberOfFrames": COUNT, "PhotometricInterpretation": "YBR_PARTIAL_420"}
STREAMS = {
    "MPEG-2 elementary": (uid.MPEG2MPML, "a.m2v", "mpeg2video"),
    "MPEG-2 high level": (uid.MPEG2MPHL, "a.mpg", "mpeg2video"),
    "MPEG-2 in a transport stream": (uid.MPEG2MPHLF, "a.ts", "mpeg2video"),
    "H.264 elementary": (uid.MPEG4HP41, "a.h264", "libx264"),
    "H.264 in MP4": (uid.MPEG4HP41BD, "a.mp4", "libx264"),
    "H.264 in a transport stream": (uid.MPEG4HP422D, "a.ts", "libx264"),
    "H.264 3D": (uid.MPEG4HP423D, "a.h264", "libx264"),
    "H.264 stereo": (uid.MPEG4HP42STEREO, "a.mp4", "libx264"),
    "HEVC elementary": (uid.HEVCMP51, "a.hevc", "libx265"),
    "HEVC in MP4": (uid.HEVCMP51, "a.mp4", "libx265"),
}


def stream(folder: Path, kind: str) -> tuple[str, Path]:
    syntax, name, codec = STREAMS[kind]
    return syntax, write_video(folder / name, numbered_frames(COUNT), codec)


@pytest.mark.parametrize("kind", STREAMS)
def test_frames_are_those_of_the_stream_in_a_file_of_its_own(tmp_path: Path, kind: str) -> None:
    syntax, video = stream(tmp_path, kind)
    path = write_dicom(tmp_path / "a.dcm", [video.read_bytes()], syntax=syntax, **TAGS)
    frames = read_frames(path)
    assert [number_of(frame) for frame in frames.pixels] == list(range(COUNT))
    np.testing.assert_array_equal(frames.pixels, read_frames(video).pixels)
    assert (frames.fps, frames.fps_source) == (50.0, "(0018,1063) FrameTime")
    info = describe(path)
    assert (info.kind, info.cine, info.num_frames, info.height, info.width) == ("dicom", "cine", COUNT, 64, 80)


def test_hevc_of_10_bits(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.hevc", numbered_frames(COUNT), "libx265", pixels="yuv420p10le")
    bits = {"BitsAllocated": 16, "BitsStored": 10}
    path = write_dicom(tmp_path / "a.dcm", [video.read_bytes()], syntax=uid.HEVCM10P51, **TAGS, **bits)
    np.testing.assert_array_equal(read_frames(path).pixels, read_frames(video).pixels)


def test_a_stream_in_several_fragments(tmp_path: Path) -> None:
    syntax, video = stream(tmp_path, "H.264 elementary")
    data = video.read_bytes() + b"\0" * (video.stat().st_size % 2)
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", [data], syntax=syntax, **TAGS))
    dataset.PixelData = encapsulate([data], fragments_per_frame=7, has_bot=False)
    dataset.save_as(tmp_path / "a.dcm")
    assert [number_of(frame) for frame in open_cine(tmp_path / "a.dcm").frames()] == list(range(COUNT))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_was_cut_before_it_was_stored(tmp_path: Path, kind: str, share: float) -> None:
    syntax, video = stream(tmp_path, kind)
    data = video.read_bytes()
    path = write_dicom(tmp_path / "a.dcm", [data[: int(share * len(data))]], syntax=syntax, **TAGS)
    with pytest.raises(MediaError):
        list(open_cine(path).frames())


def test_a_file_cut_inside_its_stream(tmp_path: Path) -> None:
    syntax, video = stream(tmp_path, "MPEG-2 elementary")
    path = write_dicom(tmp_path / "a.dcm", [video.read_bytes()], syntax=syntax, **TAGS)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(MediaError, match="the file is cut: fragment 1 of the pixel data ends at byte") as caught:
        open_cine(path)
    assert caught.value.stage == "pixels"


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": COUNT + 1}, f"promises {COUNT + 1} frames, its video holds {COUNT}"),
        ({"Rows": 640}, "80 x 64 pixels, the header says 80 x 640"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation is 'CMYK'"),
    ],
)
def test_a_header_that_says_otherwise(tmp_path: Path, tags: dict[str, object], message: str) -> None:
    syntax, video = stream(tmp_path, "H.264 elementary")
    path = write_dicom(tmp_path / "a.dcm", [video.read_bytes()], syntax=syntax, **(TAGS | tags))
    with pytest.raises(MediaError, match=message):
        list(open_cine(path).frames())


def test_bytes_that_are_no_stream(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", [b"no video" * 40], syntax=uid.MPEG4HP41, **TAGS)
    with pytest.raises(MediaError, match="no video stream"):
        list(open_cine(path).frames())
