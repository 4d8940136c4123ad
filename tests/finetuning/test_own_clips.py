"""`custom` gives each start the clips that it was trained on; what the recipe states comes first."""

from __future__ import annotations

import json

import pytest

from panecho_embed.finetuning.grid import plan_trials
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.starts import with_own_clips
from tests.finetuning.conftest import finetune


@pytest.mark.parametrize(
    ("init", "clips"),
    [
        ("panecho", (16, 1, 0.0)),
        ("random", (16, 1, 0.0)),
        ("echoprime", (16, 2, 0.0)),
        ("kinetics", (16, 1, 15.0)),
        ("timm:resnet18", (16, 1, 0.0)),
        ("own-clips", (4, 1, 0.0)),
    ],
)
def test_each_start_has_its_own(starts, init, clips):
    found = with_own_clips(load_recipe("custom"), init).clips
    assert (found.frames, found.frame_step, found.target_fps) == clips
    assert (found.validation, found.test, found.short) == (4, 4, "repeat")


def test_what_is_stated_comes_first():
    own = with_own_clips(load_recipe("custom", ["clips.frames=8"]), "kinetics").clips
    assert (own.frames, own.target_fps) == (8, 15.0)
    stated = with_own_clips(load_recipe("custom", ["clips.target_fps=30"]), "echoprime").clips
    assert (stated.frames, stated.frame_step, stated.target_fps) == (16, 1, 30.0)
    stepped = with_own_clips(load_recipe("custom", ["clips.frame_step=3"]), "kinetics").clips
    assert (stepped.frame_step, stepped.target_fps) == (3, 0.0)
    published = load_recipe("echonet-dynamic")
    assert with_own_clips(published, "echoprime") is published


def test_the_runs_of_a_grid_have_them_too(tmp_path):
    trials = plan_trials(load_recipe("custom"), ["panecho", "echoprime"], tmp_path, seeds=1, fractions=[1.0])
    assert [trial.recipe.clips.frame_step for trial in trials] == [1, 2]


def test_a_run_states_the_numbers(starts, table, without_report, tmp_path):
    settings = {"data.targets": "EF", "clips.frames": 0, "schedule.epochs": 1}
    finetune("custom", "--init", "own-clips", "--data", table, "-o", tmp_path / "run", **settings)
    assert "frames = 4" in (tmp_path / "run" / "recipe.toml").read_text()
    overrides = json.loads((tmp_path / "run" / "run.json").read_text())["overrides"]
    assert not any(line.startswith(("frames_per_clip", "frame_step")) for line in overrides)
