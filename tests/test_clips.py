from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.clips import PADDING, ClipPlan, OneClip, resolve_plan
from panecho_embed.core.errors import ArgumentError, MediaError, NotACineError

plans = st.builds(
    ClipPlan,
    frames_per_clip=st.integers(1, 40),
    frame_step=st.integers(1, 5),
    num_clips=st.integers(1, 9),
    short=st.sampled_from(["repeat", "wrap"]),
)
strides = st.builds(
    ClipPlan,
    frames_per_clip=st.integers(1, 40),
    num_clips=st.none(),
    stride=st.integers(1, 20),
    short=st.just("repeat"),
)
rates = st.builds(
    ClipPlan,
    frames_per_clip=st.integers(1, 40),
    frame_step=st.none(),
    target_fps=st.floats(5, 120),
    short=st.sampled_from(["repeat", "wrap"]),
)


@given(st.one_of(plans, strides, rates), st.integers(1, 400), st.floats(1, 200))
def test_every_index_is_a_frame_of_the_video_and_no_clip_comes_twice(plan, num_frames, fps):
    indices = plan.indices(num_frames, fps)
    assert indices.shape[1] == plan.frames_per_clip
    assert len(indices) >= 1
    assert indices.min() >= 0
    assert indices.max() < num_frames
    assert len(np.unique(indices[:, 0])) == len(indices)


@given(st.one_of(plans, strides, rates), st.integers(1, 400), st.floats(1, 200))
def test_the_used_frames_are_those_of_all_clips(plan, num_frames, fps):
    assert np.flatnonzero(plan.used(num_frames, fps)).tolist() == np.unique(plan.indices(num_frames, fps)).tolist()


@given(plans, st.integers(1, 400))
def test_clips_of_a_long_video_are_evenly_spaced_and_reach_both_ends(plan, extra):
    span = (plan.frames_per_clip - 1) * plan.frame_step + 1
    starts = plan.starts(span + extra)
    if plan.num_clips == 1:
        assert starts.tolist() == [extra // 2]
    else:
        assert starts[0] == 0
        assert starts[-1] == extra
        exact = np.linspace(0, extra, plan.num_clips)
        assert set(starts) == {int(np.floor(value + 0.5 + 1e-9)) for value in exact}


@given(plans, st.integers(1, 200))
def test_frames_of_a_clip_are_a_step_apart_while_the_video_lasts(plan, extra):
    span = (plan.frames_per_clip - 1) * plan.frame_step + 1
    indices = plan.indices(span + extra)
    assert (np.diff(indices, axis=1) == plan.frame_step).all()


@given(strides, st.integers(1, 300))
def test_a_stride_gives_every_window_that_fits(plan, num_frames):
    last = max(num_frames - plan.frames_per_clip, 0)
    assert plan.starts(num_frames).tolist() == list(range(0, last + 1, plan.stride))


def test_more_clips_than_starts_are_every_start():
    assert ClipPlan(num_clips=10**15).starts(30).tolist() == list(range(15))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (None, ClipPlan(frames_per_clip=32)),
        ({}, ClipPlan(frames_per_clip=32)),
        ({"stride": 4}, ClipPlan(frames_per_clip=32, num_clips=None, stride=4)),
        ({"target_fps": 30.0}, ClipPlan(frames_per_clip=32, frame_step=None, target_fps=30.0)),
        ({"frames_per_clip": 8}, ClipPlan(frames_per_clip=8)),
        (ClipPlan(frames_per_clip=5), ClipPlan(frames_per_clip=5)),
    ],
)
def test_changes_are_to_the_plan_of_the_model(changes, expected):
    assert resolve_plan(changes, ClipPlan(frames_per_clip=32)) == expected


def test_one_of_two_ways_to_say_it_takes_the_place_of_the_other():
    default = ClipPlan(frames_per_clip=8, frame_step=None, target_fps=25.0, num_clips=None, stride=4)
    changed = resolve_plan({"frame_step": 2, "num_clips": 3}, default)
    assert changed == ClipPlan(frames_per_clip=8, frame_step=2, num_clips=3)


def test_a_change_of_no_field_lists_them():
    with pytest.raises(ArgumentError, match=r"strid.*allowed: frames_per_clip"):
        resolve_plan({"strid": 4}, ClipPlan())


def test_four_clips_of_thirty_frames():
    assert ClipPlan().starts(30).tolist() == [0, 5, 9, 14]


def test_a_short_video_repeats_its_last_frame():
    plan = ClipPlan(frames_per_clip=6)
    assert plan.indices(4).tolist() == [[0, 1, 2, 3, 3, 3]]


def test_a_short_video_wraps_around():
    plan = ClipPlan(frames_per_clip=6, short="wrap")
    assert plan.indices(4).tolist() == [[0, 1, 2, 3, 0, 1]]


def test_a_short_video_is_skipped_with_a_reason():
    plan = ClipPlan(frames_per_clip=6, short="skip")
    assert plan.indices(5).shape == (0, 6)
    with pytest.raises(NotACineError, match="5 frames; a clip needs 6"):
        plan.require(5)
    assert len(plan.require(6)) == 1


def test_a_target_rate_takes_the_nearest_frame():
    plan = ClipPlan(frames_per_clip=5, frame_step=None, target_fps=30)
    assert plan.indices(100, fps=50)[0].tolist() == [0, 2, 3, 5, 7]
    assert plan.indices(100, fps=60)[0].tolist() == [0, 2, 4, 6, 8]
    assert plan.indices(100, fps=15)[0].tolist() == [0, 1, 1, 2, 2]


def test_a_target_rate_without_the_videos_own_is_an_error_that_says_so():
    with pytest.raises(MediaError, match=r"own rate is not known.*--frame-step"):
        ClipPlan(frame_step=None, target_fps=30).indices(100)


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ({"frames_per_clip": 0}, "--frames-per-clip"),
        ({"frames_per_clip": 10**9}, "--frames-per-clip"),
        ({"frame_step": 2**62}, "--frame-step"),
        ({"frame_step": None, "target_fps": 1e-18}, "--fps"),
        ({"frame_step": 0}, "--frame-step"),
        ({"frame_step": 1, "target_fps": 30.0}, "--fps"),
        ({"frame_step": None, "target_fps": -1.0}, "--fps"),
        ({"num_clips": 0}, "--clips"),
        ({"num_clips": 2, "stride": 3}, "--stride"),
        ({"num_clips": None, "stride": 0}, "--stride"),
        ({"short": "pad"}, "--short"),
    ],
)
def test_a_bad_plan_names_the_flag(arguments, flag):
    with pytest.raises(ArgumentError, match=flag):
        ClipPlan(**arguments)


@given(plans, st.integers(1, 90), st.floats(0, 1, exclude_max=True))
def test_one_clip_from_anywhere_lies_in_the_video_as_the_plan_lays_it(plan, count, position):
    clip = OneClip(plan, position).indices(count)
    assert clip.shape == (1, plan.frames_per_clip)
    assert (clip[0] == plan.indices_from(clip[:, 0], count)[0]).all()


def test_one_clip_begins_at_every_possible_start_alike_often():
    plan = ClipPlan(frames_per_clip=4)
    starts = [int(OneClip(plan, i / 700).starts(10)[0]) for i in range(700)]
    assert sorted(set(starts)) == list(range(7))
    assert {starts.count(start) for start in range(7)} == {100}


def test_one_clip_of_a_video_that_is_too_short():
    assert OneClip(ClipPlan(frames_per_clip=4), 0.9).indices(2).tolist() == [[0, 1, 1, 1]]
    with pytest.raises(NotACineError):
        OneClip(ClipPlan(frames_per_clip=4, short="skip"), 0.9).require(2)


ECHOPRIME = ClipPlan(16, 2, num_clips=1, start=0, short="zeros")


def test_a_clip_with_a_start_begins_there_and_zeros_fill_it_up():
    assert ECHOPRIME.indices(100).tolist() == [list(range(0, 32, 2))]
    assert ECHOPRIME.indices(5).tolist() == [[0, 2, 4, *[PADDING] * 13]]
    assert ECHOPRIME.used(5).tolist() == [True, False, True, False, True]
    assert OneClip(ECHOPRIME, 0.9).indices(100).tolist() == [list(range(0, 32, 2))]
    late = ClipPlan(2, num_clips=1, start=3, short="repeat")
    assert late.indices(4).tolist() == [[3, 3]]
    with pytest.raises(NotACineError, match=r"3 frames; its clip would start at frame 3 \(--start\)"):
        late.require(3)


def test_several_clips_take_the_place_of_one_with_a_start():
    assert resolve_plan({"num_clips": 4}, ECHOPRIME).start is None
    assert resolve_plan({"stride": 8}, ECHOPRIME).start is None
    assert resolve_plan({"frame_step": 1}, ECHOPRIME).start == 0
    assert resolve_plan({"start": 2}, ClipPlan()) == ClipPlan(num_clips=1, start=2)
    with pytest.raises(ArgumentError, match=r"start is 0 with num_clips 4.*--start, --clips 1"):
        ClipPlan(start=0)


@pytest.mark.parametrize(
    ("plan", "num_frames", "padded"),
    [
        (ClipPlan(16, 4), 24, (10, 16)),
        (ClipPlan(16, 4, short="wrap"), 24, (10, 16)),
        (ClipPlan(16, 4, short="skip"), 24, (0, 0)),
        (ClipPlan(16, 1), 24, (0, 64)),
        (ClipPlan(16, frame_step=None, uniform=True), 10, (6, 16)),
        (ClipPlan(16, frame_step=None, uniform=True), 64, (0, 64)),
    ],
)
def test_frames_beyond_the_end_of_a_short_video_are_counted_as_padding(plan, num_frames, padded):
    assert plan.padding(num_frames) == padded
