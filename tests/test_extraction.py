from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, ManifestError, SettingsMismatchError, StoreError
from panecho_embed.extraction.clip_engine import ClipEngine
from panecho_embed.extraction.run import extract
from panecho_embed.store import EmbeddingFile, verify
from panecho_embed.store.contents import SealedFile
from tests.media.builders import write_avi
from tests.tiny import overflowing, tiny, tiny_3d


def moving(num_frames: int, seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    """A video, (T, H, W, 3) uint8, in which no two frames and no two channels are the same."""
    noise = np.random.default_rng(seed).integers(0, 200, (height, width, 3))
    ramp = np.arange(num_frames)[:, None, None, None] * 50 // max(num_frames, 1)
    return (noise[None] + ramp).astype(np.uint8)


@pytest.fixture
def studies(tmp_path):
    """Five videos of 40, 5, 1, 23 and 16 frames, as arrays."""
    folder = tmp_path / "studies"
    for i, count in enumerate([40, 5, 1, 23, 16]):
        (folder / f"p{i}").mkdir(parents=True)
        np.savez(folder / f"p{i}" / "v.npz", frames=moving(count, seed=i), fps=np.array(30.0))
    return folder


def run(source, out, **arguments):
    arguments = {"backbone": tiny(), "workers": 0} | arguments
    summary = extract(source, out, **arguments)
    assert verify(summary.out) == []
    return summary, EmbeddingFile(summary.out)


def test_every_row_says_whose_frames_it_holds(studies, tmp_path):
    summary, file = run(studies, tmp_path / "out.h5")
    assert (summary.exit_code, summary.done, summary.rows) == (0, 5, len(file))
    rows = file.rows
    assert rows.groupby("video_id", sort=False).size().to_dict() == {
        "p0/v.npz": 4,
        "p1/v.npz": 1,
        "p2/v.npz": 1,
        "p3/v.npz": 4,
        "p4/v.npz": 1,
    }
    assert rows["first_frame"].tolist() == [0, 8, 16, 24, 0, 0, 0, 2, 5, 7, 0]
    assert (rows["fps"] == 30.0).all()
    assert file.video_columns["num_frames"].tolist() == [40, 5, 1, 23, 16]
    assert all(len(digest) == 64 for digest in file.video_columns["sha256"])


def test_an_embedding_is_that_of_its_frames(studies, tmp_path):
    _, file = run(studies, tmp_path / "out.h5")
    model = tiny()
    video = moving(40, seed=0)
    for row, start in enumerate([0, 8, 16, 24]):
        clip = [cv2.resize(frame, (40, 40), interpolation=cv2.INTER_AREA) for frame in video[start : start + 16]]
        pixels = np.stack(clip)[:, 4:36, 4:36, ::-1].transpose(0, 3, 1, 2) / 255
        mean, std = (np.array(v)[:, None, None] for v in (model.feeding.mean, model.feeding.std))
        normalised = (pixels - mean) / std
        quarters = normalised.reshape(16, 3, 2, 16, 2, 16).mean(axis=(3, 5)).reshape(16, 12)
        np.testing.assert_allclose(file.embeddings[row], quarters.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("batch_pictures", [1, 7, 64])
def test_batch_size_does_not_matter(studies, tmp_path, batch_pictures):
    _, one = run(studies, tmp_path / "one.h5")
    _, other = run(studies, tmp_path / "other.h5", batch_pictures=batch_pictures)
    np.testing.assert_allclose(other.embeddings, one.embeddings, atol=1e-5)
    assert other.rows.equals(one.rows)


def test_the_number_of_workers_does_not_matter(studies, tmp_path):
    _, one = run(studies, tmp_path / "one.h5")
    _, other = run(studies, tmp_path / "other.h5", workers=2)
    np.testing.assert_array_equal(other.embeddings, one.embeddings)
    assert other.rows.equals(one.rows)


def test_frame_level_keeps_every_frame(studies, tmp_path):
    _, file = run(studies, tmp_path / "out.h5", level="frame")
    assert len(file) == 40 + 5 + 1 + 23 + 16
    assert file.rows["first_frame"].tolist()[:40] == list(range(40))
    assert (file.rows["frames_per_clip"] == 1).all()


def test_a_3d_model_sees_the_clip(studies, tmp_path):
    _, file = run(studies, tmp_path / "out.h5", backbone=tiny_3d(), batch_pictures=5)
    _, flat = run(studies, tmp_path / "flat.h5")
    np.testing.assert_allclose(file.embeddings, flat.embeddings.reshape(-1, 3, 4).mean(axis=2), atol=1e-5)
    with pytest.raises(ArgumentError, match="no frame level"):
        run(studies, tmp_path / "frames.h5", backbone=tiny_3d(), level="frame")


def test_clips_at_a_target_rate(studies, tmp_path):
    plan = ClipPlan(frames_per_clip=4, frame_step=None, target_fps=12.0, num_clips=1)
    _, file = run(studies, tmp_path / "out.h5", clips=plan)
    assert (file.rows["frame_step"] == 2.5).all()


def test_short_videos_may_be_skipped(studies, tmp_path):
    summary, file = run(studies, tmp_path / "out.h5", clips=ClipPlan(short="skip"))
    assert [failure.video_id for failure in summary.skipped] == ["p1/v.npz", "p2/v.npz"]
    assert summary.exit_code == 0
    assert file.video_columns["status"].tolist() == ["done", "skipped", "skipped", "done", "done"]


def test_broken_inputs_are_failures_and_the_rest_is_done(studies, tmp_path):
    (studies / "p1" / "v.npz").write_bytes(b"")
    (studies / "p3" / "text.avi").write_text("not a video")
    summary, file = run(studies, tmp_path / "out.h5", workers=2)
    assert summary.exit_code == 3
    assert [failure.video_id for failure in summary.failed] == ["p1/v.npz", "p3/text.avi"]
    assert all(failure.message for failure in summary.failed)
    assert file.failures["video_id"].tolist() == ["p1/v.npz", "p3/text.avi"]
    assert (file.video_columns["status"] == "done").sum() == 4


def test_an_embedding_that_overflows_is_a_failure(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    dark = np.zeros((3, 40, 40), np.uint8)
    # A frame of one colour throughout would be no content.
    dark[:, 0, 0] = 1
    np.save(folder / "dark.npy", dark)
    np.save(folder / "bright.npy", 255 - dark)
    summary, _ = run(folder, tmp_path / "out.h5", backbone=overflowing())
    assert [(f.video_id, f.stage) for f in summary.failed] == [("bright.npy", "encode")]
    assert "--precision" in summary.failed[0].message


def test_videos_that_show_nothing_are_failures(studies, tmp_path):
    np.save(studies / "p0" / "black.npy", np.zeros((20, 40, 40), np.uint8))
    # What a cast makes of NaN depends on the machine, and is the same for every pixel.
    with np.errstate(invalid="ignore"):
        np.save(studies / "p0" / "nan.npy", np.full((20, 40, 40), np.nan, np.float32).astype(np.uint8))
    np.save(
        studies / "p1" / "flashing.npy", np.arange(20, dtype=np.uint8)[:, None, None] + np.zeros((1, 40, 40), np.uint8)
    )
    write_avi(studies / "p2" / "blue.avi", np.full((20, 48, 64, 3), (0, 0, 255), np.uint8))
    led_in = moving(20)
    led_in[:2] = 0
    np.save(studies / "p2" / "led in.npy", led_in)
    summary, file = run(studies, tmp_path / "out.h5")
    blank = ["p0/black.npy", "p0/nan.npy", "p1/flashing.npy", "p2/blue.avi"]
    assert [(failure.video_id, failure.stage) for failure in summary.failed] == [(name, "pixels") for name in blank]
    assert {failure.message for failure in summary.failed} == {
        "no content: each of its 20 frames is of one colour throughout"
    }
    assert "p2/led in.npy" in set(file.rows["video_id"])


def test_the_same_again_does_nothing(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    before = (tmp_path / "out.h5").stat().st_mtime_ns
    summary, _ = run(studies, tmp_path / "out.h5")
    assert (summary.done, summary.reused) == (5, 5)
    assert (tmp_path / "out.h5").stat().st_mtime_ns == before


def test_new_videos_are_added_and_failed_ones_tried_again(studies, tmp_path):
    good = (studies / "p1" / "v.npz").read_bytes()
    (studies / "p1" / "v.npz").write_bytes(b"broken")
    run(studies, tmp_path / "out.h5")
    (studies / "p1" / "v.npz").write_bytes(good)
    np.save(studies / "p0" / "a.npy", moving(20, seed=9))
    summary, file = run(studies, tmp_path / "out.h5")
    assert (summary.done, summary.reused, summary.exit_code) == (6, 4, 0)
    _, fresh = run(studies, tmp_path / "fresh.h5")
    np.testing.assert_allclose(file.embeddings, fresh.embeddings, atol=1e-6)
    assert file.rows.equals(fresh.rows)


def test_other_settings_are_refused_by_field(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    with pytest.raises(SettingsMismatchError, match=r"clips\.stride: 4, not None"):
        run(studies, tmp_path / "out.h5", clips=ClipPlan(num_clips=None, stride=4))
    with pytest.raises(SettingsMismatchError, match=r"feeding\.mask: always, not never"):
        run(studies, tmp_path / "out.h5", mask_sector="on")
    assert len(run(studies, tmp_path / "out.h5")[1]) == 11
    assert len(run(studies, tmp_path / "out.h5", clips=ClipPlan(num_clips=1), overwrite=True)[1]) == 5


def test_rows_of_a_finished_file_are_not_lost(studies, tmp_path):
    run(studies, tmp_path / "out.h5")
    (studies / "p0" / "v.npz").unlink()
    with pytest.raises(StoreError, match="holds 1 videos that the input does not list"):
        run(studies, tmp_path / "out.h5")


def test_new_labels_reach_a_finished_file_without_encoding(studies, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path\nstudies/p0/v.npz\nstudies/p3/v.npz\n")
    run(table, tmp_path / "out.h5")
    table.write_text("path,EF\nstudies/p0/v.npz,55\nstudies/p3/v.npz,\n")
    summary, file = run(table, tmp_path / "out.h5")
    assert summary.reused == 2
    assert file.labels["EF"][0] == 55
    assert math.isnan(file.labels["EF"][1])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"level": "study"}, ArgumentError),
        ({"level": "frame", "clips": ClipPlan()}, ArgumentError),
        ({"workers": -1}, ArgumentError),
        ({"layout": "nonsense"}, ArgumentError),
        ({"precision": "fp8"}, ArgumentError),
        ({"device": "abacus"}, ArgumentError),
    ],
)
def test_bad_arguments_leave_nothing_behind(studies, tmp_path, arguments, error):
    with pytest.raises(error):
        run(studies, tmp_path / "out.h5", **arguments)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["studies"]


def test_no_input_at_all_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(ManifestError, match=r"no video found.*\n.*1 file skipped, not a video.*\.txt"):
        run(tmp_path / "empty", tmp_path / "out.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_an_output_in_a_folder_that_is_not_there(studies, tmp_path):
    with pytest.raises(StoreError, match="folder does not exist"):
        run(studies, tmp_path / "no" / "out.h5")


def test_an_interrupt_keeps_what_is_done(studies, tmp_path, monkeypatch):
    original, calls = ClipEngine.__call__, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(ClipEngine, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(studies, tmp_path / "out.h5", batch_pictures=1)
    assert (tmp_path / "out.h5.parts").is_dir()
    summary, file = run(studies, tmp_path / "out.h5")
    assert (summary.reused, summary.done) == (2, 5)
    assert not (tmp_path / "out.h5.parts").exists()
    assert file.rows.equals(run(studies, tmp_path / "fresh.h5")[1].rows)


def test_a_script_without_a_main_guard_runs_once(studies, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom panecho_embed.extraction.run import extract\nfrom tests.tiny import tiny\n"
        "print(extract(sys.argv[1], sys.argv[2], backbone=tiny(), workers=1).done)\n"
    )
    result = subprocess.run(
        [sys.executable, str(script), str(studies), str(tmp_path / "out.h5")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,  # against a hang alone: on a busy machine three interpreters start in minutes
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "5\n", "")


def test_the_file_says_how_it_was_made(studies, tmp_path):
    _, file = run(studies, tmp_path / "out.h5", mask_sector="on")
    made = file.provenance
    assert made.backbone == "tiny"
    assert made.feeding == dataclasses.replace(tiny().feeding, mask="always")
    assert made.clips == ClipPlan()
    assert {"python", "torch", "numpy", "pydicom"} <= set(made.versions)


def test_the_file_says_which_engine_it_was_made_with_and_another_may_go_on(studies, tmp_path):
    _, file = run(studies, tmp_path / "out.h5", engine_backend="eager")
    assert file.provenance.engine == "eager"
    np.save(studies / "p0" / "a.npy", moving(20, seed=9))
    summary, file = run(studies, tmp_path / "out.h5", engine_backend="auto")
    assert (summary.reused, file.provenance.engine) == (5, "eager")


def test_an_engine_that_the_model_or_the_device_has_no_use_for_is_refused(studies, tmp_path):
    with pytest.raises(ArgumentError, match="compiled is for GPUs"):
        run(studies, tmp_path / "out.h5", engine_backend="compiled")
    with pytest.raises(ArgumentError, match="sees a clip as a whole"):
        run(studies, tmp_path / "out.h5", engine_backend="compiled", backbone=tiny_3d())


def test_files_are_opened_and_checked_once_a_need(studies, tmp_path, monkeypatch):
    """A part when it is written and when it is merged, the output when it is written."""
    opened = []
    original = SealedFile.__init__

    def counted(file, path):
        opened.append(path.name.removeprefix(".").partition("-")[0].partition(".h5")[0])
        original(file, path)

    monkeypatch.setattr(SealedFile, "__init__", counted)
    assert extract(studies, tmp_path / "out.h5", backbone=tiny(), workers=0).done == 5
    assert opened == ["part", "part", "out"]
