"""Clips over a whole video and clips by the heartbeat: plans, extraction, frame-level files, what is reported."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.cli.main import main
from panecho_embed.core.beats import Beat
from panecho_embed.core.clips import PADDING, ClipPlan, OneClip, resolve_plan
from panecho_embed.core.errors import ArgumentError, MediaError, NotACineError
from panecho_embed.core.records import Recording
from panecho_embed.extraction import decode
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.store import EmbeddingFile, verify
from tests.media.builders import write_dicom
from tests.test_reclipping import on_frames
from tests.tiny import tiny

ECHOPRIME = ClipPlan(16, 2, num_clips=1, start=0, short="zeros")
BEAT = ClipPlan(beats=1)
UNIFORM = ClipPlan(frame_step=None, uniform=True)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 400), st.sampled_from(["repeat", "wrap", "zeros"]))
def test_uniform_clips_lie_in_the_video_and_reach_all_of_it(frames, clips, num_frames, short):
    plan = ClipPlan(frames, None, num_clips=clips, short=short, uniform=True)
    indices = plan.indices(num_frames)
    assert indices.shape[1] == frames
    assert 1 <= len(indices) <= clips
    assert (np.diff(indices[:, 0]) > 0).all()
    inside = indices[indices != PADDING]
    assert inside.min() >= 0
    assert inside.max() < num_frames
    assert plan.used(num_frames).nonzero()[0].tolist() == np.unique(inside).tolist()
    if num_frames >= frames:
        # One frame of each part.
        assert (np.diff(indices, axis=1) >= 1).all()
        part = np.arange(frames)
        assert (indices * frames < (part + 1) * num_frames).all()
        assert ((indices + 1) * frames > part * num_frames).all()


def test_uniform_clips_interleave_and_short_videos_are_short():
    plan = ClipPlan(4, None, num_clips=2, uniform=True)
    assert plan.indices(16).tolist() == [[1, 5, 9, 13], [3, 7, 11, 15]]
    assert plan.indices(3).tolist() == [[0, 1, 2, 2]]
    assert ClipPlan(4, None, num_clips=1, uniform=True).indices(8).tolist() == [[1, 3, 5, 7]]
    assert (plan.step(16), plan.step(3)) == (4.0, 1.0)
    with pytest.raises(NotACineError, match="3 frames; a clip needs 4"):
        ClipPlan(4, None, short="skip", uniform=True).require(3)


@given(st.floats(2, 80), st.integers(2, 32), st.integers(1, 3), st.integers(2, 300), st.floats(0, 1))
def test_clips_by_the_beat_are_whole_beats_in_the_video(period, frames, beats, num_frames, first):
    plan = ClipPlan(frames, beats=beats, num_clips=99)
    known = Beat(period, tuple(np.arange(first * period, num_frames, period)))
    for beat in (Beat(period), known):
        indices = plan.indices(num_frames, 30.0, beat)
        assert indices.min() >= 0
        assert indices.max() < num_frames
        if plan.follows_beat(num_frames, 30.0, beat):
            assert np.abs(indices[:, -1] - indices[:, 0] - beats * period * (1 - 1 / frames)).max() <= 1.5
            # At distances of whole beats: the same phase in each.
            apart = np.diff(indices[:, 0]) / (beats * period)
            assert np.abs(apart - np.round(apart)).max(initial=0) * beats * period <= 1.5
            assert plan.step(num_frames, 30.0, beat) == pytest.approx(beats * period / frames)
        else:
            assert beats * period * (1 - 1 / frames) > num_frames - 1
            np.testing.assert_array_equal(indices, ClipPlan(frames, num_clips=99).indices(num_frames))


def test_r_waves_begin_the_clips():
    beat = Beat(20.0, (7.0, 27.0, 47.0))
    indices = ClipPlan(4, beats=1).indices(70, 30.0, beat)
    assert indices.tolist() == [[7, 12, 17, 22], [27, 32, 37, 42], [47, 52, 57, 62]]
    assert ClipPlan(4, beats=2).indices(70, 30.0, beat).tolist() == [[7, 17, 27, 37]]
    # Between R waves a beat is as long as it was.
    assert ClipPlan(4, beats=1).indices(40, 30.0, Beat(20.0, (2.0, 26.0)))[0].tolist() == [2, 8, 14, 20]
    # A missed R wave leaves a gap that is no beat.
    assert ClipPlan(4, beats=1).indices(64, 30.0, Beat(20.0, (0.0, 20.0, 60.0)))[:, 0].tolist() == [0]
    # No whole beat from R wave to R wave: one that begins elsewhere.
    assert ClipPlan(4, beats=1).indices(26, 30.0, Beat(20.0, (13.0,)))[0].tolist() == [5, 10, 15, 20]


def test_at_most_so_many_clips_evenly_chosen_from_the_beats():
    starts = ClipPlan(16, beats=1, num_clips=3).indices(210, 30.0, Beat(20.0))[:, 0]
    assert np.diff(starts).tolist() == [100, 80]
    assert ClipPlan(16, beats=1, num_clips=1).indices(70, 30.0, Beat(20.0))[:, 0].tolist() == [25]


def test_without_a_beat_the_step_remains():
    short, unknown = Beat(60.0), Beat()
    for beat in (short, unknown):
        assert not BEAT.follows_beat(40, 30.0, beat)
        np.testing.assert_array_equal(BEAT.indices(40, 30.0, beat), ClipPlan().indices(40))
    echoprime = resolve_plan({"beats": 1}, ECHOPRIME)
    assert echoprime.indices(100, 30.0).tolist() == [list(range(0, 32, 2))]
    with pytest.raises(NotACineError, match="10 frames; a clip needs 16"):
        ClipPlan(beats=1, short="skip").require(10, 30.0, unknown)


def test_a_still_and_a_loop_without_a_rate_have_no_beat():
    with pytest.raises(MediaError, match=r"its only frame shows no heartbeat \(--beats"):
        BEAT.indices(1, 30.0, Beat())
    with pytest.raises(MediaError, match=r"clips by the heartbeat .*--beats.* own rate is not known"):
        BEAT.indices(40, None, Beat())


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ({"uniform": True}, "--frame-step, --fps or --uniform"),
        ({"frame_step": None, "uniform": True, "beats": 1}, "--beats.*--uniform"),
        ({"frame_step": None, "uniform": True, "num_clips": 1, "start": 3}, "--start.*--uniform"),
        ({"frame_step": None, "uniform": True, "num_clips": None, "stride": 3}, "--uniform.*--clips"),
        ({"beats": 1, "num_clips": None, "stride": 3}, "--beats.*--clips"),
        ({"beats": 0}, "--beats"),
        ({"beats": 101}, "--beats"),
        ({"beats": 1, "frames_per_clip": 1}, "--frames-per-clip"),
    ],
)
def test_what_does_not_go_together_names_the_flags(arguments, flags):
    with pytest.raises(ArgumentError, match=flags):
        ClipPlan(**arguments)


def test_changes_to_a_models_own_plan():
    assert resolve_plan({"uniform": True}, ClipPlan()) == UNIFORM
    assert resolve_plan({"uniform": True}, ECHOPRIME) == ClipPlan(16, None, num_clips=1, short="zeros", uniform=True)
    assert resolve_plan({"frame_step": 2}, UNIFORM) == ClipPlan(frame_step=2)
    assert resolve_plan({"target_fps": 30.0}, UNIFORM) == ClipPlan(frame_step=None, target_fps=30.0)
    assert resolve_plan({"beats": 1}, ECHOPRIME) == ClipPlan(16, 2, num_clips=1, start=0, short="zeros", beats=1)
    with pytest.raises(ArgumentError, match=r"start is 5.*--beats"):
        resolve_plan({"beats": 1, "start": 5}, ClipPlan())


def test_plans_in_words():
    assert ClipPlan(frame_step=2).describe() == "16 frames, step 2, 4 per video"
    assert UNIFORM.describe() == "16 frames, spread over the whole video, 4 per video"
    words = "16 frames, spread over one heartbeat (step 1 where the beat is not known), 4 per video"
    assert BEAT.describe() == words


def test_training_takes_any_place_of_a_uniform_clip_and_no_heartbeat():
    plan = ClipPlan(4, None, num_clips=1, uniform=True)
    clips = {tuple(OneClip(plan, i / 100).indices(12)[0]) for i in range(100)}
    assert clips == {(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)}
    with pytest.raises(ArgumentError, match="do not follow its heartbeat"):
        OneClip(BEAT, 0.5)


def beating(count: int, period: float, seed: int = 0) -> np.ndarray:
    """(count, 48, 48, 3): a dark disc in noise, quick to shrink and slow to grow."""
    chance = np.random.default_rng(seed)
    phase = np.arange(count) / period % 1
    radius = 16 - 8 * np.where(phase < 0.35, phase / 0.35, (1 - phase) / 0.65)
    y, x = np.mgrid[:48, :48] - 24
    tissue = np.where(np.hypot(x, y)[None] < radius[:, None, None], 20, 140)
    frames = tissue + chance.normal(0, 12, tissue.shape)
    return np.repeat(np.clip(frames, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Loops with R waves, with a heart rate, with neither, and of less than a beat."""
    folder = tmp_path_factory.mktemp("videos")
    write_dicom(folder / "waves.dcm", beating(60, 20), FrameTime="33.333", RWaveTimeVector=[500.0, 1166.67])
    write_dicom(folder / "rate.dcm", beating(60, 20), FrameTime="33.333", HeartRate=90)
    np.savez(folder / "seen.npz", frames=beating(60, 24), fps=np.array(30.0))
    np.savez(folder / "short.npz", frames=beating(20, 40), fps=np.array(30.0))
    np.savez(folder / "no-rate.npz", frames=beating(60, 20))
    return folder


@pytest.fixture(scope="module")
def made(videos, tmp_path_factory):
    """Three plans in one pass, and the summary."""
    out = tmp_path_factory.mktemp("made") / "plans"
    plans = {"own": {}, "uniform": {"uniform": True}, "beat": {"beats": 1}}
    return extract(videos, out, backbone=tiny(), plans=plans, workers=0, ids="plain")


def of(summary, name: str) -> EmbeddingFile:
    return EmbeddingFile(summary.files[name].out)


def test_every_way_to_know_the_beat(made):
    table = of(made, "beat").videos.set_index("video_id")
    assert table["heart_rate_source"].to_dict() == {
        "waves.dcm": "(0018,6060) RWaveTimeVector",
        "rate.dcm": "(0018,1088) HeartRate",
        "seen.npz": "self-similarity",
        "short.npz": "",
        "no-rate.npz": "",
    }
    assert table.loc["waves.dcm", "heart_rate_bpm"] == pytest.approx(90, abs=0.01)
    assert table.loc["seen.npz", "heart_rate_bpm"] == pytest.approx(75, rel=0.02)
    assert table["heart_rate_confidence"].isna().to_dict()["rate.dcm"]
    times = [float(time) for time in table.loc["waves.dcm", "r_wave_times_ms"].split()]
    assert times == pytest.approx([500, 1166.67])


def test_clips_begin_with_the_r_wave_and_span_a_beat(made):
    rows = of(made, "beat").rows
    first = rows.groupby("video_id")["first_frame"].agg(list).to_dict()
    assert first["waves.dcm"] == [15, 35]
    assert [len(first[name]) for name in ("rate.dcm", "seen.npz", "short.npz")] == [3, 2, 4]
    assert np.diff(first["rate.dcm"]).tolist() == [20, 20]
    steps = rows.groupby("video_id")["frame_step"].first()
    assert steps["rate.dcm"] == pytest.approx(20 / 16, rel=1e-3)
    assert steps["short.npz"] == 1


def test_the_summary_counts_sources_and_names_who_has_no_beat(made):
    notes = made.files["beat"].notes
    assert any(
        note.startswith("heartbeat of 4 videos: ") and "1 by self-similarity" in note and "HeartRate" in note
        for note in notes
    )
    assert "1 video without a whole trustworthy beat, cut at a step of 1 instead: short.npz" in notes
    assert not any("beat" in note for note in made.files["uniform"].notes)


def test_a_loop_without_a_rate_fails_where_beats_are_asked_for_alone(made):
    assert [f.video_id for f in made.files["beat"].failed] == ["no-rate.npz"]
    assert "add an fps column" in made.files["beat"].failed[0].message
    assert not made.files["uniform"].failed


@pytest.mark.parametrize("name", ["own", "uniform", "beat"])
def test_plans_together_are_what_each_is_alone(made, videos, tmp_path, name):
    plan = {"own": {}, "uniform": {"uniform": True}, "beat": {"beats": 1}}[name]
    alone = extract(videos, tmp_path / "x.h5", backbone=tiny(), clips=plan, workers=0, ids="plain")
    file = of(made, name)
    assert verify(file.path) == []
    assert file.settings_id == EmbeddingFile(alone.out).settings_id
    assert file.rows.equals(EmbeddingFile(alone.out).rows)
    np.testing.assert_array_equal(file.embeddings, EmbeddingFile(alone.out).embeddings)
    assert len({of(made, other).settings_id for other in made.files}) == 3


def test_the_beat_is_looked_for_only_where_it_is_asked_for(videos, tmp_path, monkeypatch):
    reads = []
    real = decode.watched
    monkeypatch.setattr(decode, "watched", lambda cine: reads.append(cine.path) or real(cine))
    alone = extract(videos, tmp_path / "x.h5", backbone=tiny(), workers=0, ids="plain")
    assert reads == []
    assert set(EmbeddingFile(alone.out).videos["heart_rate_source"]) >= {"", "(0018,1088) HeartRate"}
    assert "self-similarity" not in set(EmbeddingFile(alone.out).videos["heart_rate_source"])
    extract(videos, tmp_path / "y.h5", backbone=tiny(), clips={"beats": 1}, workers=0, ids="plain")
    assert {Path(path).name for path in reads} == {"seen.npz", "short.npz"}


def test_clips_of_frames_follow_the_beat_as_those_of_videos_do(videos, tmp_path):
    from panecho_embed.extraction.reclipping import reclip

    weights = on_frames(tmp_path / "mine.pt", 3)
    model = load_backbone("panecho", weights, image_size=32)
    frames = extract(videos, tmp_path / "frames.h5", backbone=model, level="frame", workers=0, ids="plain").out
    for plan in ({"beats": 1}, {"uniform": True}):
        again = reclip(frames, tmp_path / "again.h5", clips=plan, weights=weights, overwrite=True)
        direct = extract(
            videos, tmp_path / "direct.h5", backbone=model, clips=plan, workers=0, ids="plain", overwrite=True
        )
        one, other = EmbeddingFile(again.out), EmbeddingFile(direct.out)
        np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-5)
        assert one.rows.equals(other.rows)
        assert one.settings_id == other.settings_id
        assert again.notes == tuple(note for note in direct.notes if "beat" in note)
        assert [f.video_id for f in again.failed] == (["no-rate.npz"] if "beats" in plan else [])


def test_a_sweep_compares_heartbeats_where_the_file_knows_them(videos, tmp_path):
    from panecho_embed.extraction.reclipping import reclip
    from probes.comparison import sweep_tables

    (tmp_path / "some").mkdir()
    for name in ("seen.npz", "short.npz"):
        shutil.copy(videos / name, tmp_path / "some" / name)
    weights = on_frames(tmp_path / "mine.pt", 3)
    model = load_backbone("panecho", weights, image_size=32)
    frames = extract(tmp_path / "some", tmp_path / "frames.h5", backbone=model, level="frame", workers=0).out
    said: list[str] = []
    tables = dict(sweep_tables(frames, weights=weights, device="cpu", announce=said.append))
    assert list(tables)[-1] == "one heartbeat, 8 clips"
    assert "1 video without a whole trustworthy beat, cut at a step of 1 instead: short.npz" in said
    clips = EmbeddingFile(reclip(frames, tmp_path / "clips.h5", clips={"beats": 1}, weights=weights).out)
    np.testing.assert_allclose(tables["one heartbeat, 4 clips"].values, clips.embeddings, atol=1e-5)
    np.testing.assert_array_equal(tables["one heartbeat, 4 clips"].frame_step, clips.table().frame_step)


def test_the_command_takes_both_and_info_tells_the_beat(videos, tmp_path):
    out = tmp_path / "x.h5"
    words = ["extract", videos / "seen.npz", "-o", out, "--backbone", "random", "--image-size", 32, "--workers", 0]
    result = CliRunner().invoke(main, [*map(str, words), "--beats", "1"])
    assert result.exit_code == 0, result.output
    assert "note: heartbeat of 1 video: 1 by self-similarity" in result.output
    assert "beats 1 (random's own: None)" in result.output
    facts = json.loads(CliRunner().invoke(main, ["info", str(out), "--json"]).stdout)
    assert facts["heart_rate"]["self-similarity"] == 1
    assert facts["heart_rate"]["median"] == pytest.approx(75, rel=0.02)
    assert (facts["clips"]["beats"], facts["cut_without_beat"]) == (1, [])
    words[3] = tmp_path / "plans"
    plans = ["--plan", "--uniform --clips 1", "--plan", "--beats 1"]
    result = CliRunner().invoke(main, [*map(str, words), *plans])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "plans").iterdir()} == {"uniform_clips=1.h5", "beats=1.h5"}


def test_the_manifest_shows_what_the_header_tells(videos, tmp_path):
    out = tmp_path / "list.csv"
    result = CliRunner().invoke(main, ["manifest", str(videos), "-o", str(out), "--ids", "plain"])
    assert result.exit_code == 0, result.output
    with out.open(encoding="utf-8") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert rows["rate.dcm"]["heart_rate_bpm"] == "90.0"
    assert rows["rate.dcm"]["heart_rate_source"] == "(0018,1088) HeartRate"
    assert rows["waves.dcm"]["heart_rate_source"] == "(0018,6060) RWaveTimeVector"
    assert (rows["seen.npz"]["heart_rate_bpm"], rows["seen.npz"]["heart_rate_source"]) == ("", "")


def test_the_beat_in_frames():
    assert Recording(heart_rate_bpm=60.0, r_wave_times_ms=(100.0,)).beat(30.0) == Beat(30.0, (3.0,))
    assert math.isnan(Recording(heart_rate_bpm=60.0).beat(None).frames)
    assert math.isnan(Recording().beat(30.0).frames)
    with pytest.raises(ArgumentError, match="a beat has 0"):
        Beat(0.0)


def test_a_stretch_of_beats_does_not_cross_a_missed_r_wave():
    beat = Beat(30.0, (0, 30, 90, 120, 150, 180))
    assert beat.spans(2, 200, 15 / 16).tolist() == [[90, 60]]
    assert beat.spans(3, 200, 15 / 16).tolist() == [[90, 90]]
