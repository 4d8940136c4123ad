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


def bags(kind: str, studies: int, dim: int, seed: int) -> tuple[np.ndarray, Groups]:
    """Unit vectors of studies of 1 to 8 videos, their rows mixed: patients around views, noise, or with zeros."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(studies), rng.integers(1, 9, studies))
    values = 0.3 * rng.normal(size=(len(codes), dim))
    if kind != "noise":
        own = rng.normal(size=(studies, 4)) @ rng.normal(size=(4, dim))
        values += rng.normal(size=(4, dim))[rng.integers(0, 4, len(codes))] + 0.3 * own[codes]
    if kind == "zeros":
        values[rng.random(len(codes)) < 0.2] = 0
    order = rng.permutation(len(codes))
    return unit(values[order]), Groups.of(codes[order])


def plain(units: np.ndarray, groups: Groups, query: np.ndarray) -> np.ndarray:
    """The definition, study by study, in double precision."""
    scores = []
    for study in range(len(groups)):
        pairs = query.astype(float) @ units[groups.members(study)].astype(float).T
        scores.append((pairs.max(axis=1).mean() + pairs.max(axis=0).mean()) / 2)
    return np.array(scores)


@pytest.mark.parametrize("kind", ["patients", "noise", "zeros"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 500), videos=st.integers(1, 9))
def test_the_best_by_the_sketch_are_the_best_by_the_definition(kind, seed, k, videos):
    units, groups = bags(kind, 300, 48, seed)
    rng = np.random.default_rng(seed)
    query = units[rng.choice(len(units), videos)]
    allowed = rng.random(300) < 0.8
    found, scores = Sketch(units, groups).best_match(query, k, allowed)
    expected = plain(units, groups, query)
    assert len(found) == min(k, allowed.sum())
    assert allowed[found].all()
    assert scores == pytest.approx(expected[found], abs=2e-6)
    assert scores == pytest.approx(expected[top(expected, k, allowed)], abs=2e-6)


@pytest.mark.parametrize("kind", ["patients", "noise", "zeros"])
def test_no_study_is_better_than_its_bound(kind):
    units, groups = bags(kind, 400, 64, 3)
    sketch = Sketch(units, groups)
    for study in range(0, 400, 20):
        query = units[groups.members(study)]
        assert (sketch.bounds(query) >= plain(units, groups, query)).all()


def test_few_studies_are_compared_in_full():
    units, groups = bags("patients", 3000, 96, 0)
    sketch = Sketch(units, groups)
    query = units[groups.members(7)]
    bounds, compared = sketch.bounds(query), []
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
    units, groups = bags("patients", 100, 16, 0)
    found, scores = Sketch(units, groups).best_match(units[:2], 5, np.zeros(100, dtype=bool))
    assert len(found) == len(scores) == 0


def test_a_sketched_collection_answers_as_any_other(tmp_path, monkeypatch):
    path = vectors_file(tmp_path / "many.h5", patients=700, studies=1, dim=32, rows=1)
    plainly, sketched = Collection(path), Collection(path, sketched=True)
    wanted = [search(plainly, study_query(plainly, f"P{i}-S0"), 7, similarity="best", where="EF > 50").records()
              for i in (1, 300, 699)]  # fmt: skip
    monkeypatch.setattr(find_module, "best_match", lambda *_: pytest.fail("everything was compared"))
    found = [search(sketched, study_query(sketched, f"P{i}-S0"), 7, similarity="best", where="EF > 50").records()
             for i in (1, 300, 699)]  # fmt: skip
    assert found == wanted
