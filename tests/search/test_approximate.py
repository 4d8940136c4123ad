from __future__ import annotations

import faiss
import numpy as np
import pytest

from panecho_embed.search import approximate
from panecho_embed.search.approximate import FaissIndex, recipe, trained, write
from panecho_embed.search.similarity import unit


@pytest.fixture(scope="module")
def units():
    return unit(np.random.default_rng(0).normal(size=(4000, 16)))


class NoFilter:
    """Searches as a GPU's copy of an index does: a filter is ignored."""

    def __init__(self, index):
        self._index = index
        self.nlist = index.nlist
        self.asked = []
        self.lists = []

    def search(self, queries, count, params):
        self.asked.append(count)
        self.lists.append(params.nprobe)
        return self._index.search(queries, count, params=faiss.SearchParametersIVF(nprobe=params.nprobe))


@pytest.fixture
def index(units, tmp_path, monkeypatch):
    """An index whose copy on the "GPU" is one on the CPU that knows no filter."""
    factory, _ = recipe("ivf", 4000, 16)
    write(trained("ivf", factory, units, 0), tmp_path / "index.faiss")
    monkeypatch.setattr(approximate, "on_gpu", lambda kind, built: NoFilter(built))
    return FaissIndex(tmp_path / "index.faiss", "ivf", 1000)


def test_what_the_gpu_can_not_filter_is_filtered_afterwards(index, units):
    allowed = np.ones(4000, dtype=bool)
    allowed[::3] = False
    found = index.candidates(units[:2], 50, allowed)
    assert allowed[found].all()
    for query in units[:2]:
        nearest = np.argsort(-(units @ query) - 9 * allowed)[:50]
        assert set(nearest) <= set(found)


def test_a_filter_that_leaves_the_gpu_too_little_goes_to_the_cpu(index, units):
    allowed = np.zeros(4000, dtype=bool)
    allowed[::200] = True
    found = index.candidates(units[:1], 20, allowed)
    assert index._gpu.asked == [2048]
    assert found.tolist() == list(range(0, 4000, 200))


def test_the_gpu_is_asked_for_no_more_than_it_can_give(index, units):
    index.candidates(units[:1], 1500, np.ones(4000, dtype=bool))
    assert index._gpu.asked == [2048]


def test_a_filter_makes_the_gpu_look_in_every_list(index, units):
    index._visits = 3
    index.candidates(units[:1], 10, np.ones(4000, dtype=bool))
    allowed = np.arange(4000) % 2 == 0
    found = index.candidates(units[:1], 10, allowed)
    assert index._gpu.lists == [3, index._gpu.nlist]
    assert index._gpu.asked == [20, 40]
    nearest = np.argsort(-(units @ units[0]) - 9 * allowed)[:10]
    assert set(nearest) <= set(found)


def test_a_filter_over_more_lists_than_a_gpu_can_be_asked_for_goes_to_the_cpu(index, units):
    index._gpu.nlist = 4096
    allowed = np.arange(4000) % 2 == 0
    found = index.candidates(units[:1], 10, allowed)
    assert index._gpu.asked == []
    assert found.tolist() == sorted(np.argsort(-(units @ units[0]) - 9 * allowed)[:10])


def test_without_a_gpu_everything_stays_on_the_cpu(units):
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this faiss is built for a GPU")
    assert approximate.on_gpu("ivf", faiss.index_factory(16, "IVF8,Flat")) is None
