from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.store import EmbeddingFile
from tests.test_extraction import moving
from tests.test_reclipping import on_frames

QUICK = ["--backbone", "random", "--image-size", "32", "--workers", "0"]


def run(*words, expect=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for i, count in enumerate([24, 7]):
        np.savez(folder / f"v{i}.npz", frames=moving(count, seed=i), fps=np.array(30.0))
    return folder


@pytest.fixture(scope="module")
def embedded(studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "out.h5"
    return run("extract", studies, "-o", out, *QUICK), out


def test_it_says_what_was_done_and_that_the_weights_are_random(embedded):
    result, out = embedded
    assert "RANDOM WEIGHTS, NOT PRETRAINED (random (seed 0))" in result.stderr
    assert "2 of 2 videos done" in result.stdout
    assert f"5 rows in {out}" in result.stdout


def test_info_says_what_is_in_it(embedded):
    _, out = embedded
    text = run("info", out).stdout
    assert "RANDOM, NOT PRETRAINED: random (seed 0)" in text
    facts = json.loads(run("info", out, "--json").stdout)
    assert (facts["rows"], facts["videos"], facts["dimension"]) == (5, {"done": 2}, 768)
    assert facts["clips"]["frames_per_clip"] == 16


def test_verify(embedded, tmp_path):
    _, out = embedded
    assert "whole, 5 clip rows" in run("verify", out).stdout
    (tmp_path / "bad.h5").write_bytes(out.read_bytes()[:999])
    assert "bad.h5" in run("verify", out, tmp_path / "bad.h5", expect=1).stdout


def test_what_is_fed_otherwise_is_said_and_recorded(studies, tmp_path):
    flags = ["--feed", "geometry=square", "--feed", "cut=0.1", "--frame-step", "2"]
    said = run("extract", studies, "-o", tmp_path / "out.h5", *QUICK, *flags)
    for line in (
        "geometry square (random's own: squash)",
        "cut 0.1 (random's own: 0)",
        "frame_step 2 (random's own: 1)",
    ):
        assert f"override: {line}" in said.output
        assert line in EmbeddingFile(tmp_path / "out.h5").provenance.overrides
    assert "frame_step 2 (random's own: 1)" in run("info", tmp_path / "out.h5").stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--feed", "geometri=square"], "nearest: geometry"),
        (["--feed", "cut=x"], "cut takes a number"),
        (["--feed", "cut=0.7"], "cut is 0.7; allowed is 0 to below 0.5"),
        (["--feed", "geometry=round"], "geometry is 'round'; allowed: squash, square, shortest"),
        (["--feed", "resize=8"], "--feed resize=..."),
        (["--short", "zeros"], "random sees pictures (--short repeat, wrap or skip)"),
        (["--start", "2", "--clips", "3"], "--start, --clips 1"),
    ],
)
def test_a_feeding_that_cannot_be_names_its_flag(studies, tmp_path, flags, message):
    result = CliRunner().invoke(main, ["extract", str(studies), "-o", str(tmp_path / "out.h5"), *QUICK, *flags])
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "out.h5").exists()


def test_clip_flags_reach_the_plan(studies, tmp_path):
    flags = ["--frames-per-clip", "4", "--fps", "15", "--stride", "2", "--short", "wrap"]
    run("extract", studies, "-o", tmp_path / "out.h5", *QUICK, *flags)
    plan = EmbeddingFile(tmp_path / "out.h5").provenance.clips
    assert (plan.frames_per_clip, plan.target_fps, plan.stride, plan.num_clips, plan.short) == (
        4,
        15.0,
        2,
        None,
        "wrap",
    )


def test_reclip_and_pool(studies, tmp_path):
    weights = on_frames(tmp_path / "mine.pt", 0)
    made_with = ["--weights", weights, "--image-size", "32", "--workers", "0"]
    run("extract", studies, "-o", tmp_path / "frames.h5", *made_with, "--level", "frame")
    reclipped = run("reclip", tmp_path / "frames.h5", "-o", tmp_path / "clips.h5", "--weights", weights).stdout
    assert "2 of 2 videos done\n5 rows in " in reclipped
    pooled = run("pool", tmp_path / "clips.h5", "--by", "video", "-o", tmp_path / "videos.h5")
    assert "2 video rows" in pooled.stdout


def test_several_plans_are_files_of_a_folder(studies, tmp_path):
    out = tmp_path / "sweep"
    plans = ["--plan", "--frame-step 2 --clips 3", "--plan", "--stride 5 --short skip", "--plan", ""]
    told = run("extract", studies, "-o", out, *QUICK, *plans).stdout
    files = {"frame-step=2_clips=3": 2, "stride=5_short=skip": 2, "default": 5}
    assert {path.name for path in out.iterdir()} == {f"{name}.h5" for name in files}
    for name, rows in files.items():
        assert f"{name}: {1 if 'skip' in name else 2} of 2 videos done, {rows} rows in {out / name}.h5" in told
    assert "stride=5_short=skip.h5\n  v1.npz: 7 frames; a clip needs 16" in told
    assert EmbeddingFile(out / "frame-step=2_clips=3.h5").provenance.clips.frame_step == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "--foo 3"], "'--foo 3': No such option"),
        (["--plan", "--clips x"], "'--clips x': Invalid value for '--clips'"),
        (["--plan", "'"], "No closing quotation"),
        (["--plan", "4"], "unexpected extra argument"),
    ],
)
def test_a_plan_that_is_none_is_wrong_usage(studies, tmp_path, words, message):
    result = run("extract", studies, "-o", tmp_path / "sweep", *QUICK, *words, expect=2)
    assert message in result.stderr
    assert '"--frame-step 2 --clips 8"' in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "--clips 2", "--plan", "--clips 2"], "two plans are the same"),
        (["--plan", "--clips 2", "--stride", "3"], "put the clip options into each plan (--plan)"),
        (["--plan", "--clips 2", "--level", "frame"], "holds every frame and no clips"),
        (["--plan", "--clips 0"], "num_clips is 0"),
    ],
)
def test_plans_that_contradict_something_are_refused(studies, tmp_path, words, message):
    result = run("extract", studies, "-o", tmp_path / "sweep", *QUICK, *words, expect=2)
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_failures_are_listed_and_the_exit_code_is_3(studies, tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    np.save(folder / "good.npy", moving(3))
    for i in range(12):
        (folder / f"bad{i}.avi").write_text("no video")
    result = run("extract", folder, "-o", tmp_path / "out.h5", *QUICK, expect=3)
    assert "1 of 13 videos done" in result.stdout
    assert "12 failed:" in result.stdout
    assert "and 2 more" in result.stdout
    assert run("info", tmp_path / "out.h5", "--failures").stdout.count("bad") == 12
    assert len(json.loads(run("info", tmp_path / "out.h5", "--failures", "--json").stdout)) == 12


def test_errors_are_messages_not_tracebacks(tmp_path):
    assert "no such file or folder" in run("extract", tmp_path / "no", "-o", tmp_path / "x.h5", expect=1).stderr
    assert "no video found" in run("extract", tmp_path, "-o", tmp_path / "x.h5", expect=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_values_are_wrong_usage(studies, tmp_path):
    result = run("extract", studies, "-o", tmp_path / "x.h5", *QUICK, "--clips", 0, expect=2)
    assert "num_clips is 0" in result.stderr
    small = ["--backbone", "random", "--image-size", 8]
    assert "image size is 8" in run("extract", studies, "-o", tmp_path / "x.h5", *small, expect=2).stderr
    assert (
        "nearest: panecho" in run("extract", studies, "-o", tmp_path / "x.h5", "--backbone", "panech", expect=2).stderr
    )


def test_the_manifest_comes_back(studies, tmp_path):
    result = run("manifest", studies, "-o", tmp_path / "list.csv")
    assert "2 files (2 cine) of 2 studies and 2 patients" in result.stdout
    run("extract", tmp_path / "list.csv", "-o", tmp_path / "out.h5", *QUICK)
    file = EmbeddingFile(tmp_path / "out.h5")
    assert file.videos["video_id"].tolist() == ["v0.npz", "v1.npz"]
    assert file.labels == {}
