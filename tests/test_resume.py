"""What is done stays done, and what has changed is done again."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, ManifestError, SettingsMismatchError
from panecho_embed.extraction.writing import PartWriter
from panecho_embed.store import verify
from tests.test_extraction import moving, run
from tests.tiny import tiny


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for i in range(3):
        np.save(folder / f"v{i}.npy", moving(20, seed=i))
    return folder


def test_a_file_whose_content_changed_is_embedded_again(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    np.save(studies / "v1.npy", moving(20, seed=99))
    summary, file = run(studies, tmp_path / "out.h5")
    assert summary.reused == 2
    np.testing.assert_array_equal(file.embeddings, run(studies, tmp_path / "fresh.h5")[1].embeddings)


def test_a_file_that_became_unreadable_is_a_failure(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    (studies / "v1.npy").write_bytes(b"broken")
    summary, file = run(studies, tmp_path / "out.h5")
    assert [failure.video_id for failure in summary.failed] == ["v1.npy"]
    assert set(file.rows["video_id"]) == {"v0.npy", "v2.npy"}


def test_another_folder_with_the_same_names_is_not_taken_for_the_first(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    other = tmp_path / "other"
    other.mkdir()
    for i in range(3):
        np.save(other / f"v{i}.npy", moving(20, seed=50 + i))
    summary, file = run(other, tmp_path / "out.h5")
    assert summary.reused == 0
    np.testing.assert_array_equal(file.embeddings, run(other, tmp_path / "fresh.h5")[1].embeddings)


def test_a_data_set_that_only_moved_is_not_embedded_again(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    studies.rename(tmp_path / "moved")
    os.utime(tmp_path / "moved" / "v1.npy")
    summary, file = run(tmp_path / "moved", tmp_path / "out.h5")
    assert summary.reused == 3
    assert all("moved" in path for path in file.video_columns["path"])


def test_a_corrected_frame_rate_counts(studies, tmp_path):
    table = tmp_path / "list.csv"
    plan = ClipPlan(frames_per_clip=4, frame_step=None, target_fps=15.0, num_clips=1)
    steps = []
    for fps in ("30", "60", ""):
        table.write_text(f"path,fps\nstudies/v0.npy,{fps}\nstudies/v1.npy,30\n")
        summary, file = run(table, tmp_path / "out.h5", clips=plan)
        steps.append((summary.reused, file.rows["frame_step"].tolist()))
    assert steps[:2] == [(0, [2.0, 2.0]), (1, [4.0, 2.0])]
    assert [failure.stage for failure in summary.failed] == ["clips"]


def test_stills_are_a_setting(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    with pytest.raises(SettingsMismatchError, match="include_stills: True, not False"):
        run(studies, tmp_path / "out.h5", include_stills=True)


def test_what_is_skipped_is_settled(studies, tmp_path):
    np.save(studies / "short.npy", moving(3))
    run(studies, tmp_path / "out.h5", clips=ClipPlan(short="skip"))
    summary, _ = run(studies, tmp_path / "out.h5", clips=ClipPlan(short="skip"))
    assert (summary.reused, len(summary.skipped)) == (4, 1)


def test_what_is_skipped_and_then_replaced_before_it_is_written_is_done_again(studies, tmp_path, monkeypatch):
    np.save(studies / "short.npy", moving(3))
    write = PartWriter.write

    def replaced(writer):
        np.save(studies / "short.npy", moving(40))
        write(writer)

    with monkeypatch.context() as patch:
        patch.setattr(PartWriter, "write", replaced)
        assert len(run(studies, tmp_path / "out.h5", clips=ClipPlan(short="skip"))[0].skipped) == 1
    assert run(studies, tmp_path / "out.h5", clips=ClipPlan(short="skip"))[0].done == 4


@pytest.mark.parametrize(
    ("source", "arguments", "error"),
    [("typo", {}, ManifestError), ("studies", {"precision": "fp8"}, ArgumentError), ("out.h5", {}, ArgumentError)],
)
def test_overwrite_that_fails_leaves_the_old_file(studies, tmp_path, source, arguments, error):
    run(studies, tmp_path / "out.h5")
    with pytest.raises(error):
        run(tmp_path / source, tmp_path / "out.h5", overwrite=True, **arguments)
    assert verify(tmp_path / "out.h5") == []


def test_an_output_inside_the_input_adds_nothing_to_it(studies):
    run(studies, studies / "out.h5")
    summary, _ = run(studies, studies / "out.h5")
    assert (summary.videos, summary.reused) == (3, 3)


def test_half_precision_that_overflows_is_a_failure(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    bright = np.full((3, 40, 40), 255, np.uint8)
    # A frame of one colour throughout would be no content.
    bright[:, 0, 0] = 254
    np.save(folder / "bright.npy", bright)
    model = tiny()
    model.clip_encoder.forward = lambda frames: frames.mean(dim=1) * 1e6
    summary, _ = run(folder, tmp_path / "out.h5", backbone=model, dtype="float16")
    assert [failure.stage for failure in summary.failed] == ["encode"]
    assert "--dtype" in summary.failed[0].message


KILLED_IN_THE_MERGE = """
import os, sys
import torch
torch.set_num_threads(1)
from panecho_embed.extraction.run import extract
from panecho_embed.store import EmbeddingWriter
from tests.tiny import tiny

source, out, where = sys.argv[1:]
original = getattr(EmbeddingWriter, where)

def killed(writer, *arguments):
    if str(writer.path) == out:
        os._exit(9)
    return original(writer, *arguments)

setattr(EmbeddingWriter, where, killed)
extract(source, out, backbone=tiny(), workers=0)
"""


@pytest.mark.parametrize("where", ["_write_rest", "_flush", "_tables"])
def test_killed_in_the_middle_of_the_merge(studies, tmp_path, where):
    """A process that ends inside the merge leaves its temporary file; the next run clears it away."""
    out = tmp_path / "out.h5"
    code = [sys.executable, "-c", KILLED_IN_THE_MERGE, str(studies), str(out), where]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(code, env=environment, capture_output=True).returncode == 9
    assert not out.exists()
    summary, file = run(studies, out)
    assert summary.reused == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.h5", "studies"]
    assert file.rows.equals(run(studies, tmp_path / "fresh.h5")[1].rows.assign(path=file.rows["path"]))
