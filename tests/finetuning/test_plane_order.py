"""Which pictures a start is trained on: PanEcho's own order, the paper's recipes, frames; and what the report says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import VideoRef
from panecho_embed.finetuning.evaluate import EvaluationClips
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.recipe import ModelSettings
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.sampling import Key, TrainingClips
from panecho_embed.finetuning.starts import load_start
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from tests.finetuning.conftest import NARROW, finetune, rows_of
from tests.finetuning.fabricate import EF
from tests.test_extraction import moving

PAPER = ("echonet-dynamic", "echonet-pediatric", "echonet-lvh", "multitask")
STARTS = ("panecho", "random", "imagenet", "echoclip")


def order(recipe: str, init: str, *settings: str, weights=None) -> str:
    chosen = load_recipe(recipe, [*settings, f"model.width={NARROW if init == 'random' else 1}", "data.targets=EF"])
    return load_start(init, chosen.model, 4, weights=weights).plane_order


@pytest.mark.parametrize("init", STARTS)
@pytest.mark.parametrize("recipe", PAPER)
def test_the_papers_recipes_train_every_start_in_the_published_order(recipe, init, starts):
    assert order(recipe, init) == "published"


@pytest.mark.parametrize("init", STARTS)
def test_custom_trains_panecho_in_its_own_order_and_the_others_on_frames(init, starts):
    assert order("custom", init) == ("published" if init == "panecho" else "frames")
    assert order("custom", init, "model.plane_order=published") == "published"
    # Weights of a transformer live in their order, whatever a recipe says.
    assert order("echonet-dynamic", init, "model.plane_order=frames") == (
        "published" if init == "panecho" else "frames"
    )


def test_a_model_that_was_trained_on_frames_goes_on_so(tmp_path):
    model = PanEcho(pretrained=False, width=NARROW)
    model.plane_order = "frames"
    save_checkpoint(model, tmp_path / "mine.pt")
    assert order("echonet-dynamic", "panecho", weights=tmp_path / "mine.pt") == "frames"


def test_whole_clips_and_single_frames_have_no_order(starts):
    assert order("echonet-dynamic", "kinetics") == "frames"
    assert order("echonet-dynamic", "own-clips", "model.feeding=own") == "frames"
    with pytest.raises(ArgumentError, match=r"224 pixels a side; own-clips takes 32 only \(--set model\.feeding=own"):
        order("echonet-dynamic", "own-clips")
    assert order("echonet-dynamic", "panecho", "model.temporal=none") == "frames"


@torch.inference_mode()
def test_training_and_testing_see_what_panecho_sees(starts, weights, tmp_path):
    """Frames are augmented and cut as frames; the model mixes their planes, in one step as clip by clip."""
    start = load_start("panecho", ModelSettings(image_size=32), 6)
    model = FineTuneModel(start, [EF]).eval()
    np.save(tmp_path / "v.npy", moving(9))
    video = VideoRef("v", "s", "p", str(tmp_path / "v.npy"))
    clips = ["clips.frames=6", "clips.frame_step=1", "clips.test=1"]
    recipe = load_recipe("custom", [*clips, "augmentation.enabled=false"])
    batch = TrainingClips([video], start.feeding, recipe.clips.plan(1), recipe.augmentation, 0)[Key(1, 0, 1.0)]
    backbone = PanEcho(weights=weights / "panecho.pt", backbone_only=True)
    for pixels in (batch.pixels, torch.randint(0, 256, (2, 6, 3, 32, 32), dtype=torch.uint8)):
        expected = model.heads["EF"](backbone(model.normalise(pixels).transpose(1, 2)))
        torch.testing.assert_close(model(pixels), expected, atol=1e-5, rtol=1e-5)
    _, frames, planes, clips = EvaluationClips([video], start.feeding, recipe.clips.plan(1), "published")[0]
    tested = model.outputs(model.encode_pictures(model.normalise(frames).flatten(0, 1)[planes])[clips])
    torch.testing.assert_close(tested, model(frames[None]))


@pytest.mark.parametrize(
    ("recipe", "init", "words"),
    [
        (
            "echonet-dynamic",
            "panecho",
            "pictures of three consecutive planes in channel-major order (as PanEcho was published)",
        ),
        (
            "echonet-dynamic",
            "imagenet",
            "pictures of three consecutive planes in channel-major order (as PanEcho was published)",
        ),
        ("custom", "imagenet", "frames"),
    ],
)
def test_the_report_says_which_and_the_model_loads_with_it(recipe, init, words, dynamic, starts, tmp_path):
    out = tmp_path / "run"
    finetune(recipe, "--init", init, "--data", dynamic, "-o", out, data__targets="EF", schedule__epochs=1)
    page = (out / "report.html").read_text()
    assert f"<dt>Pictures</dt><dd>{words}</dd>" in page
    assert f"The image encoder saw {words}." in page
    published = words.startswith("pictures")
    assert json.loads((out / "run.json").read_text())["plane_order"] == ("published" if published else "frames")
    arguments = [
        "predict",
        dynamic,
        "-o",
        tmp_path / "p",
        "--weights",
        out / "model.pt",
        "--workers",
        "0",
        "--no-sheets",
    ]
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    mine = rows_of(out).set_index("video_id")["prediction"]
    theirs = pd.read_csv(tmp_path / "p" / "videos.csv").set_index("video_id")["EF"]
    np.testing.assert_allclose(theirs[mine.index], mine, rtol=2e-5)


def test_a_run_of_an_earlier_release_is_refused(dynamic, starts, tmp_path):
    words = ["echonet-dynamic", "--init", "random", "--data", dynamic, "-o", tmp_path / "run"]
    settings = {"model__width": NARROW, "schedule__epochs": 1}
    finetune(*words, **settings)
    path = tmp_path / "run" / "run.json"
    info = json.loads(path.read_text())
    path.write_text(
        json.dumps({key: value for key, value in info.items() if key != "plane_order"} | {"schema_version": 1})
    )
    (tmp_path / "run" / "SHA256SUMS").unlink()
    for status in ("done", "running"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
        told = finetune(*words, **settings, expect=1).output
        assert "made by an earlier release: it does not say in which order of planes" in told
    finetune(*words, "--overwrite", **settings)
    assert json.loads(path.read_text())["plane_order"] == "published"


def test_another_order_is_another_run(dynamic, starts, tmp_path):
    words = ["echonet-dynamic", "--init", "random", "--data", dynamic, "-o", tmp_path / "run"]
    finetune(*words, model__width=NARROW, schedule__epochs=1)
    told = finetune(*words, model__width=NARROW, schedule__epochs=1, model__plane_order="frames", expect=1).output
    assert "model.plane_order" in told


def test_the_model_of_a_start_is_the_recipes(starts):
    settings = ModelSettings(width=NARROW, image_size=32)
    assert FineTuneModel(load_start("random", settings, 2), [EF]).plane_order == "frames"
    published = load_start("random", replace(settings, plane_order="published"), 2)
    assert FineTuneModel(published, [EF]).plane_order == "published"
