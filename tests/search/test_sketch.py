from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panecho_embed.search import Collection, search, study_query
from panecho_embed.search import find as find_module
from panecho_embed.search.similarity import Groups, best_match, top, unit
from panecho_embed.search.sketch import Sketch, best_by_bound
from tests.search.conftest import vectors_file

VIEWS = np.array(["A4C", "A2C", "PLAX", ""], dtype=object)


def bags(kind: str, studies: int, dim: int, seed: int) -> tuple[np.ndarray, Groups, np.ndarray]:
    """Unit vectors of studies of 1 to 8 videos, their rows mixed, their groups and views.

    kind: patients around views, noise, with zeros, with pairs of nearly opposite videos, whose mean is short, or with
    pairs that cancel out.
    """
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(studies), rng.integers(1, 9, studies))
    values = 0.3 * rng.normal(size=(len(codes), dim))
    shown = rng.integers(0, 4, len(codes))
    if kind != "noise":
        own = rng.normal(size=(studies, 4)) @ rng.normal(size=(4, dim))
        values += rng.normal(size=(4, dim))[shown] + 0.3 * own[codes]
    if kind == "zeros":
        values[rng.random(len(codes)) < 0.2] = 0
    if kind in ("opposite", "cancelled"):
        values[1::2] = -values[:-1:2] + (0.1 * values[1::2] if kind == "opposite" else 0)
        shown[1::2] = shown[:-1:2]
    order = rng.permutation(len(codes))
    return unit(values[order]), Groups.of(codes[order]), VIEWS[shown[order]]


def plain(units: np.ndarray, groups: Groups, query: np.ndarray) -> np.ndarray:
    """The best matches by their definition, study by study, in double precision; 0 for a study of zeros alone."""
    scores = []
    for study in range(len(groups)):
        videos = units[groups.members(study)].astype(float)
        pairs = query.astype(float) @ videos[videos.any(axis=1)].T
        scores.append((pairs.max(axis=1).mean() + pairs.max(axis=0).mean()) / 2 if pairs.size else 0)
    return np.array(scores)


def plain_views(units: np.ndarray, groups: Groups, views: np.ndarray, query: np.ndarray, shown: np.ndarray):
    """The similarities view by view, by their definition; NaN where no view is common."""

    def mean(rows: np.ndarray) -> np.ndarray:
        middle = rows.astype(float).mean(axis=0)
        length = np.linalg.norm(middle)
        return middle / length if length > 0 else middle

    scores = np.full(len(groups), np.nan)
    for study in range(len(groups)):
        rows = groups.members(study)
        rows = rows[units[rows].any(axis=1)]
        common = (set(shown) & set(views[rows])) - {""}
        if common:
            scores[study] = np.mean([mean(query[shown == v]) @ mean(units[rows][views[rows] == v]) for v in common])
    return scores


@pytest.mark.parametrize("measure", ["best", "view"])
@pytest.mark.parametrize("kind", ["patients", "noise", "zeros", "opposite"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 500), videos=st.integers(1, 9))
def test_the_best_by_the_sketch_are_the_best_by_the_definition(kind, measure, seed, k, videos):
    units, groups, views = bags(kind, 300, 48, seed)
    rng = np.random.default_rng(seed)
    there = np.flatnonzero(units.any(axis=1) & (views != ""))
    rows = there[rng.choice(len(there), videos, replace=False)]
    query, shown = units[rows], views[rows]
    allowed = rng.random(300) < 0.8
    by_view = plain_views(units, groups, views, query, shown)
    expected = plain(units, groups, query) if measure == "best" else by_view
    found, scores = Sketch(units, groups, views).search(query, shown, measure, k, allowed)
    assert len(found) == min(k, (allowed & ~np.isnan(expected)).sum())
    assert allowed[found].all()
    assert scores == pytest.approx(expected[found], abs=2e-6)
    assert scores == pytest.approx(expected[top(expected, k, allowed)], abs=2e-6)


@pytest.mark.parametrize("kind", ["patients", "noise", "zeros", "opposite", "cancelled"])
def test_no_study_is_better_than_its_bound(kind):
    units, groups, views = bags(kind, 400, 64, 3)
    sketch = Sketch(units, groups, views)
    for study in range(0, 400, 20):
        rows = groups.members(study)[:1]
        query, shown = units[rows], np.array(["A4C"], dtype=object)
        assert (sketch.best_bounds(query) >= plain(units, groups, query)).all()
        if query.any():
            expected = plain_views(units, groups, views, query, shown)
            there = ~np.isnan(expected)
            assert (sketch.view_bounds(query, shown)[there] >= expected[there]).all()
            assert np.isnan(sketch.view_bounds(query, shown)[~there]).all()


def test_few_studies_are_compared_in_full():
    units, groups, views = bags("patients", 3000, 96, 0)
    sketch = Sketch(units, groups, views)
    query = units[groups.members(7)]
    bounds, compared = sketch.best_bounds(query), []
    best_by_bound(bounds, np.ones(3000, dtype=bool), 5, lambda s: (compared.extend(s), best_match(
        units[groups.rows(s)], groups.subset(groups.rows(s))[1], query))[1])  # fmt: skip
    assert len(set(compared)) == len(compared) < 600


def test_equal_scores_stand_in_order_of_position():
    scores = np.array([0.5, 0.9, 0.5, 0.9, 0.5, 0.1], dtype=np.float32)
    for slack in (0, 0.3, 1):
        found, values = best_by_bound(scores + np.float32(slack), np.arange(6) != 2, 4, lambda s: scores[s])
        assert found.tolist() == [1, 3, 0, 4]
        assert values.tolist() == scores[found].tolist()


def test_nothing_allowed_finds_nothing():
    units, groups, views = bags("patients", 100, 16, 0)
    for measure in ("best", "view"):
        found, scores = Sketch(units, groups, views).search(units[:2], VIEWS[:2], measure, 5, np.zeros(100, dtype=bool))
        assert len(found) == len(scores) == 0


@pytest.mark.parametrize("similarity", ["best", "view"])
def test_a_sketched_collection_answers_as_any_other(tmp_path, monkeypatch, similarity):
    path = vectors_file(tmp_path / "many.h5", patients=700, studies=1, dim=32, rows=1)
    plainly, sketched = Collection(path), Collection(path, sketched=True)
    asked = {"k": 7, "similarity": similarity, "where": "EF > 50"}
    wanted = [search(plainly, study_query(plainly, f"P{i}-S0"), **asked).records() for i in (1, 300, 699)]
    for everything in ("best_match", "view_similarity"):
        monkeypatch.setattr(find_module, everything, lambda *_: pytest.fail("everything was compared"))
    found = [search(sketched, study_query(sketched, f"P{i}-S0"), **asked).records() for i in (1, 300, 699)]
    assert found == wanted
