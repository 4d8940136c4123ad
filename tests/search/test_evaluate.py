from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.retrieval import Collection
from panecho_embed.retrieval import evaluate as evaluate_module
from panecho_embed.retrieval.evaluate import _class_values, _number_values, evaluate
from panecho_embed.retrieval.similarity import cosines
from panecho_embed.store import EmbeddingWriter
from tests.search.conftest import embed_films, make_films, vectors_file


def test_the_rate_of_chance_is_what_random_rankings_give():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [27, 9])
    runs = [_class_values(rng.permutation(labels), 1, np.arange(36)) for _ in range(4000)]
    achieved = np.array([run[0] for run in runs]).mean(axis=0)
    assert achieved == pytest.approx(runs[0][1], abs=0.02)


def test_a_perfect_ranking_scores_one():
    assert _class_values(np.array([1, 1, 0, 0, 0, 0, 0]), 1, np.arange(7))[0] == [1, 1, 1, 1]


def test_metrics_of_a_ranking_by_hand():
    achieved, _ = _class_values(np.array([0, 1, 0, 0, 0, 0, 1]), 1, np.arange(7))
    gain = 1 / np.log2(3) + 1 / np.log2(8)
    assert achieved == pytest.approx([0, 1, (1 / 2 + 2 / 7) / 2, gain / (1 + 1 / np.log2(3))])


def test_candidates_that_are_equally_alike_count_as_the_mean_over_their_orders():
    """Runs of 3, 1, 4 and 2; all orders within them are drawn at random."""
    rng = np.random.default_rng(0)
    starts, sizes = np.array([0, 3, 4, 8]), [3, 1, 4, 2]
    labels = np.array([0, 0, 1, 0, 1, 1, 0, 0, 0, 1])
    for one in (labels, 1 - labels, np.array([0] * 4 + [1, 0, 0, 0] + [0, 1])):
        expected = _class_values(one, 1, starts)[0]
        orders = [
            np.concatenate([rng.permutation(s) + b for s, b in zip(sizes, starts, strict=True)]) for _ in range(1500)
        ]
        drawn = [_class_values(one[order], 1, np.arange(10))[0] for order in orders]
        assert np.mean(drawn, axis=0) == pytest.approx(expected, abs=0.05)
        near = [_number_values(one[order] * 7.0, 2.0, np.arange(10))[0] for order in orders]
        assert np.mean(near, axis=0) == pytest.approx(_number_values(one * 7.0, 2.0, starts)[0], abs=0.15)


@pytest.mark.parametrize(("column", "level"), [("sex", "video"), ("EF", "video"), ("EF", "study")])
def test_equal_vectors_score_what_chance_does_whatever_their_order(tmp_path, column, level):
    values = np.ones((36, 6))
    collection = Collection(vectors_file(tmp_path / "same.h5", patients=12, dim=6, rows=1, values=values))
    result = evaluate(collection, column, level=level, draws=100)
    for name, score in result.scores.items():
        assert score.value == pytest.approx(result.chance[name], abs=1e-9)


def test_what_a_column_is_taken_as_is_said_and_can_be_asked_for(emb):
    collection = Collection(emb)
    taken, asked = evaluate(collection, "EF", include_same_patient=True), evaluate(collection, "EF", kind="number")
    assert (taken.kind, taken.why) == ("class", "it holds 5 different whole numbers")
    assert (asked.kind, asked.why) == ("number", "--as says so")
    assert "difference1" in asked.scores
    with pytest.raises(ArgumentError, match=r"'sex' holds texts, which are no numbers \(--as class\)"):
        evaluate(collection, "sex", kind="number")


def test_a_patients_takes_find_each_other_far_above_chance(tmp_path):
    """Two views, two takes each: random weights see the body, the window and the machine that takes share."""
    films = make_films(tmp_path, patients=8, loops={"A4C": 2, "PLAX": 2})
    result = evaluate(Collection(embed_films(films)), "patient_id", level="video")
    assert result.same_patient
    assert result.queries == 32
    assert result.scores["top1"].low > 4 * result.chance["top1"]
    assert result.scores["top1"].value > 0.5


@pytest.mark.parametrize("similarity", ["mean", "best", "view"])
def test_studies_of_a_patient_find_each_other(tmp_path, similarity):
    collection = Collection(vectors_file(tmp_path / "two.h5", studies=2, patients=10))
    result = evaluate(collection, "patient_id", level="study", similarity=similarity)
    assert result.scores["top1"].low > 3 * result.chance["top1"]


def test_the_own_video_is_never_a_neighbour_of_its_clips(emb):
    result = evaluate(Collection(emb), "patient_id", level="clip")
    assert result.queries == 36
    assert result.chance["top1"] == pytest.approx(4 / 34)


def test_numbers_are_compared_with_the_difference_to_anyone(emb):
    result = evaluate(Collection(emb), "EF", include_same_patient=True)
    assert result.kind == "class"  # ten whole numbers or fewer
    other = evaluate(Collection(emb), "fps")
    assert other.scores["top1"].value == 1


def test_a_continuous_column_has_a_mean_difference(film_emb):
    result = evaluate(Collection(film_emb), "EF", include_same_patient=True)
    assert result.kind == "number"
    assert result.scores["difference1"].value < 0.6 * result.chance["difference1"]


def test_the_result_as_a_dict_has_the_documented_keys(emb):
    plain = evaluate(Collection(emb), "sex", draws=100).to_dict()
    for name in ("top1", "top5", "map"):
        assert {"value", "low", "high", "chance"} <= plain[name].keys()
    assert plain["patients"] == 6


def test_a_column_that_does_not_exist_is_named_with_the_nearest(emb):
    with pytest.raises(ArgumentError, match="no column 'EFF'; nearest: EF"):
        evaluate(Collection(emb), "EFF")


def plain_top1_and_map(units, patients, labels, asked):
    """Top-1 and mean average precision by their definition, other patients' items ranked for some queries."""
    firsts, precisions = [], []
    for query in asked:
        others = np.flatnonzero(patients != patients[query])
        order = others[np.argsort(-(units[others] @ units[query]))]
        hits = np.flatnonzero(labels[order] == labels[query])
        firsts.append(hits[0] == 0)
        precisions.append(np.mean((np.arange(len(hits)) + 1) / (hits + 1)))
    return np.mean(firsts), np.mean(precisions)


def test_a_sample_of_a_large_collection_is_all_that_is_compared(tmp_path, monkeypatch):
    collection = Collection(vectors_file(tmp_path / "many.h5", patients=100, dim=12))
    compared = []

    def watched(queries, units):
        compared.append(len(queries))
        return cosines(queries, units)

    monkeypatch.setattr(evaluate_module, "MAX_QUERIES", 20)
    monkeypatch.setattr(evaluate_module, "_BLOCK_VALUES", 300 * 6)
    monkeypatch.setattr(evaluate_module, "cosines", watched)
    result = evaluate(collection, "sex", draws=100, seed=3)
    assert compared == [6, 6, 6, 2]
    assert (result.queries, result.left_out) == (20, 280)
    asked = np.sort(np.random.default_rng(3).choice(300, 20, replace=False))
    items = collection.videos
    top1, precision = plain_top1_and_map(items.units.astype(float), items.patients, items.columns["sex"], asked)
    assert result.scores["top1"].value == pytest.approx(top1)
    assert result.scores["map"].value == pytest.approx(precision)


def without_views(path, patients):
    """20 patients with a study each; the videos of some patients have no view."""
    views = [("", "") if i in patients else ("A4C", "PLAX") for i in range(20)]
    videos = tuple(
        VideoRef(f"P{i}/{j}", f"P{i}-S0", f"P{i}", "/nowhere", views[i][j]) for i in range(20) for j in (0, 1)
    )
    vectors = np.random.default_rng(0).normal(size=(40, 6))
    with EmbeddingWriter(path, Collection(vectors_file(path.with_name("as.h5"), dim=6)).provenance) as writer:
        for i, vector in enumerate(vectors):
            writer.add(i, vector[None], np.zeros(1, dtype=int), 1, 4)
        sex = np.array(["F" if i % 4 < 2 else "M" for i in range(40)], dtype=object)
        writer.finish(Manifest(videos, {"sex": sex}), [VideoFacts("done")] * 40, [])
    return Collection(path)


def test_studies_without_views_do_not_stop_the_others(tmp_path):
    some = evaluate(without_views(tmp_path / "some.h5", (4, 11)), "sex", level="study", similarity="view", draws=100)
    assert (some.queries, some.left_out) == (18, 2)
    assert some.note.startswith("2 of 20 could not be compared; the first is study P4-S0: the query's views are not")
    with pytest.raises(ArgumentError, match="none of the 20 study items can be compared by view"):
        evaluate(without_views(tmp_path / "none.h5", range(20)), "sex", level="study", similarity="view", draws=100)


@pytest.mark.parametrize(("level", "similarity"), [("video", None), ("study", "mean"), ("study", "best")])
def test_items_of_zeros_are_not_asked(tmp_path, level, similarity):
    values = np.random.default_rng(0).normal(size=(60, 6))
    values[30:33] = 0
    collection = Collection(vectors_file(tmp_path / "zeros.h5", patients=20, dim=6, rows=1, values=values))
    result = evaluate(collection, "EF", level=level, similarity=similarity, draws=100)
    assert result.queries == (54 if level == "video" else 18)
    assert "zeros" in result.note


def test_a_measure_of_studies_is_refused_for_videos(emb):
    with pytest.raises(ArgumentError, match="'best' compares studies"):
        evaluate(Collection(emb), "sex", similarity="best")


def test_labels_that_nobody_shares_can_not_be_evaluated(emb):
    with pytest.raises(ArgumentError, match="nothing to evaluate"):
        evaluate(Collection(emb), "video_id")
