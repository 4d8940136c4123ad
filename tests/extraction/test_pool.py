from __future__ import annotations

import os
import signal

import psutil
import pytest

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import Failure, VideoRef
from panecho_embed.extraction import pool
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings
from tests.extraction import stubs

SETTINGS = DecodeSettings(Feeding(), (ClipPlan(),))


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    monkeypatch.setattr(pool, "decode_video", stubs.decode)


def videos(*paths):
    return [(i, VideoRef(f"v{i}", "s", "p", path)) for i, path in enumerate(paths)]


def outcomes(paths, workers=2, timeout=60.0):
    with pool.decoded(videos(*paths), SETTINGS, workers, timeout) as results:
        return list(results)


def test_results_come_in_the_order_of_the_videos():
    found = outcomes(["sleep 0.4", "ok", "sleep 0.2", *["ok"] * 8])
    assert [position for position, _ in found] == list(range(11))
    assert all(isinstance(outcome, DecodedVideo) for _, outcome in found)


def test_a_decoder_that_dies_costs_one_video():
    found = outcomes(["ok", "die", "ok", "ok"])
    assert [type(outcome) for _, outcome in found] == [DecodedVideo, Failure, DecodedVideo, DecodedVideo]
    assert "process died 2 times" in found[1][1].message


def test_a_decoder_that_hangs_costs_one_video():
    found = outcomes(["ok", "sleep 60", "ok"], timeout=1.0)
    assert [type(outcome) for _, outcome in found] == [DecodedVideo, Failure, DecodedVideo]
    assert "longer than 1 s (--timeout)" in found[1][1].message


def test_workers_that_are_killed_while_they_wait_cost_nothing():
    """What the system does when memory runs out, and what breaks a pool as a whole."""
    # The limit is on no trial here: on a busy machine new workers take long to start.
    paths = ["ok"] * 40
    found = []
    with pool.decoded(videos(*paths), SETTINGS, 2, 600.0) as results:
        for position, outcome in results:
            found.append((position, type(outcome)))
            if position in (5, 15, 25):
                for child in psutil.Process().children(recursive=True):
                    if "spawn_main" in " ".join(child.cmdline()):
                        os.kill(child.pid, signal.SIGKILL)
    assert found == [(i, DecodedVideo) for i in range(40)]


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_a_time(timeout):
    with pytest.raises(ArgumentError, match="--timeout"):
        outcomes(["ok"], timeout=timeout)


def test_workers_give_way_to_the_encoder():
    with pool.decoded(videos(*["sleep 0.3"] * 4), SETTINGS, 1, 60.0) as results:
        next(results)
        priorities = [
            child.nice() for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())
        ]
        list(results)
    assert priorities == [19]


def test_work_that_is_no_longer_wanted_ends_while_a_decoder_still_works():
    def go_on():
        raise KeyError("not wanted")

    with pytest.raises(KeyError), pool.decoded(videos("sleep 60"), SETTINGS, 1, 60.0, go_on) as results:
        next(results)
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not any("spawn_main" in " ".join(words) for words in left)
