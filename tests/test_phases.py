"""Clips from end diastole to end systole, by the frames that a data set's tables name."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.beats import Beat
from panecho_embed.core.clips import ClipPlan, OneClip, resolve_plan
from panecho_embed.core.errors import ArgumentError, ManifestError, MediaError
from panecho_embed.extraction.reclipping import reclip
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.store import EmbeddingFile, verify
from tests.media.builders import numbered_frames, write_avi
from tests.test_reclipping import on_frames
from tests.tiny import tiny

FRAMES = 24
PHASES = {"forwards": (3, 17), "backwards": (20, 6), "close": (4, 6)}
LACKING = {"no_es": ("3", ""), "beyond": ("3", str(FRAMES)), "equal": ("5", "5"), "between": ("3.5", "9")}


def table(folder: Path, phases: dict[str, tuple[object, object]]) -> Path:
    lines = [f"{name}.avi,{name},{ed},{es}" for name, (ed, es) in phases.items()]
    path = folder / "videos.csv"
    path.write_text("\n".join(["path,patient_id,ed_frame,es_frame", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phases")
    for name in {**PHASES, **LACKING}:
        write_avi(folder / f"{name}.avi", numbered_frames(FRAMES, 32, 32))
    return folder


def indices(ed: float, es: float, frames: int = 16) -> list[int]:
    plan = resolve_plan({"num_clips": "ed-es"}, ClipPlan(frames))
    return plan.indices(FRAMES, None, Beat(end_diastole=ed, end_systole=es))[0].tolist()


def test_frames_are_spread_from_the_first_phase_to_the_second_both_included():
    assert indices(3, 18) == list(range(3, 19))
    assert indices(18, 3) == list(range(3, 19))
    assert indices(4, 14, frames=3) == [4, 9, 14]
    assert indices(4, 7, frames=3) == [4, 6, 7]
    assert indices(4, 6, frames=5) == [4, 5, 5, 6, 6]


@pytest.mark.parametrize("changes", [{"frame_step": 2}, {"stride": 3}, {"beats": 1}, {"uniform": True}, {"start": 0}])
def test_nothing_else_chooses_frames_beside_it(changes):
    with pytest.raises(ArgumentError, match="end systole"):
        resolve_plan({"ed_es": True, **changes}, ClipPlan())


def test_a_clip_of_one_frame_and_training_clips_are_refused():
    with pytest.raises(ArgumentError, match="2 frames or more"):
        resolve_plan({"ed_es": True, "frames_per_clip": 1}, ClipPlan())
    with pytest.raises(ArgumentError, match="heartbeat"):
        OneClip(resolve_plan({"ed_es": True}, ClipPlan()), 0.5)


@pytest.mark.parametrize(("ed", "es", "message"), [(math.nan, 4, "ed_frame is not"), (2, 24, "two frames of its 24")])
def test_a_video_without_the_two_frames_is_an_error(ed, es, message):
    with pytest.raises(MediaError, match=message):
        indices(ed, es)


def test_each_video_is_cut_by_its_own_frames_and_one_without_them_fails(videos, tmp_path):
    source = table(videos, {**PHASES, **LACKING})
    summary = extract(source, tmp_path / "x.h5", backbone=tiny(), clips={"num_clips": "ed-es"}, workers=0)
    file = EmbeddingFile(summary.out)
    rows = file.rows.set_index("patient_id")
    assert rows["first_frame"].to_dict() == {"forwards": 3, "backwards": 6, "close": 4}
    assert rows["frame_step"].to_dict() == pytest.approx({"forwards": 14 / 15, "backwards": 14 / 15, "close": 2 / 15})
    assert {Path(failure.path).stem for failure in summary.failed} == LACKING.keys()
    assert summary.exit_code == 3
    told = {Path(failure.path).stem: failure.message for failure in summary.failed}
    assert told["no_es"] == "its es_frame is not known (--clips ed-es)"
    assert "es_frame 24" in told["beyond"]
    assert file.provenance.clips is not None
    assert file.provenance.clips.ed_es
    plain = EmbeddingFile(extract(source, tmp_path / "y.h5", backbone=tiny(), workers=0).out)
    assert plain.settings_id != file.settings_id
    assert "end_diastole" in file.videos
    assert "end_diastole" not in plain.videos
    assert verify(file.path) == []


def test_a_corrected_table_cuts_these_videos_again_and_no_others(videos, tmp_path):
    arguments = {"backbone": tiny(), "clips": {"num_clips": "ed-es"}, "workers": 0}
    out = extract(table(videos, PHASES), tmp_path / "x.h5", **arguments).out
    again = extract(table(videos, {**PHASES, "close": (8, 12)}), out, **arguments)
    assert again.reused == 2
    assert EmbeddingFile(out).rows.set_index("patient_id")["first_frame"].to_dict()["close"] == 8
    assert extract(table(videos, {**PHASES, "close": (8, 12)}), out, **arguments).reused == 3


def test_clips_of_a_frame_level_file_are_those_of_the_videos(videos, tmp_path):
    weights = on_frames(tmp_path / "mine.pt", 3)
    model = load_backbone("panecho", weights, image_size=32)
    source, plan = table(videos, {**PHASES, "no_es": (3, "")}), {"num_clips": "ed-es"}
    frames = extract(source, tmp_path / "frames.h5", backbone=model, level="frame", workers=0).out
    again = reclip(frames, tmp_path / "again.h5", clips=plan, weights=weights)
    direct = extract(source, tmp_path / "direct.h5", backbone=model, clips=plan, workers=0)
    one, other = EmbeddingFile(again.out), EmbeddingFile(direct.out)
    np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-5)
    assert one.rows.equals(other.rows)
    assert one.settings_id == other.settings_id
    assert one.videos["end_systole"].equals(other.videos["end_systole"])
    assert [f.message for f in again.failed] == [f.message for f in direct.failed]


def test_an_input_without_the_two_columns_is_refused(videos, tmp_path):
    (videos / "plain.csv").write_text("path,patient_id,EF\nclose.avi,close,60\n")
    with pytest.raises(ManifestError, match=r"ed_frame and es_frame.*the input has EF"):
        extract(videos / "plain.csv", tmp_path / "x.h5", backbone=tiny(), clips={"num_clips": "ed-es"}, workers=0)


def test_the_command_takes_it_alone_and_in_a_plan(videos, tmp_path):
    source = table(videos, PHASES)
    words = ["extract", source, "-o", tmp_path / "x.h5", "--backbone", "random", "--image-size", 32, "--workers", 0]
    result = CliRunner().invoke(main, [*map(str, words), "--clips", "ed-es"])
    assert result.exit_code == 0, result.output
    assert "ed_es True (random's own: False)" in result.output
    words[3] = tmp_path / "plans"
    result = CliRunner().invoke(main, [*map(str, words), "--plan", "--clips ed-es", "--plan", "--clips 1"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "plans").iterdir()} == {"clips=ed-es.h5", "clips=1.h5"}
    result = CliRunner().invoke(main, [*map(str, words), "--clips", "many"])
    assert "neither a whole number nor ed-es" in result.output
