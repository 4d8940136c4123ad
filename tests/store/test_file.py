from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.records import Failure, Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingFile, EmbeddingWriter, verify
from panecho_embed.store.contents import SealedFile
from tests.conftest import refs
from tests.resealed import reseal, reseal_attributes


def test_what_was_written_is_read(make_file, provenance):
    labels = {"EF": np.array([55.0, np.nan, 30.0]), "view/angle": np.array(["a", "", "ü"], dtype=object)}
    path = make_file("x.h5", refs("p/s/a", "p/s/b", "q/t/c"), [2, 0, 3], labels)
    file = EmbeddingFile(path)
    assert verify(path) == []
    assert len(file) == 5
    assert file.provenance == provenance
    assert file.embeddings[:, 0].tolist() == [0, 1, 20, 21, 22]
    assert file.rows["video_id"].tolist() == ["a", "a", "c", "c", "c"]
    assert file.rows["patient_id"].tolist() == ["p", "p", "q", "q", "q"]
    assert file.rows["view/angle"].tolist() == ["a", "a", "ü", "ü", "ü"]
    assert file.videos["status"].tolist() == ["done", "failed", "done"]
    np.testing.assert_array_equal(file.labels["EF"], labels["EF"])
    assert file.failures.to_dict("records") == [
        {"video_id": "b", "path": "/data/b.avi", "stage": "decode", "message": "broken"}
    ]
    table = file.table()
    assert table.labels["EF"].tolist() == [55.0, 55.0, 30.0, 30.0, 30.0]
    assert table.first_frame.tolist() == [0, 1, 0, 1, 2]


def test_h5py_alone_is_enough(make_file):
    path = make_file("x.h5", refs("a", "b"), [1, 2], {"EF": np.array([50.0, 60.0])})
    with h5py.File(path) as file:
        rows = file["rows/video"][:]
        ids = file["videos/video_id"].asstr()[:][rows]
        assert ids.tolist() == ["a", "b", "b"]
        assert file["embeddings"].shape == (3, 5)
        assert file["labels/EF"][:][rows].tolist() == [50.0, 60.0, 60.0]
        assert file.attrs["format"] == "panecho-embed"
        assert file.attrs["schema_version"] == 3
        assert json.loads(file.attrs["provenance"])["backbone"] == "random"


@pytest.mark.parametrize("rows", [0, 1, 700, 3000])
def test_h5py_and_the_table_of_contents_agree(tmp_path, provenance, rows):
    wide, done = dataclasses.replace(provenance, dim=768), VideoFacts("done" if rows else "failed", num_frames=4000)
    path = tmp_path / "x.h5"
    failures = [] if rows else [Failure("a", "/data/a.avi", "decode", "broken")]
    with EmbeddingWriter(path, wide) as writer:
        values = np.random.default_rng(0).standard_normal((rows, 768))
        writer.add(0, values, np.arange(rows), 1, 16)
        writer.finish(Manifest(refs("a"), {"view/angle": np.array(["ü"], dtype=object)}), [done], failures)
    assert verify(path) == []
    sealed = SealedFile(path)
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[...]} if isinstance(item, h5py.Dataset) else {}))
        assert dict(file.attrs) == sealed.contents.attributes
        np.testing.assert_array_equal(file["embeddings"][:], values.astype("f4"))
    assert found.keys() == sealed.contents.places.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(sealed.column(name), values)


def test_half_precision_is_stored_when_asked(make_file, provenance):
    path = make_file("x.h5", refs("a"), [3], provenance=dataclasses.replace(provenance, dtype="float16"))
    assert EmbeddingFile(path).embeddings.dtype == np.float16


def test_a_path_that_is_no_utf8_keeps_its_bytes(make_file):
    path = os.fsdecode(b"/data/M\xfcller.avi")
    file = EmbeddingFile(make_file("x.h5", [VideoRef("v", "s", "p", path)], [1]))
    assert os.fsencode(file.video_columns["path"][0]) == b"/data/M\xfcller.avi"


def test_leaving_without_finish_leaves_nothing(tmp_path, provenance):
    with pytest.raises(ZeroDivisionError), EmbeddingWriter(tmp_path / "x.h5", provenance) as writer:
        writer.add(0, np.zeros((2, 5)), np.arange(2), 1, 16)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_not_there_before_it_is_whole(tmp_path, provenance):
    with EmbeddingWriter(tmp_path / "x.h5", provenance) as writer:
        writer.add(0, np.zeros((2, 5)), np.arange(2), 1, 16)
        assert not (tmp_path / "x.h5").exists()
        writer.finish(Manifest(refs("a")), [VideoFacts("done", num_frames=9)], [])
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"]


def test_rows_of_another_width_are_refused(tmp_path, provenance):
    with pytest.raises(ArgumentError, match=r"\(N, 5\)"), EmbeddingWriter(tmp_path / "x.h5", provenance) as writer:
        writer.add(0, np.zeros((2, 4)), np.arange(2), 1, 16)


@pytest.mark.parametrize("limit", [0, 1000, 30_000, 100_000, 600_000, 3_000_000, 24_590_000])
def test_a_limit_that_is_really_hit_stops_cleanly(tmp_path, limit):
    """A failed write inside HDF5 would end in a segmentation fault; this process must end with the error alone."""
    code = (
        "import numpy as np, sys; from panecho_embed.store import EmbeddingWriter\n"
        "from panecho_embed.core.provenance import *; from panecho_embed.core.clips import ClipPlan\n"
        "from panecho_embed.core.records import Manifest, VideoFacts, VideoRef\n"
        "info = WeightsInfo('x', '0', 'x', False)\n"
        "made = Provenance('x', info, Feeding(), ClipPlan(), 'clip', dim=768)\n"
        "videos = tuple(VideoRef(*[str(i)] * 4) for i in range(20))\n"
        "with EmbeddingWriter(sys.argv[1], made) as writer:\n"
        "    for i in range(20): writer.add(i, np.zeros((400, 768)), np.arange(400), 1, 16)\n"
        "    writer.finish(Manifest(videos), [VideoFacts('done')] * 20, [])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.h5")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.returncode == 1
    assert "StoreError" in result.stderr.splitlines()[-1]
    assert "no file that large" in result.stderr
    assert "h5py/" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(tmp_path, provenance):
    with pytest.raises(StoreError, match="folder does not exist"):
        EmbeddingWriter(tmp_path / "no" / "x.h5", provenance).__enter__()


@pytest.mark.parametrize("keep", [0, 100, 5000, -1])
def test_a_truncated_file_is_no_file(make_file, keep):
    path = make_file("x.h5", refs("a", "b"), [4, 3])
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(StoreError, match=r"x\.h5"):
        EmbeddingFile(path).table()
    assert verify(path)


def test_another_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = [1]
    with pytest.raises(StoreError, match="does not end with its checksums"):
        EmbeddingFile(tmp_path / "x.h5")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(StoreError, match="no such file"):
        EmbeddingFile(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("key", "change", "problem"),
    [
        ("embeddings", lambda v: v.__setitem__((3, 1), np.nan), r"1 rows are not finite, the first are \[3\]"),
        ("rows/video", lambda v: v.__setitem__(0, 9), "points outside"),
        ("rows/video", lambda v: v.__setitem__(0, 2), "order of /videos"),
        ("rows/first_frame", lambda v: v.__setitem__(1, 40), "begin outside their video"),
        ("rows/first_frame", lambda v: v.__setitem__(1, 0), "repeat or run backwards"),
        ("videos/status", lambda v: v.__setitem__(0, b"failed"), "has status 'failed' and 2 rows"),
        ("videos/video_id", lambda v: v.__setitem__(0, b"c"), "more than once: c"),
        ("videos/patient_id", lambda v: v.__setitem__(0, b""), "1 videos have no patient_id"),
        ("failures/video_id", lambda v: v.__setitem__(0, b"a"), "b is not done, but /failures says nothing"),
    ],
)
def test_verify_names_the_problem(make_file, key, change, problem):
    path = make_file("x.h5", refs("a", "b", "c"), [2, 0, 3])
    reseal(path, key, change)
    assert any(re.search(problem, found) for found in verify(path)), verify(path)


def test_labels_called_like_our_own_columns_stay_apart(make_file):
    labels = {"status": np.array([3.0]), "frame_step": np.array([7.0]), ".": np.array([1.0])}
    file = EmbeddingFile(make_file("x.h5", refs("a"), [2], labels))
    assert file.videos["status"].tolist() == ["done"]
    assert file.videos["label:status"].tolist() == [3.0]
    assert file.rows["frame_step"].tolist() == [1.0, 1.0]
    assert file.rows["label:frame_step"].tolist() == [7.0, 7.0]
    assert set(file.labels) == {"status", "frame_step", "."}


def test_verify_sees_a_changed_setting(make_file):
    path = make_file("x.h5", refs("a"), [2])
    made = SealedFile(path).contents.attributes["provenance"]
    reseal_attributes(path, provenance=made.replace('"crop": 224', '"crop": 112'))
    assert any("settings id" in problem for problem in verify(path))


def test_a_file_that_another_program_has_changed_is_refused(make_file):
    path = make_file("x.h5", refs("a"), [2])
    with h5py.File(path, "r+") as file:
        file["labels/EF"] = [55.0]
    with pytest.raises(StoreError, match=r"x\.h5 is damaged or no embedding file: .*changed by another program"):
        EmbeddingFile(path)


def test_a_text_with_a_zero_byte_is_refused_in_ids_and_shown_in_messages(tmp_path, provenance, make_file):
    with pytest.raises(StoreError, match=r"/videos/path can't be written"):
        make_file("x.h5", [VideoRef("v", "s", "p", "a\0b")], [1])
    assert list(tmp_path.iterdir()) == []
    with EmbeddingWriter(tmp_path / "x.h5", provenance) as writer:
        writer.finish(Manifest(refs("a")), [VideoFacts("failed")], [Failure("a", "a", "open", "what\0is")])
    assert EmbeddingFile(tmp_path / "x.h5").failure_records()[0].message == "what\ufffdis"


def test_what_a_dead_process_has_left_is_swept(tmp_path, make_file):
    code = (
        "import os, pathlib, sys; from panecho_embed.store import EmbeddingWriter\n"
        "from panecho_embed.core.provenance import *; from panecho_embed.core.clips import ClipPlan\n"
        "made = Provenance('x', WeightsInfo('x', '0', 'x', False), Feeding(), ClipPlan(), 'clip', dim=768)\n"
        "EmbeddingWriter(sys.argv[1], made).__enter__(); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.h5")])
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    make_file("x.h5", refs("a"), [2])
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5"]
