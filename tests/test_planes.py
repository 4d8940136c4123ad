"""Which planes make a picture, and how many pictures the clips of a video share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.planes import frame_planes, pictures_of
from panecho_embed.models.panecho import clip_pictures


def planes(*pairs: tuple[int, int]) -> list[int]:
    """(channel, frame) of every plane, as one number each."""
    return [3 * frame + channel for channel, frame in pairs]


def test_the_published_pictures_of_one_clip():
    made = pictures_of([np.arange(16)[None]], 16, "published")
    in_order = made.planes[made.clips[0][0]]
    assert in_order.shape == (16, 3)
    assert in_order[0].tolist() == planes((0, 0), (0, 1), (0, 2))
    assert in_order[5].tolist() == planes((0, 15), (1, 0), (1, 1))
    assert in_order[10].tolist() == planes((1, 14), (1, 15), (2, 0))
    assert in_order[15].tolist() == planes((2, 13), (2, 14), (2, 15))


def test_a_frame_is_a_picture_for_every_other_model():
    clips = np.array([[0, 2, 4], [1, 3, 5]])
    made = pictures_of([clips], 7, "frames")
    assert made.planes.tolist() == frame_planes(7).tolist() == np.arange(21).reshape(7, 3).tolist()
    assert made.clips[0].tolist() == clips.tolist()


def test_a_clip_of_distinct_planes_ends_in_exactly_the_published_pictures():
    """Every plane of the clip has a value of its own; a plain reshape, as released, says where each ends."""
    length = 16
    values = torch.arange(3 * length).reshape(length, 3)
    x = values.T[None, :, :, None, None].expand(1, 3, length, 2, 2)
    expected = x.reshape(length, 3, 2, 2)[:, :, 0, 0]
    made = pictures_of([np.arange(length)[None]], length, "published")
    assert values.reshape(-1)[made.planes[made.clips[0][0]]].tolist() == expected.tolist()
    assert clip_pictures(x, "published")[:, :, 0, 0].tolist() == expected.tolist()
    assert clip_pictures(x, "frames")[:, :, 0, 0].tolist() == values.tolist()


clips_of_eight = st.integers(1, 9).flatmap(
    lambda length: arrays(np.int64, st.tuples(st.integers(1, 5), st.just(length)), elements=st.integers(0, 7))
)


@given(st.lists(clips_of_eight, min_size=1, max_size=3))
def test_pictures_are_those_of_every_clip_and_none_twice(several):
    made = pictures_of(several, 8, "published")
    assert len(np.unique(made.planes, axis=0)) == len(made.planes)
    used = np.concatenate([clips.reshape(-1) for clips in made.clips])
    assert set(used.tolist()) == set(range(len(made.planes)))
    values = torch.arange(24).reshape(8, 3)
    for clips, positions in zip(several, made.clips, strict=True):
        assert positions.shape == clips.shape
        x = values[torch.from_numpy(clips)].transpose(1, 2)[..., None, None]
        expected = clip_pictures(x, "published")[:, :, 0, 0]
        assert values.reshape(-1)[made.planes[positions.reshape(-1)]].tolist() == expected.tolist()


@pytest.mark.parametrize(("stride", "new"), [(1, 5), (2, 8), (3, 5), (4, 14), (6, 8), (8, 16), (16, 16)])
def test_windows_share_what_they_truly_share(stride, new):
    """New pictures for each further window of 16 in the long run; a wrap-around picture belongs to one clip."""

    def count(windows: int) -> int:
        frames = 16 + stride * (windows - 1)
        clips = ClipPlan(num_clips=None, stride=stride).indices(frames)
        assert len(clips) == windows
        return len(pictures_of([clips], frames, "published").planes)

    assert (count(60) - count(40)) / 20 == new
    assert count(1) == 16


def test_several_plans_share_pictures():
    """Of the second plan's 4 clips, two are among those of the first."""
    one, other = ClipPlan(num_clips=4).indices(76), ClipPlan(num_clips=2).indices(76)
    together, alone = pictures_of([one, other], 76, "published"), pictures_of([one], 76, "published")
    assert together.planes.tolist() == alone.planes.tolist()
    assert [clips.shape for clips in together.clips] == [(4, 16), (2, 16)]


def test_padded_frames_make_pictures_too():
    clips = ClipPlan().indices(3)
    made = pictures_of([clips], 3, "published")
    # Of 15 repeats of the last frame, picture 1 to 4 of channel 0 are one, and so on.
    assert len(made.planes) < 16
    assert made.planes[made.clips[0][0, 1]].tolist() == planes((0, 2), (0, 2), (0, 2))
