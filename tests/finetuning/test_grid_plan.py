"""Which runs a grid has, where they lie, and when they may be used again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.finetuning.folder import SCHEMA_VERSION, write_info
from panecho_embed.finetuning.grid import Trial, plan_trials, trial_state
from tests.finetuning.fabricate import fabricate, small_recipe

DATA = "cd" * 32  # the data digest of a fabricated run


def one(out: Path) -> Trial:
    (trial,) = plan_trials(small_recipe(), ["panecho"], out, seeds=1, fractions=[1.0])
    return trial


def test_every_start_gets_its_first_seed_before_any_gets_its_second(tmp_path: Path) -> None:
    trials = plan_trials(small_recipe(), ["panecho", "random"], tmp_path, seeds=2, fractions=[0.1, 1.0])
    assert [(t.seed, t.fraction, t.init) for t in trials[:3]] == [
        (0, 1, "panecho"),
        (0, 1, "random"),
        (0, 0.1, "panecho"),
    ]
    assert len(trials) == len({trial.folder for trial in trials}) == 8


def test_folders_can_be_read(tmp_path: Path) -> None:
    trials = plan_trials(small_recipe(), ["timm:resnet18.a1_in1k"], tmp_path, seeds=1, fractions=[0.01])
    assert trials[0].folder.relative_to(tmp_path) == Path("runs/timm-resnet18.a1_in1k/fraction-0.01/seed-0")


def test_a_trials_recipe_has_its_seed_and_fraction(tmp_path: Path) -> None:
    trial = plan_trials(replace(small_recipe(), seed=5), ["panecho"], tmp_path, seeds=2, fractions=[0.1])[1]
    assert (trial.seed, trial.recipe.seed, trial.recipe.data.fraction) == (6, 6, 0.1)


def test_a_width_is_that_of_random_weights_alone(tmp_path: Path) -> None:
    recipe = small_recipe()
    narrow = replace(recipe, model=replace(recipe.model, width=0.25))
    both = plan_trials(narrow, ["panecho", "random"], tmp_path, seeds=1, fractions=[1.0])
    assert [trial.recipe.model.width for trial in both] == [1.0, 0.25]
    # Without random weights it is refused, by the start that can't take it.
    assert plan_trials(narrow, ["panecho"], tmp_path, seeds=1, fractions=[1.0])[0].recipe == narrow


@pytest.mark.parametrize(
    ("inits", "seeds", "fractions", "message"),
    [
        (["a", "a"], 1, [1.0], "name each once"),
        ([], 1, [1.0], "name each once"),
        (["a:b", "a-b"], 1, [1.0], "share a folder"),
        (["a"], 0, [1.0], "--seeds"),
        (["a"], 1, [], "--fractions"),
        (["a"], 1, [0.0, 1.0], "--fractions"),
        (["a"], 1, [1.0, 1.0], "--fractions"),
    ],
)
def test_bad_plans_are_refused(
    tmp_path: Path, inits: list[str], seeds: int, fractions: list[float], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        plan_trials(small_recipe(), inits, tmp_path, seeds=seeds, fractions=fractions)


def test_a_run_is_missing_begun_or_done(tmp_path: Path) -> None:
    trial = one(tmp_path)
    assert trial_state(trial, DATA) == "missing"
    fabricate(trial.folder, trial.recipe, info={"status": "running"})
    assert trial_state(trial, DATA) == "begun"
    fabricate(trial.folder, trial.recipe)
    assert trial_state(trial, DATA) == "done"


def test_another_recipe_start_or_data_set_is_refused_by_name(tmp_path: Path) -> None:
    trial = one(tmp_path)
    other = replace(trial.recipe, optimizer=replace(trial.recipe.optimizer, lr=3e-5))
    fabricate(trial.folder, other, init="imagenet")
    with pytest.raises(SettingsMismatchError) as error:
        trial_state(trial, "ef" * 32)
    for text in (
        "optimizer.lr: 0.0001, not 3e-05",
        "init: panecho, not imagenet",
        "splits and labels: efefefefefef, not cdcdcdcdcdcd",
    ):
        assert text in str(error.value)


def test_a_damaged_run_is_told(tmp_path: Path) -> None:
    trial = one(tmp_path)
    fabricate(trial.folder, trial.recipe)
    write_info({"schema_version": SCHEMA_VERSION, "init": "panecho"}, trial.folder)
    with pytest.raises(StoreError, match="no run can be read"):
        trial_state(trial, DATA)
