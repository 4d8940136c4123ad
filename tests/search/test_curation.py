from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.retrieval import Collection, curation
from panecho_embed.retrieval.collection import Items
from panecho_embed.retrieval.curation import duplicates, outliers
from tests.search.conftest import vectors_file


def videos(path, values):
    values = np.asarray(values, dtype=float)
    file = vectors_file(path, patients=len(values), views=("A4C",), dim=values.shape[1], rows=1, values=values)
    return Collection(file).videos


def test_chains_of_near_vectors_are_one_group(tmp_path):
    angles = np.deg2rad([0, 8, 16, 90, 91, 180])
    items = videos(tmp_path / "a.h5", np.column_stack([np.cos(angles), np.sin(angles)]))
    groups = duplicates(items, np.cos(np.deg2rad(9)))
    assert [group.positions.tolist() for group in groups] == [[0, 1, 2], [3, 4]]
    assert groups[0].lowest == pytest.approx(np.cos(np.deg2rad(8)), abs=1e-6)
    assert groups[0].patients == 3


def test_groups_do_not_depend_on_the_block_they_fall_in(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    items = videos(tmp_path / "a.h5", rng.normal(size=(40, 3)))
    whole = [group.positions.tolist() for group in duplicates(items, 0.95)]
    monkeypatch.setattr(curation, "_BLOCK", 7)
    assert [group.positions.tolist() for group in duplicates(items, 0.95)] == whole
    assert len(whole) > 1


def test_equal_vectors_are_found_at_one(tmp_path):
    items = videos(tmp_path / "a.h5", [[1, 2, 3], [0, 1, 0], [10, 20, 30], [0, 0, 0], [0, 0, 0]])
    assert [group.positions.tolist() for group in duplicates(items, 1.0)] == [[0, 2]]


def test_clips_of_one_video_are_no_duplicates(tmp_path):
    values = np.eye(4)
    values[3] = values[1]
    clips = Collection(vectors_file(tmp_path / "a.h5", patients=4, views=("A4C",), dim=4, values=values)).clips
    assert [group.positions.tolist() for group in duplicates(clips, 0.95)] == [[2, 3, 6, 7]]
    assert (
        duplicates(Items("clip", clips.ids[:6], clips.units[:6], {k: v[:6] for k, v in clips.columns.items()}), 0.95)
        == []
    )


def test_the_odd_one_comes_first(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 6)) * 0.1 + [1, 0, 0, 0, 0, 0]
    values[7] = [-1, 0.5, 0, 0, 0, 0]
    items = videos(tmp_path / "a.h5", values)
    found = outliers(items, 3)
    assert found[0]["video_id"] == "P7/S0/A4C"
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert found[0]["distance"] > found[1]["distance"]


def test_a_twin_of_the_same_patient_hides_no_outlier(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(16, 6)) * 0.1 + [1, 0, 0, 0, 0, 0]
    values[4:6] = [-1, 0.5, 0, 0, 0, 0]
    path = vectors_file(tmp_path / "a.h5", patients=8, views=("A4C", "A2C"), dim=6, rows=1, values=values)
    assert {row["patient_id"] for row in outliers(Collection(path).videos, 2)} == {"P2"}


def test_more_outliers_than_items_gives_them_all(tmp_path):
    assert len(outliers(videos(tmp_path / "a.h5", np.eye(4)), 99)) == 4


def test_bad_arguments_are_refused(tmp_path):
    items = videos(tmp_path / "a.h5", np.eye(4))
    with pytest.raises(ArgumentError, match="between -1 and 1"):
        duplicates(items, 1.5)
    with pytest.raises(ArgumentError, match="1 or more"):
        outliers(items, 0)
