from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from panecho_embed.core.errors import SettingsMismatchError, StoreError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import Manifest
from panecho_embed.store import EmbeddingFile, Parts, merge, verify
from tests.conftest import refs


def test_rows_stand_in_the_manifests_order(make_file, provenance, tmp_path):
    a, b, c, d = refs("a", "b", "c", "d")
    parts = [make_file("1.h5", [d, b], [2, 1]), make_file("2.h5", [c, a], [3, 1])]
    merge(parts, Manifest((a, b, c, d)), provenance, tmp_path / "out.h5")
    out = EmbeddingFile(tmp_path / "out.h5")
    assert verify(out.path) == []
    assert out.rows["video_id"].tolist() == ["a", "b", "c", "c", "c", "d", "d"]
    assert out.embeddings[:, 0].tolist() == [10, 10, 0, 1, 2, 0, 1]


def test_labels_and_ids_are_the_manifests(make_file, provenance, tmp_path):
    part = make_file("1.h5", refs("a"), [2])
    (moved,) = (dataclasses.replace(video, patient_id="p9", split="test") for video in refs("a"))
    merge([part], Manifest((moved,), {"EF": np.array([61.0])}), provenance, tmp_path / "out.h5")
    rows = EmbeddingFile(tmp_path / "out.h5").rows
    assert rows[["patient_id", "split", "EF"]].values.tolist() == [["p9", "test", 61.0]] * 2


def test_a_video_in_two_parts_is_taken_once(make_file, provenance, tmp_path):
    parts = [make_file("1.h5", refs("a", "b"), [2, 2]), make_file("2.h5", refs("b", "c"), [2, 2])]
    merge(parts, Manifest(refs("a", "b", "c")), provenance, tmp_path / "out.h5")
    assert EmbeddingFile(tmp_path / "out.h5").rows["video_id"].tolist() == ["a", "a", "b", "b", "c", "c"]


def test_the_last_word_on_a_video_counts(make_file, provenance, tmp_path):
    parts = [make_file("1.h5", refs("a", "b"), [2, 2]), make_file("2.h5", refs("b", "a"), [0, 1])]
    merge(parts, Manifest(refs("a", "b")), provenance, tmp_path / "out.h5")
    out = EmbeddingFile(tmp_path / "out.h5")
    assert out.video_columns["status"].tolist() == ["done", "failed"]
    assert out.embeddings[:, 0].tolist() == [10.0]


def test_a_failure_that_later_worked_is_no_failure(make_file, provenance, tmp_path):
    parts = [make_file("1.h5", refs("a", "b"), [2, 0]), make_file("2.h5", refs("b"), [1])]
    merge(parts, Manifest(refs("a", "b")), provenance, tmp_path / "out.h5")
    assert EmbeddingFile(tmp_path / "out.h5").failure_records() == []


def test_a_video_that_no_part_knows_stops_the_merge(make_file, provenance, tmp_path):
    with pytest.raises(StoreError, match=r"1 videos are in no part.*b"):
        merge([make_file("1.h5", refs("a"), [1])], Manifest(refs("a", "b")), provenance, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_part_of_other_settings_stops_the_merge(make_file, provenance, tmp_path):
    other = dataclasses.replace(provenance, feeding=Feeding(crop=112))
    with pytest.raises(SettingsMismatchError, match=r"feeding\.crop: 112, not 224"):
        merge([make_file("1.h5", refs("a"), [1])], Manifest(refs("a")), other, tmp_path / "out.h5")


def _with_parts(tmp_path, make_file, **parts):
    folder = tmp_path / "out.h5.parts"
    folder.mkdir(exist_ok=True)
    for name, (videos, rows) in parts.items():
        make_file(name, videos, rows).rename(folder / f"part-{name}.h5")
    return tmp_path / "out.h5"


def test_what_is_done_is_what_valid_parts_hold(tmp_path, make_file, provenance):
    out = _with_parts(tmp_path, make_file, one=(refs("a", "b"), [2, 0]), two=(refs("c"), [1]))
    broken = tmp_path / "out.h5.parts" / "part-two.h5"
    broken.write_bytes(broken.read_bytes()[:-9])
    with Parts(out) as parts:
        manifest = Manifest(refs("a", "b", "c", "d"))
        parts.begin(manifest, provenance)
        assert parts.todo(manifest) == [1, 2, 3]
        assert "part-two.h5 is damaged and was left out" in parts.notes[0]


def test_parts_of_other_settings_are_refused_by_field(tmp_path, make_file, provenance):
    out = _with_parts(tmp_path, make_file, one=(refs("a"), [2]))
    other = dataclasses.replace(provenance, precision="bf16")
    with Parts(out) as parts, pytest.raises(SettingsMismatchError, match=r"precision: bf16, not fp32.*--overwrite"):
        parts.begin(Manifest(refs("a")), other)


@pytest.mark.parametrize("finished", [True, False])
def test_videos_that_are_done_are_not_lost(tmp_path, make_file, provenance, finished):
    if finished:
        make_file("out.h5", refs("a", "b"), [1, 1])
    else:
        _with_parts(tmp_path, make_file, one=(refs("a", "b"), [1, 1]))
    with Parts(tmp_path / "out.h5") as parts, pytest.raises(StoreError, match="holds 1 videos that the input does not"):
        parts.begin(Manifest(refs("a", "c")), provenance)


def test_a_finished_file_grows(tmp_path, make_file, provenance):
    out = make_file("out.h5", refs("a", "b"), [1, 0])
    with Parts(out) as parts:
        manifest = Manifest(refs("c", "a", "b"))
        parts.begin(manifest, provenance)
        assert parts.todo(manifest) == [0, 2]
        new = parts.new_path()
        make_file("new.h5", refs("c", "b"), [2, 1]).rename(new)
        parts.written(EmbeddingFile(new))
        file = parts.finish(manifest, provenance)
    assert file.rows["video_id"].tolist() == ["c", "c", "a", "b"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


def test_a_finished_file_that_says_the_same_is_left_alone(tmp_path, make_file, provenance):
    out = make_file("out.h5", refs("a"), [1], {"EF": np.array([np.nan])})
    before = out.stat().st_mtime_ns
    for ef, changed in ((np.nan, False), (61.0, True)):
        with Parts(out) as parts:
            manifest = Manifest(refs("a"), {"EF": np.array([ef])})
            parts.begin(manifest, provenance)
            parts.finish(manifest, provenance)
        assert (out.stat().st_mtime_ns != before) == changed
    assert EmbeddingFile(out).labels["EF"].tolist() == [61.0]


def test_the_old_file_stays_until_the_new_one_takes_its_place(tmp_path, make_file, provenance):
    out = make_file("out.h5", refs("a"), [3])
    other = dataclasses.replace(provenance, precision="bf16")
    with Parts(out) as parts:
        parts.begin(Manifest(refs("a")), other, overwrite=True)
        assert parts.todo(Manifest(refs("a"))) == [0]
        assert len(EmbeddingFile(out)) == 3
        new = parts.new_path()
        make_file("new.h5", refs("a"), [1], provenance=other).rename(new)
    with Parts(out) as parts:
        parts.begin(Manifest(refs("a")), other, overwrite=True)
        assert parts.todo(Manifest(refs("a"))) == []
        assert len(parts.finish(Manifest(refs("a")), other)) == 1


def test_overwrite_takes_embedding_files_alone(tmp_path, provenance):
    (tmp_path / "out.h5").write_text("precious")
    with Parts(tmp_path / "out.h5") as parts, pytest.raises(StoreError, match=r"out\.h5"):
        parts.begin(Manifest(refs("a")), provenance, overwrite=True)
    assert (tmp_path / "out.h5").read_text() == "precious"


def test_one_run_at_a_time(tmp_path):
    with Parts(tmp_path / "out.h5") as first:
        with pytest.raises(StoreError, match="another run is writing"):
            Parts(tmp_path / "out.h5").__enter__()
        assert first.folder.is_dir()


def test_a_run_without_a_part_leaves_no_trace(tmp_path):
    with pytest.raises(KeyError), Parts(tmp_path / "out.h5"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_at_the_output_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is a folder"):
        Parts(tmp_path).__enter__()


def test_parts_that_interleave_are_gathered_block_by_block(make_file, provenance, tmp_path, monkeypatch):
    monkeypatch.setitem(merge.__globals__, "_BLOCK_BYTES", 4 * provenance.dim * 4)
    names = [f"v{i}" for i in range(12)]
    counts = [1, 3, 0, 2, 5, 1, 0, 0, 4, 1, 2, 6]
    parts = []
    for share in range(3):
        mine = range(share, 12, 3)
        parts.append(make_file(f"{share}.h5", refs(*(names[i] for i in mine)), [counts[i] for i in mine]))
    merge(parts, Manifest(refs(*names)), provenance, tmp_path / "out.h5")
    assert verify(tmp_path / "out.h5") == []
    out = EmbeddingFile(tmp_path / "out.h5")
    rows = [(name, 10 * (i // 3) + row) for i, name in enumerate(names) for row in range(counts[i])]
    assert list(zip(out.rows["video_id"], out.embeddings[:, 0], strict=True)) == rows
    assert out.row_columns["first_frame"].tolist() == [row for count in counts for row in range(count)]
