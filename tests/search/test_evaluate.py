from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.errors import ArgumentError
from panecho_embed.search import Collection
from panecho_embed.search.evaluate import _class_values, evaluate
from tests.search.conftest import embed_films, make_films, vectors_file


def test_the_rate_of_chance_is_what_random_rankings_give():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [27, 9])
    runs = [_class_values(rng.permutation(labels), 1) for _ in range(4000)]
    achieved = np.array([run[0] for run in runs]).mean(axis=0)
    assert achieved == pytest.approx(runs[0][1], abs=0.02)


def test_a_perfect_ranking_scores_one():
    assert _class_values(np.array([1, 1, 0, 0, 0, 0, 0]), 1)[0] == [1, 1, 1, 1]


def test_metrics_of_a_ranking_by_hand():
    achieved, _ = _class_values(np.array([0, 1, 0, 0, 0, 0, 1]), 1)
    gain = 1 / np.log2(3) + 1 / np.log2(8)
    assert achieved == pytest.approx([0, 1, (1 / 2 + 2 / 7) / 2, gain / (1 + 1 / np.log2(3))])


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


def test_labels_that_nobody_shares_can_not_be_evaluated(emb):
    with pytest.raises(ArgumentError, match="nothing to evaluate"):
        evaluate(Collection(emb), "video_id")
