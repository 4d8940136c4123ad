"""The real command on phantoms in the data sets' own layouts, as small as it goes."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.models.panecho import PanEcho
from panecho_embed.phantoms import write_studies

SMALL = [
    *("model.width=0.0834", "model.image_size=32", "clips.frames=2", "clips.test=2", "schedule.epochs=2"),
    *("schedule.warmup_epochs=0", "optimizer.batch_size=8", "evaluation.draws=50"),
]


def run(*words, expect=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result


def options(*settings):
    return [word for setting in (*SMALL, *settings) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "dynamic"
    write_studies(folder, "echonet-dynamic", patients=16, num_frames=4, size=48)
    return folder


@pytest.fixture(scope="module")
def done(dynamic, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    run("finetune", "echonet-dynamic", "--init", "random", "--data", dynamic, "-o", out, *options())
    return out


def test_a_run_leaves_what_the_documentation_says(done):
    names = {path.name for path in done.iterdir()}
    assert names >= {"recipe.toml", "run.json", "tasks.csv", "history.csv", "history.svg", "tensorboard", "model.pt"}
    assert names >= {"predictions.csv", "metrics.json", "failures.csv", "report.html"}
    assert "checkpoints" not in names
    info = json.loads((done / "run.json").read_text())
    assert (info["status"], info["epochs"], info["weights"]["pretrained"]) == ("done", 2, False)
    assert len(pd.read_csv(done / "history.csv")) == 2


def test_random_feeds_pixels_of_0_to_1(done):
    feeding = json.loads((done / "run.json").read_text())["feeding"]
    assert (feeding["mean"], feeding["std"]) == ([0, 0, 0], [1, 1, 1])


def test_the_model_loads_as_a_panecho(done):
    model = PanEcho(weights=done / "model.pt")
    assert [task.name for task in model.tasks] == ["EF"]
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 2, 32, 32))["EF"].isfinite().all()


def test_a_finished_run_is_not_run_again(done, dynamic):
    again = run("finetune", "echonet-dynamic", "--init", "random", "--data", dynamic, "-o", done, *options())
    assert "is done already" in again.stderr


def test_a_folder_of_another_recipe_is_refused_by_the_setting_that_differs(done, dynamic):
    other = options("optimizer.lr=0.5")
    result = run("finetune", "echonet-dynamic", "--init", "random", "--data", dynamic, "-o", done, *other, expect=1)
    assert "optimizer.lr: 0.5, not 0.0001" in result.stderr


def test_another_data_set_is_refused(dynamic, tmp_path):
    result = run("finetune", "echonet-pediatric", "--init", "random", "--data", dynamic, "-o", tmp_path / "x", expect=1)
    assert "is laid out as echonet-dynamic" in result.stderr
    assert "the recipe expects echonet-pediatric" in result.stderr


def test_a_fold_out_of_range_is_refused(dynamic, tmp_path):
    words = ["--init", "random", "--data", dynamic, "-o", tmp_path / "x", "--fold", 12]
    assert "allowed are 0 to 9" in run("finetune", "echonet-pediatric", *words, expect=2).stderr
