"""The two ways through the heaps of a file find the same faults."""

from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.store.heaps import _walk, _walk_one_by_one
from tests.conftest import refs


@pytest.fixture
def data(make_file):
    path = make_file("x.h5", refs(*(f"p/s/v{i}" for i in range(40))), rows=[1] * 40)
    return np.fromfile(path, np.uint8)


def heaps_in(data):
    content = data.tobytes()
    starts = [i for i in range(len(content) - 16) if content[i : i + 4] == b"GCOL"]
    return np.array(starts, dtype=np.int64)


def verdict(walk, data, heaps):
    try:
        walk(data, heaps)
    except ValueError as error:
        return str(error)
    return "whole"


def test_a_whole_file_is_whole(data):
    heaps = heaps_in(data)
    assert len(heaps)
    assert verdict(_walk_one_by_one, data, heaps) == verdict(_walk, data, heaps) == "whole"


@pytest.mark.parametrize("heap", [-1, 8, 1 << 40])
def test_a_place_where_no_heap_is(data, heap):
    heaps = np.array([heap], dtype=np.int64)
    assert verdict(_walk_one_by_one, data, heaps) == verdict(_walk, data, heaps) != "whole"


def test_damage_is_found_alike(data):
    heaps = heaps_in(data)[:1]
    start = int(heaps[0])
    places = np.random.default_rng(0).integers(start, start + 2000, 400)
    found = set()
    for place in places:
        damaged = data.copy()
        damaged[place] ^= 0xFF
        one, other = verdict(_walk_one_by_one, damaged, heaps), verdict(_walk, damaged, heaps)
        assert one == other
        found.add(one)
    assert len(found) >= 3
