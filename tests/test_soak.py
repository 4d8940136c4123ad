from __future__ import annotations

import pytest

from tests.soak import Run, soak


def test_the_computing_of_each_quarter_is_told_apart():
    times = [10.0, *(11.0 + i for i in range(4)), *(16.0 + 2 * i for i in range(12))]
    run = Run(parts={f"part-{i}": (seconds, 5) for i, seconds in enumerate(times)})
    assert run.quarters() == [0.2, 0.4, 0.4, 0.4]


@pytest.mark.slow
def test_two_thousand_videos_need_no_more_memory_than_a_hundred_and_none_is_lost(tmp_path):
    _, _, problems = soak(tmp_path, 2000)
    assert problems == []
