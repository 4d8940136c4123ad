from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.retrieval.approximate import Effort, nearest, recipe, trained, tune
from panecho_embed.retrieval.similarity import unit


def itself(position):
    return np.array([position])


def found_of_ten(index, units, queries, effort):
    """Share of the ten nearest others that are among the candidates."""
    found = nearest(index, units[queries], Effort(effort.lists, effort.candidates + 1))
    cosines = units[queries] @ units.T
    cosines[np.arange(len(queries)), queries] = -2
    truth = np.argsort(-cosines, axis=1)[:, :10]
    return np.mean([np.isin(true, one).mean() for true, one in zip(truth, found, strict=True)])


@pytest.fixture(scope="module")
def clustered():
    """8000 vectors of 32 numbers around 400 centres."""
    rng = np.random.default_rng(0)
    units = unit(np.repeat(rng.normal(size=(400, 32)), 20, axis=0) + 0.3 * rng.normal(size=(8000, 32)))
    return units, trained(recipe(8000, 32), units, 0)


@pytest.mark.parametrize("recall", [0.8, 0.99])
def test_the_recall_that_was_asked_for_is_found_by_other_queries(clustered, recall):
    units, index = clustered
    tuned = tune(index, units, itself, recall, 0)
    assert tuned.worthwhile
    assert tuned.recall >= recall - 0.02
    others = np.random.default_rng(9).choice(8000, 300, replace=False)
    assert found_of_ten(index, units, others, tuned.effort) == pytest.approx(tuned.recall, abs=0.02)


def test_more_recall_takes_more_effort(clustered):
    units, index = clustered
    less, more = (tune(index, units, itself, recall, 0).effort for recall in (0.7, 0.99))
    assert (less.lists, less.candidates) < (more.lists, more.candidates)


def test_lists_do_not_help_where_neighbours_are_spread_evenly():
    units = unit(np.random.default_rng(0).normal(size=(4000, 32)))
    index = trained(recipe(4000, 32), units, 0)
    assert not tune(index, units, itself, 0.99, 0).worthwhile


def test_what_is_left_out_is_no_neighbour(clustered):
    units, index = clustered
    whole = tune(index, units, lambda position: np.arange(position // 20 * 20, position // 20 * 20 + 20), 0.9, 0)
    # A vector's own cluster is left out: its nearest lie in others, and take more lists.
    assert whole.effort.lists > tune(index, units, itself, 0.9, 0).effort.lists


def test_only_allowed_vectors_are_found(clustered):
    units, index = clustered
    allowed = np.arange(8000) % 3 == 0
    found = nearest(index, units[:2], Effort(400, 50), allowed)
    assert allowed[found].all()
    for query, one in zip(units[:2], found, strict=True):
        assert len(set(np.argsort(-(units @ query) + 9 * ~allowed)[:10]) - set(one)) <= 1


def test_more_neighbours_take_more_lists_and_candidates_in_proportion():
    assert Effort(7, 64).for_neighbours(25) == Effort(18, 160)
    assert Effort(7, 64).for_neighbours(3) == Effort(7, 64)


@pytest.mark.parametrize(("videos", "dim", "text"), [(10**6, 768, "IVF2048,PQ384x4fsr"), (20, 7, "IVF1,PQ7x4fsr")])
def test_lists_grow_with_the_root_of_the_videos(videos, dim, text):
    assert recipe(videos, dim) == text


@pytest.fixture(scope="module")
def wide():
    """8000 vectors around 400 centres whose clusters overlap, and the effort that 90 % of their neighbours take."""
    rng = np.random.default_rng(0)
    units = unit(np.repeat(rng.normal(size=(400, 32)), 20, axis=0) + 0.6 * rng.normal(size=(8000, 32)))
    return units, tune(trained(recipe(8000, 32), units, 0), units, itself, 0.9, 0)


@pytest.mark.parametrize("added", ["240 zeros", "400 equal vectors"])
def test_neither_zeros_nor_equal_vectors_change_the_effort(wide, added):
    units, clean = wide
    more = np.zeros((240, 32), np.float32) if added == "240 zeros" else np.repeat(units[:1], 400, axis=0)
    units = np.concatenate([units, more])
    tuned = tune(trained(recipe(8000, 32), units, 0), units, itself, 0.9, 0)
    assert tuned.effort == clean.effort
    # The standard error of a mean over 200 queries, of two such; equal vectors all find each other.
    assert tuned.recall == pytest.approx(clean.recall, abs=0.03)


def test_zeros_alone_are_refused():
    units = np.zeros((40, 8), np.float32)
    with pytest.raises(ArgumentError, match=r"all embeddings are zeros.*--kind exact"):
        tune(trained(recipe(40, 8), units, 0), units, itself, 0.9, 0)
