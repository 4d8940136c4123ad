from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.extraction.pooling import pool, pool_table
from panecho_embed.store import EmbeddingFile, verify
from tests.conftest import refs


@pytest.fixture
def clips(make_file):
    videos = refs("p/s/a", "p/s/b", "q/t/c", "q/u/d")
    labels = {
        "EF": np.array([50.0, 60.0, np.nan, 40.0]),
        "sex": np.array(["f", "f", "", "m"], dtype=object),
        "dilated": np.array([1.0, 0.0, 1.0, np.nan]),
        "site": np.array(["x", "y", "", ""], dtype=object),
    }
    return make_file("x.h5", videos, [3, 1, 2, 0], labels)


def test_clips_to_videos(clips):
    pooled = pool_table(EmbeddingFile(clips).table(), "video")
    assert pooled.video_id.tolist() == ["a", "b", "c"]
    assert pooled.values[:, 0].tolist() == [1.0, 10.0, 20.5]
    assert pooled.level == "video"


def test_a_long_video_does_not_outvote_a_short_one(clips):
    pooled = pool_table(EmbeddingFile(clips).table(), "study")
    assert pooled.study_id.tolist() == ["s", "t"]
    assert pooled.values[:, 0].tolist() == [5.5, 20.5]


def test_mean_and_std_stand_side_by_side(clips):
    pooled = pool_table(EmbeddingFile(clips).table(), "video", "mean+std")
    assert pooled.values.shape == (3, 10)
    np.testing.assert_allclose(pooled.values[0, [0, 5]], [1.0, np.std([0, 1, 2])], rtol=1e-6)


def test_max(clips):
    assert pool_table(EmbeddingFile(clips).table(), "study", "max").values[:, 0].tolist() == [10.0, 21.0]


def test_labels_of_a_study_are_their_common_value(clips):
    pooled = pool_table(EmbeddingFile(clips).table(), "study")
    np.testing.assert_array_equal(pooled.labels["EF"], [55.0, np.nan])
    np.testing.assert_array_equal(pooled.labels["dilated"], [np.nan, 1.0])
    assert pooled.labels["sex"].tolist() == ["f", ""]
    assert pooled.labels["site"].tolist() == ["", ""]


def test_rows_need_not_stand_together(clips):
    table = EmbeddingFile(clips).table()
    order = np.array([4, 0, 3, 2, 5, 1])
    shuffled = type(table)(
        values=table.values[order],
        **{name: getattr(table, name)[order] for name in ("video_id", "study_id", "patient_id", "view", "split")},
        **{name: getattr(table, name)[order] for name in ("first_frame", "frame_step", "frames_per_clip")},
        labels={name: column[order] for name, column in table.labels.items()},
        level=table.level,
        provenance=table.provenance,
    )
    pooled = pool_table(shuffled, "video")
    assert dict(zip(pooled.video_id, pooled.values[:, 0], strict=True)) == {"a": 1.0, "b": 10.0, "c": 20.5}


def test_a_pooled_level_can_not_be_pooled_again(clips):
    pooled = pool_table(EmbeddingFile(clips).table(), "study")
    with pytest.raises(ArgumentError, match="study level already"):
        pool_table(pooled, "video")


@pytest.mark.parametrize(("by", "ids"), [("video", ["a", "b", "c"]), ("study", ["s", "t"])])
def test_the_pooled_file_is_whole_and_remembers_failures(clips, tmp_path, by, ids):
    out = EmbeddingFile(pool(clips, by, tmp_path / "pooled.h5"))
    assert verify(out.path) == []
    assert out.level == by
    assert out.rows["video_id"].tolist() == ids
    assert len(out.failures) == 1
    assert out.provenance.pooling == ("mean by video" if by == "video" else "mean by video; mean by study")


def test_an_output_is_not_replaced_unasked(clips, tmp_path):
    (tmp_path / "pooled.h5").write_text("precious")
    with pytest.raises(StoreError, match="--overwrite"):
        pool(clips, "video", tmp_path / "pooled.h5")
    pool(clips, "video", tmp_path / "pooled.h5", overwrite=True)
    assert verify(tmp_path / "pooled.h5") == []


@pytest.mark.parametrize("by", ["video", "study"])
@pytest.mark.parametrize("how", ["mean", "mean+std", "max"])
def test_blocks_of_rows_give_the_same_as_all_at_once(make_file, monkeypatch, by, how):
    path = make_file("y.h5", refs("p/s/a", "p/t/b", "q/s/c", "q/t/d"), [3, 1, 5, 2])
    at_once = pool_table(EmbeddingFile(path).table(), by, how)
    monkeypatch.setattr("panecho_embed.extraction.pooling._BLOCK_ROWS", 4)
    file = EmbeddingFile(path)
    in_blocks = pool_table(file.table_without_values(), by, how, file.rows_on_disk)
    np.testing.assert_array_equal(in_blocks.values, at_once.values)
    assert in_blocks.values.dtype == at_once.values.dtype == np.float32
    assert in_blocks.provenance == at_once.provenance
