"""Where the time went: it adds up, and it can be drawn."""

from __future__ import annotations

import os
import time

from panecho_embed.extraction.profile import MAIN_STAGES, Profile, draw_timeline
from panecho_embed.extraction.run import extract
from panecho_embed.phantoms import write_studies
from tests.tiny import tiny


def profiled(tmp_path, workers):
    write_studies(tmp_path / "studies", layout="echonet-dynamic", patients=3, num_frames=24)
    profile = Profile()
    extract(tmp_path / "studies", tmp_path / "out.h5", backbone=tiny(), workers=workers, profile=profile)
    return profile, time.perf_counter() - profile.started


def test_stages_of_this_process_add_up_to_no_more_than_the_wall(tmp_path):
    profile, wall = profiled(tmp_path, workers=1)
    main = sum(profile.seconds[stage] for stage in MAIN_STAGES)
    assert 0.5 * wall < main <= wall
    assert profile.seconds["decode"] > 0
    assert profile.seconds["resize"] > 0
    assert len(profile.workers) == 1
    assert os.getpid() not in profile.workers


def test_decoding_in_this_process_is_no_waiting(tmp_path):
    profile, wall = profiled(tmp_path, workers=0)
    assert profile.workers == {os.getpid()}
    assert 0 <= profile.seconds["wait"] < profile.seconds["decode"] + profile.seconds["resize"] < wall
    lines = [line.split()[0] for line in profile.table().splitlines()]
    assert lines == ["decode", "resize", *MAIN_STAGES, "other", "wall"]


def test_the_timeline_is_a_picture(tmp_path):
    profile, _ = profiled(tmp_path, workers=1)
    draw_timeline(profile, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
