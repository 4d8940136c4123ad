from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import ArgumentError
from panecho_embed.retrieval.similarity import (
    Groups,
    best_match,
    cosines,
    mean_similarity,
    query_unit,
    top,
    unit,
    view_means,
    view_similarity,
)


@pytest.fixture
def bags():
    """5 studies of 1 to 4 videos, their rows shuffled, as unit vectors, groups and views."""
    rng = np.random.default_rng(1)
    codes = rng.permutation(np.repeat(np.arange(5), [1, 2, 3, 4, 2]))
    units = unit(rng.normal(size=(len(codes), 6)))
    views = np.array([("A4C", "PLAX", "")[i % 3] for i in range(len(codes))], dtype=object)
    return units, Groups.of(codes), views


@given(st.integers(0, 2**32), st.floats(1e-30, 1e30))
def test_a_vector_is_similar_to_itself_by_one_whatever_its_length(seed, length):
    vector = np.random.default_rng(seed).normal(size=(1, 768)) * length
    units = unit(vector)
    assert cosines(units, units)[0, 0] == pytest.approx(1, abs=1e-6)
    assert cosines(units, units)[0, 0] <= 1


def test_a_vector_of_zeros_is_similar_to_nothing():
    units = unit(np.array([[0.0, 0.0], [1.0, 2.0]]))
    assert cosines(units, units)[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.ones(3), "have 4 numbers"),
        (np.array([1, np.nan, 0, 0]), "not finite"),
        (np.full(4, 1e300), "not finite"),
        (np.ones((2, 2, 4)), "have 4 numbers"),
        (np.array(["a"] * 4), "have 4 numbers"),
        (np.ones((0, 4)), "have 4 numbers"),
    ],
)
def test_a_query_that_is_no_vector_is_refused(values, says):
    with pytest.raises(ArgumentError, match=says):
        query_unit(values, 4, "q.npy")


def test_every_measure_gives_one_for_a_study_and_itself(bags):
    units, groups, views = bags
    for study in range(len(groups)):
        rows = groups.members(study)
        query = units[rows]
        assert mean_similarity(groups.mean(units), query)[study] == pytest.approx(1, abs=1e-6)
        assert best_match(units, groups, query)[study] == pytest.approx(1, abs=1e-6)
        known = views[rows] != ""
        if known.any():
            means = view_means(units, groups, views)
            found = view_similarity(means, len(groups), query, views[rows])
            assert found[study] == pytest.approx(1, abs=1e-6)


def test_measures_agree_with_loops_over_pairs(bags):
    units, groups, views = bags
    query, query_views = units[groups.members(3)], views[groups.members(3)]
    for study in range(len(groups)):
        other = units[groups.members(study)]
        pairs = query @ other.T
        assert best_match(units, groups, query)[study] == pytest.approx(
            (pairs.max(axis=1).mean() + pairs.max(axis=0).mean()) / 2, abs=1e-6
        )
        a, b = query.mean(axis=0), other.mean(axis=0)
        expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert mean_similarity(groups.mean(units), query)[study] == pytest.approx(expected, abs=1e-6)
        shared = (set(query_views) & set(views[groups.members(study)])) - {""}
        found = view_similarity(view_means(units, groups, views), len(groups), query, query_views)[study]
        parts = []
        for view in shared:
            a = query[query_views == view].mean(axis=0)
            b = other[views[groups.members(study)] == view].mean(axis=0)
            parts.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert np.isnan(found) if not parts else found == pytest.approx(np.mean(parts), abs=1e-6)


def test_best_match_is_the_same_both_ways(bags):
    units, groups, _ = bags
    there = best_match(units, groups, units[groups.members(1)])[3]
    back = best_match(units, groups, units[groups.members(3)])[1]
    assert there == pytest.approx(back, abs=1e-6)


def test_views_that_nobody_knows_can_not_be_compared(bags):
    units, groups, views = bags
    with pytest.raises(ArgumentError, match="views are not known"):
        view_similarity(view_means(units, groups, views), len(groups), units[:2], np.array(["", ""], dtype=object))


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, np.nan]), max_size=12), st.integers(1, 14))
def test_top_is_a_stable_sort_cut_short(scores, k):
    values = np.array(scores, dtype=np.float32)
    known = [i for i in range(len(values)) if not np.isnan(values[i])]
    assert top(values, k).tolist() == sorted(known, key=lambda i: (-values[i], i))[:k]
