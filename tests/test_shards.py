"""A job array over one folder of parts ends with the file of a single run."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.core.shards import Shard
from panecho_embed.datasets import read_manifest
from panecho_embed.extraction.merging import merge
from panecho_embed.extraction.run import extract
from panecho_embed.store import EmbeddingFile, Parts, verify
from tests.datasets.test_folder import write_dicom
from tests.test_extraction import moving
from tests.tiny import tiny


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "studies"
    folder.mkdir()
    for i in range(10):
        np.save(folder / f"v{i}.npy", moving(18 + i, seed=i))
    (folder / "broken.avi").write_text("no video")
    return folder


def shard(studies, out, which, **arguments):
    return extract(studies, out, backbone=tiny(), workers=0, shard=Shard.parse(which), **arguments)


def contents(path):
    """Every value of an embedding file, as bytes."""
    file = EmbeddingFile(path)
    tables = [file.row_columns, file.video_columns, file.labels, {c: file.failures[c] for c in file.failures}]
    columns = {name: np.asarray(column).tolist() for table in tables for name, column in table.items()}
    return repr(columns), file.embeddings.tobytes(), file.settings_id


@pytest.fixture(scope="module")
def single(studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("single") / "out.h5"
    extract(studies, out, backbone=tiny(), workers=0)
    return contents(out)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_in_any_order_make_the_file_of_one_run(studies, single, tmp_path, order):
    out = tmp_path / "out.h5"
    summaries = [shard(studies, out, f"{i}/3") for i in order]
    assert not out.exists()
    assert sum(summary.videos for summary in summaries) == 11
    assert sorted(summary.exit_code for summary in summaries) == [0, 0, 3]
    summary = merge(out)
    assert (summary.exit_code, summary.videos, summary.done) == (3, 11, 10)
    assert verify(out) == []
    assert contents(out) == single
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


# Imports once and forks, as imports take longer than the work.
TOGETHER = """
import os, sys
import cv2, torch
torch.set_num_threads(1)
cv2.setNumThreads(1)
from tests.test_shards import shard
for i in range(1, 5):
    if os.fork() == 0:
        code = 1
        try:
            shard(sys.argv[1], sys.argv[2], f"{i}/4")
            code = 0
        finally:
            os._exit(code)
print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)])
"""


def test_shards_at_the_same_time(studies, single, tmp_path):
    out = tmp_path / "out.h5"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = [sys.executable, "-c", TOGETHER, str(studies), str(out)]
    result = subprocess.run(code, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.split() == ["[0,", "0,", "0,", "0]"], result.stderr
    merge(out)
    assert contents(out) == single


def test_a_shard_that_died_is_named_and_goes_on(studies, single, tmp_path):
    out = tmp_path / "out.h5"
    shard(studies, out, "1/2")
    with pytest.raises(StoreError, match=r"neither done nor failed.*shard 2/2 \(\d videos\)"):
        merge(out)
    half = shard(studies, out, "2/2")
    parts = sorted((tmp_path / "out.h5.parts").glob("part-*-2of2.h5"))
    parts[0].unlink()
    again = shard(studies, out, "2/2")
    assert (half.reused, again.reused) == (0, 0)
    merge(out)
    assert contents(out) == single


def test_a_shard_that_has_done_its_share_does_nothing(studies, tmp_path):
    first = shard(studies, tmp_path / "out.h5", "1/2")
    again = shard(studies, tmp_path / "out.h5", "1/2")
    assert again.reused == first.done
    assert (again.rows, again.videos) == (first.rows, first.videos)


def test_the_command_without_shard_does_what_is_left(studies, single, tmp_path):
    out = tmp_path / "out.h5"
    done = shard(studies, out, "2/3").done
    assert extract(studies, out, backbone=tiny(), workers=0).reused == done
    assert contents(out) == single


def test_another_number_of_shards_goes_on_where_the_first_was(studies, single, tmp_path):
    out = tmp_path / "out.h5"
    done = shard(studies, out, "1/3").done
    assert sum(shard(studies, out, f"{i}/2").reused for i in (1, 2)) == done
    merge(out)
    assert contents(out) == single


def test_merging_twice_changes_nothing(studies, tmp_path):
    out = tmp_path / "out.h5"
    shard(studies, out, "1/1")
    merge(out)
    before = out.read_bytes()
    assert merge(out).rows == 39
    late = shard(studies, out, "1/1")
    assert late.done == late.reused == 10
    assert out.read_bytes() == before
    assert merge(out).rows == 39


def test_nothing_to_merge(tmp_path):
    with pytest.raises(StoreError, match="nothing to merge"):
        merge(tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []


def test_shards_of_other_settings_are_refused(studies, tmp_path):
    shard(studies, tmp_path / "out.h5", "1/2")
    with pytest.raises(SettingsMismatchError, match=r"another shard.*dtype: float16, not float32"):
        shard(studies, tmp_path / "out.h5", "2/2", dtype="float16")


def test_shards_of_another_input_are_refused(studies, tmp_path):
    # Ids of their own: those made of paths could leave one of the shards without a video.
    table = tmp_path / "list.csv"
    for _ in range(2):
        table.write_text("path,video_id,EF\n" + "".join(f"{studies}/v{i}.npy,v{i}.npy,{50 + i}\n" for i in range(4)))
        shard(table, tmp_path / "out.h5", "1/2")
        table.write_text("path,video_id,EF\n" + "".join(f"{studies}/v{i}.npy,v{i}.npy,{50 + i}\n" for i in range(5)))
        with pytest.raises(SettingsMismatchError, match=r"1 videos are not in its list, for example .*v4\.npy"):
            shard(table, tmp_path / "out.h5", "2/2")
    table.write_text("path,video_id,EF\n" + "".join(f"{studies}/v{i}.npy,v{i}.npy,60\n" for i in range(4)))
    with pytest.raises(SettingsMismatchError, match="labels or the order of the videos differ"):
        shard(table, tmp_path / "out.h5", "2/2")


def test_overwriting_by_shards(studies, tmp_path):
    out = tmp_path / "out.h5"
    extract(studies, out, backbone=tiny(), workers=0, dtype="float16")
    for i in (1, 2, 1):
        shard(studies, out, f"{i}/2", overwrite=True)
        assert EmbeddingFile(out).dtype == np.float16
    merge(out)
    assert EmbeddingFile(out).dtype == np.float32
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


def test_ids_of_headers_are_the_same_in_all_shards_that_start_together(tmp_path):
    for name in "abcd":
        write_dicom(tmp_path / "in" / name)

    def read(_):
        return [video.video_id for video in read_manifest(tmp_path / "in", local=tmp_path / "out.h5.ids.csv").videos]

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(read, range(8))
    assert all(ids == first for ids in others)


def test_a_shard_that_fails_early_leaves_no_trace(studies, tmp_path):
    with pytest.raises(ArgumentError):
        shard(studies, tmp_path / "out.h5", "1/2", dtype="float8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("1/2", "1/2", r"another run of shard 1/2 is writing .*out\.h5; wait"),
        ("1/2", None, r"shard 1/2 is writing .*out\.h5"),
        (None, "1/2", r"a run that is no shard is writing .*out\.h5"),
        ("1/2", "1/3", r"shard 1/2, of another number of shards, is writing"),
    ],
)
def test_who_may_not_write_at_the_same_time(tmp_path, monkeypatch, first, second, message):
    monkeypatch.setattr("panecho_embed.store.lock._MOMENT_SECONDS", 0.1)
    monkeypatch.setattr("panecho_embed.store.lock._PATIENCE_SECONDS", 0.1)
    one, other = (Parts(tmp_path / "out.h5", shard=name and Shard.parse(name)) for name in (first, second))
    with one:
        with pytest.raises(StoreError, match=message), other:
            pass
        with Parts(tmp_path / "out.h5", shard=Shard(2, 2)) if first == "1/2" else Parts(tmp_path / "else.h5"):
            pass
    with other:
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/3", "1/3/4", ""])
def test_shards_that_are_none(text):
    with pytest.raises(ArgumentError, match="--shard"):
        Shard.parse(text)


@given(st.text(min_size=1), st.integers(1, 20))
def test_every_video_belongs_to_one_shard(video_id, count):
    assert sum(Shard(i, count).takes(video_id) for i in range(1, count + 1)) == 1


def test_shares_are_of_like_size():
    sizes = np.bincount([Shard.of(f"p{i}/s/v.dcm", 8).index for i in range(8000)])[1:]
    assert sizes.min() > 880
    assert sizes.max() < 1120


@pytest.mark.parametrize("damage", [lambda kept: kept[:60], lambda kept: kept[:60] + bytes(40) + kept[100:]])
def test_a_damaged_list_of_videos_is_named(studies, tmp_path, damage):
    shard(studies, tmp_path / "out.h5", "1/2")
    kept = tmp_path / "out.h5.parts" / ".videos.jsonl.gz"
    kept.write_bytes(damage(kept.read_bytes()))
    with pytest.raises(StoreError, match=r"the list of videos beside the parts in .* is damaged"):
        shard(studies, tmp_path / "out.h5", "2/2")
