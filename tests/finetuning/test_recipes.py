from __future__ import annotations

import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import RecipeError
from panecho_embed.finetuning.recipe_files import (
    load_recipe,
    parse_recipe,
    recipe_differences,
    recipe_names,
    recipe_text,
    to_toml,
)

SMALLEST = 'description = "x"\n[data]\ntargets = ["EF"]\n'


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_opens_with_its_command_and_says_what_to_expect(name):
    text = recipe_text(name)
    assert text.startswith(f"# panecho-embed finetune {name} --init panecho --data ")
    assert "# Expected: " in text or "# Expected (" in text
    assert load_recipe(name).description


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_written_reads_back_as_the_same_recipe(name):
    recipe = load_recipe(name, ["optimizer.lr=1e-5", "data.views=A4C,PSAX"])
    assert parse_recipe(to_toml(recipe), "written") == recipe


def test_the_published_protocol_is_the_default():
    recipe = load_recipe("echonet-dynamic")
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.batch_size) == ("adam", 1e-4, 0.0, 128)
    assert (recipe.clips.frames, recipe.clips.frame_step, recipe.clips.test) == (16, 1, 4)
    assert (recipe.schedule.name, recipe.schedule.epochs, recipe.early_stopping.patience) == ("constant", 30, 10)
    assert (recipe.loss.scale, recipe.early_stopping.monitor) == ("mean", "loss")
    assert not recipe.augmentation.enabled
    assert recipe.model.head_dropout == 0


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("optimizer.lr_rate=1", "optimizer.lr_rate; nearest: optimizer.lr"),
        ("optimiser.lr=1", "nearest: optimizer.lr"),
        ("learning=1", "no such setting"),
        ("optimizer.lr=fast", "optimizer.lr is 'fast'; allowed: a number"),
        ("optimizer.lr=0", "optimizer.lr is 0.0; allowed: above 0"),
        ("optimizer.lr=inf", "optimizer.lr is inf"),
        ("optimizer.name=adams", "allowed: adam, adamw; nearest: adam"),
        ("schedule.epochs=2.5", "schedule.epochs is 2.5; allowed: a whole number"),
        ("schedule.epochs=true", "schedule.epochs is True; allowed: a whole number"),
        ("augmentation.enabled=1", "augmentation.enabled is 1; allowed: true or false"),
        ("data.folds=2", "data.folds is 2; allowed: 0, or 3 or more"),
        ("data.fraction=0", "data.fraction is 0.0; allowed: above 0, at most 1"),
        ("data.targets=EF,EF", "data.targets is ['EF', 'EF']"),
        ("data.targets=", "label columns, or data.tasks set"),
        ("model.trainable=last", "allowed: all, heads, temporal, last-N"),
        ("clips.frames=-1", "frames_per_clip is -1"),
        ("seed=-1", "seed is -1"),
        ("optimizer.lr", "allowed is KEY=VALUE"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting, told):
    with pytest.raises((RecipeError, ValueError)) as caught:
        load_recipe("custom", [setting])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("description = ", "no TOML"),
        ('description = "x"\n[data]\ntargets = "EF"\n', "data.targets is 'EF'; allowed: a list of texts"),
        (SMALLEST + "[modell]\nwidth = 1\n", "modell.width; nearest: model.width"),
        ('[data]\ntargets = ["EF"]\n', "description is missing"),
    ],
)
def test_a_wrong_file_is_refused(text, told):
    with pytest.raises(RecipeError, match=r"mine\.toml") as caught:
        parse_recipe(text, "mine.toml")
    assert told in str(caught.value)


def test_settings_are_read_as_what_they_are():
    settings = ["data.targets=EF, ESV", "data.tasks=my tasks.csv", "seed=3", "optimizer.lr=1", "model.trainable=last-2"]
    recipe = load_recipe("custom", settings)
    assert recipe.data.targets == ("EF", "ESV")
    assert (recipe.data.tasks, recipe.seed, recipe.optimizer.lr) == ("my tasks.csv", 3, 1.0)
    assert recipe.model.trainable == "last-2"


def test_differences_name_the_setting_and_both_values():
    mine, theirs = load_recipe("custom"), load_recipe("custom", ["seed=1", "optimizer.lr=0.5"])
    assert recipe_differences(mine, theirs) == ["seed: 0, not 1", "optimizer.lr: 0.0001, not 0.5"]


def run(*words, expect=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result


def test_the_command_lists_shows_and_copies(tmp_path):
    assert all(name in run("recipes", "list").stdout for name in recipe_names())
    assert run("recipes", "show", "multitask").stdout == recipe_text("multitask")
    assert "lr = 0.5\n" in run("recipes", "show", "custom", "--set", "optimizer.lr=0.5").stdout
    mine = tmp_path / "mine.toml"
    run("recipes", "copy", "custom", "-o", mine)
    assert load_recipe(mine) == load_recipe("custom")
    assert "is there already" in run("recipes", "copy", "custom", "-o", mine, expect=2).stderr
    assert "nearest: echonet-dynamic" in run("recipes", "show", "echonet-dynamics", expect=2).stderr
