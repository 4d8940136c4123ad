from __future__ import annotations

import pytest

from tests.soak import soak


@pytest.mark.slow
def test_two_thousand_videos_need_no_more_memory_than_a_hundred_and_none_is_lost(tmp_path):
    _, _, problems = soak(tmp_path, 2000)
    assert problems == []
