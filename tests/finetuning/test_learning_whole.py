"""Whole trainings, minutes long: random weights that come to beat their frozen selves; PanEcho at full size."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.finetuning.grid_report import grid
from panecho_embed.models import zoo
from panecho_embed.phantoms import write_studies
from probes.frozen import linear_probe
from tests.finetuning.conftest import NARROW, finetune, rows_of

pytestmark = pytest.mark.slow

SMALL = (
    *(f"model.width={NARROW}", "model.image_size=32", "model.head_init=deviation"),
    *("clips.frames=8", "clips.frame_step=4", "optimizer.lr=1e-3", "optimizer.batch_size=8", "optimizer.clip_norm=1"),
    *("schedule.name=cosine", "schedule.warmup_epochs=1", "schedule.epochs=20", "early_stopping.patience=20"),
)


def test_from_random_it_beats_the_mean_and_the_frozen_start(tmp_path):
    write_studies(tmp_path / "data", "echonet-dynamic", patients=200, num_frames=32, fps=25, size=48)
    words = {"seeds": 1, "settings": SMALL, "frozen": linear_probe}
    result = grid("echonet-dynamic", ["random"], tmp_path / "data", tmp_path / "which", **words)
    (comparison,) = result.comparisons[1.0]
    assert comparison.standings["random"].scores["r2"].low > 0
    (contrast,) = comparison.contrasts
    # The frozen start's mean absolute error less the trained one's, over the same patients.
    assert (contrast.second, comparison.metric) == ("random", "mae")
    assert contrast.difference.low > 0


def test_the_full_size_model_trains_and_predicts(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    write_studies(data, "echonet-dynamic", patients=16, num_frames=20, size=112)
    settings = {"model.image_size": 112, "clips.frames": 16, "data.fraction": 0.3, "optimizer.batch_size": 2}
    finetune("echonet-dynamic", "--init", "random", "--data", data, "-o", run, **settings, schedule__epochs=1)
    saved = torch.load(run / "model.pt", weights_only=True)["weights"]
    begun = zoo.random(None, 0).clip_encoder.state_dict()
    for name, tensor in begun.items():
        assert not torch.equal(saved[f"encoder.{name}"], tensor), name
    words = ["predict", data, "-o", tmp_path / "p", "--weights", run / "model.pt", "--no-sheets"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    expected = rows_of(run).set_index("video_id")["prediction"]
    found = pd.read_csv(tmp_path / "p" / "videos.csv").set_index("video_id")["EF"]
    pd.testing.assert_series_equal(found[expected.index], expected, rtol=1e-4, check_names=False)
    assert json.loads((run / "run.json").read_text())["counts"]["train"] == 4
