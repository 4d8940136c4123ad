"""Frames and facts of a video are of one state of its file, or there are none."""

from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import MediaError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import Failure, Origin, VideoRef
from panecho_embed.extraction import decode
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings, decode_video
from panecho_embed.media import Cine
from tests.test_extraction import moving

SMALL = Feeding(resize=32, crop=32)


def with_lengths(monkeypatch, tmp_path, claimed, *lengths):
    """A video that has so many frames at its first reading, its second, and so on."""
    readings = iter(lengths)
    cine = Cine("v.npy", "array", 30.0, "test", None, claimed, lambda: iter(moving(next(readings))))
    monkeypatch.setattr(decode, "open_cine", lambda path, include_stills: cine)
    (tmp_path / "v.npy").touch()
    return VideoRef("v", "s", "p", str(tmp_path / "v.npy"))


@pytest.mark.parametrize("digest", [True, False])
def test_a_file_that_is_replaced_while_it_is_read_is_a_failure(monkeypatch, tmp_path, digest):
    path = tmp_path / "v.npy"
    np.save(path, moving(20))
    read = decode._needed_frames

    def replaced(*arguments):
        found = read(*arguments)
        np.save(path, moving(40, seed=1))
        return found

    monkeypatch.setattr(decode, "_needed_frames", replaced)
    video, settings = VideoRef("v", "s", "p", str(path)), DecodeSettings(SMALL, (ClipPlan(),), digest=digest)
    failure = decode_video(video, settings)
    assert failure == Failure("v", str(path), "open", "the file changed while it was read")
    monkeypatch.undo()
    assert decode_video(video, settings).facts.num_frames == 40


def test_a_number_of_frames_that_changes_at_every_reading_is_a_failure(monkeypatch, tmp_path):
    video = with_lengths(monkeypatch, tmp_path, 40, 50, 60)
    failure = decode_video(video, DecodeSettings(SMALL, (ClipPlan(frames_per_clip=4),)))
    assert failure == Failure("v", video.path, "decode", "its number of frames changes from reading to reading")


def test_of_a_video_of_unknown_length_only_the_needed_frames_are_kept(monkeypatch, tmp_path):
    video = with_lengths(monkeypatch, tmp_path, None, 200, 200)
    monkeypatch.setattr(decode, "_MOST_BYTES", 100 * 3 * 32 * 32)
    decoded = decode_video(video, DecodeSettings(SMALL, (ClipPlan(),)))
    assert isinstance(decoded, DecodedVideo)
    assert (decoded.facts.num_frames, len(decoded.pixels)) == (200, len(np.unique(ClipPlan().indices(200))))


@pytest.mark.parametrize(
    ("clips", "way_out"), [(None, "a smaller --image-size"), (ClipPlan(num_clips=None, stride=1), "fewer clips")]
)
def test_too_many_frames_for_memory_say_what_to_take(monkeypatch, tmp_path, clips, way_out):
    video = with_lengths(monkeypatch, tmp_path, 200, 200)
    monkeypatch.setattr(decode, "_MOST_BYTES", 100 * 3 * 32 * 32)
    assert decode_video(video, DecodeSettings(SMALL, None if clips is None else (clips,))).message.endswith(
        f"or take {way_out}"
    )


def test_more_frames_than_allowed_are_a_failure_of_their_own_stage(monkeypatch, tmp_path):
    for most, fits in ((49, False), (50, True)):
        video = with_lengths(monkeypatch, tmp_path, 200, 200)
        settings = DecodeSettings(SMALL, (ClipPlan(num_clips=1, frames_per_clip=50),), most_frames=most)
        assert isinstance(decode_video(video, settings), DecodedVideo) is fits
    video = with_lengths(monkeypatch, tmp_path, 200, 200)
    failure = decode_video(video, DecodeSettings(SMALL, None, most_frames=49))
    assert (failure.stage, failure.message) == ("frames", "more than 49 of its frames would have to be encoded")


@pytest.mark.parametrize(
    ("name", "says", "told"),
    [
        ("JANE DOE.dcm", "{path}: frame 1 of 10 of JANE DOE.dcm", "OPAQUE: frame 1 of 10 of OPAQUE"),
        ("JÄNE's \udcff.dcm", "cannot read {path!r} ({name!r})", 'cannot read "OPAQUE" ("OPAQUE")'),
        ("JÄNE.dcm", "cannot read {path!a} ({name!a})", "cannot read 'OPAQUE' ('OPAQUE')"),
        # A name of one letter stands everywhere.
        ("1", "{path}: frame 1 of 10, 16 bits", "OPAQUE: frame 1 of 10, 16 bits"),
    ],
)
def test_messages_name_no_file_whose_ids_are_opaque(monkeypatch, tmp_path, name, says, told):
    path = tmp_path / name
    path.write_bytes(b"x")

    def refused(path, include_stills):
        raise MediaError(says.format(path=str(path), name=name), stage="open")

    monkeypatch.setattr(decode, "open_cine", refused)
    video = VideoRef("v", "s", "p", "OPAQUE", origin=Origin("v", "s", "p", str(path)))
    assert decode_video(video, DecodeSettings(SMALL, None)) == Failure("v", "OPAQUE", "open", told)
