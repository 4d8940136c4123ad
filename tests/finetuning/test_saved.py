"""model.pt is the model that predicted: it loads again and gives the run's own predictions, or is refused in words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.tasks import read_tasks, write_tasks
from panecho_embed.datasets import read_manifest
from panecho_embed.finetuning.evaluate import EvaluationClips
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.recipe import ClipSettings, ModelSettings
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.saved import write_model
from panecho_embed.finetuning.starts import load_start
from panecho_embed.models.panecho import PanEcho
from panecho_embed.store import EmbeddingFile
from tests.finetuning.conftest import NARROW, finetune, rows_of
from tests.finetuning.fabricate import EF, GRADE


def run(*words, expect=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result


def probabilities(table, key, target, label=""):
    """One number a video or study, by its id; label: of the class, the last of two."""
    rows = table[table["target"] == target]
    values = rows["prediction"]
    if label:
        parts = rows["probability"].astype(str).str.split(";")
        values = parts.str[rows["classes"].iloc[0].split(";").index(label) if parts.iloc[0][1:] else 0]
    return dict(zip(rows[key], values.astype(float), strict=True))


@pytest.fixture(scope="module")
def multitask(table, weights, tmp_path_factory):
    """From ImageNet, whose pixels are not PanEcho's; with a running mean of the weights."""
    out = tmp_path_factory.mktemp("runs") / "multitask"
    words = ["--init", "imagenet", "--weights", weights / "convnext_tiny-983f1562.pth", "--data", table, "-o", out]
    # Large steps, so that no two moments of the training are alike; half of a step's weights stay behind it.
    learning = {"optimizer__lr": 0.01, "optimizer__ema": 0.5, "optimizer__batch_size": 4}
    finetune("multitask", *words, clips__frame_step=2, **learning)
    return out


@pytest.fixture(scope="module")
def predicted(multitask, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    run("predict", table, "-o", out, "--weights", multitask / "model.pt", "--workers", "0", "--no-sheets")
    return out


@pytest.mark.parametrize(
    ("level", "theirs", "key"),
    [("video", "videos", "video_id"), ("study", "studies", "study_id")],
)
def test_predict_gives_the_predictions_of_the_run(multitask, predicted, level, theirs, key):
    mine = rows_of(multitask, level)
    theirs = pd.read_csv(predicted / f"{theirs}.csv", dtype={key: str}).set_index(key)
    for target, label in (
        ("EF", ""),
        ("GLS", ""),
        ("pericardial-effusion", "mild_mod_severe"),
        ("LVSystolicFunction", "Normal|Hyperdynamic"),
    ):
        expected = probabilities(mine, key, target, label)
        column = f"{target}:{label}" if label else target
        found = theirs.loc[list(expected), column].to_numpy(dtype=float)
        np.testing.assert_allclose(found, list(expected.values()), rtol=2e-5, err_msg=target)


def test_extract_takes_pixels_and_clips_as_trained(multitask, table, tmp_path):
    run("extract", table, "-o", tmp_path / "e.h5", "--weights", multitask / "model.pt", "--workers", "0")
    provenance = EmbeddingFile(tmp_path / "e.h5").provenance
    plan = provenance.clips
    assert (plan.frames_per_clip, plan.frame_step, plan.num_clips) == (2, 2, 2)
    assert (provenance.feeding.crop, provenance.feeding.resize) == (32, 37)
    assert (provenance.feeding.channel_order, provenance.feeding.mean[0]) == ("rgb", 0.485)
    assert provenance.plane_order == "published"


def test_it_says_where_it_comes_from(multitask):
    about = torch.load(multitask / "model.pt", weights_only=True)["panecho_embed"]
    assert (about["init"], about["pretrained"], about["layout"]) == ("imagenet", True, "panecho-embed")
    assert about["plane_order"] == "published"
    assert [task["name"] for task in about["tasks"]][:2] == ["pericardial-effusion", "EF"]
    assert json.loads((multitask / "run.json").read_text())["feeding"]["channel_order"] == "rgb"


def test_its_licence_is_not_panecho_s(predicted):
    """The file that it was trained from states none."""
    assert json.loads((predicted / "predictions.json").read_text())["model"]["licence"] == "not stated"
    assert "CC BY-NC-SA" not in (predicted / "report.html").read_text()


@pytest.mark.parametrize(
    ("scale", "mean", "std", "order"),
    [
        (1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bgr"),
        (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb"),
        (1.0, (29.0, 28.0, 31.0), (48.0, 46.0, 47.0), "rgb"),
    ],
)
def test_other_pixels_are_worked_into_the_first_layer(scale, mean, std, order, tmp_path):
    """As trained, on its own pixels, and as saved, on PanEcho's, a model gives the same for the same frames."""
    start = load_start("random", ModelSettings(width=NARROW, image_size=32, plane_order="frames"), 2)
    start = replace(start, feeding=replace(start.feeding, scale=scale, mean=mean, std=std, channel_order=order))
    model = FineTuneModel(start, [EF, GRADE]).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # As drawn, a block adds a millionth of itself, and the stem has no bias.
            parameter += 0.1 if name.endswith(("gamma", "bias")) else 0.0
    layout = write_model(model, start, [EF, GRADE], ClipSettings(frames=2), tmp_path / "model.pt")
    assert layout == "panecho-embed"
    write_tasks([EF, GRADE], tmp_path / "tasks.csv")
    bgr = torch.randint(0, 255, (3, 2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = Feeding()
    mean_std = [torch.tensor(values)[:, None, None] for values in (theirs.mean, theirs.std)]
    pixels = ((bgr / 255 - mean_std[0]) / mean_std[1]).transpose(1, 2)
    with torch.no_grad():
        mine = model(bgr if order == "bgr" else bgr.flip(2))
        saved = PanEcho(weights=tmp_path / "model.pt")(pixels)
    torch.testing.assert_close(torch.cat([saved["EF"], saved["Grade"]], dim=1), mine, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("init", "settings"),
    [("own-frames", {}), ("random", {"model.temporal": "none", "model.width": NARROW})],
)
def test_a_model_of_another_shape_is_refused_by_its_origin_and_put_together_from_it(
    init, settings, dynamic, starts, tmp_path
):
    out = tmp_path / "run"
    finetune("echonet-dynamic", "--init", init, "--data", dynamic, "-o", out, **settings, schedule__epochs=1)
    assert torch.load(out / "model.pt", weights_only=True)["panecho_embed"]["layout"] == "own"
    for command in (["extract", dynamic, "-o", tmp_path / "e.h5"], ["predict", dynamic, "-o", tmp_path / "p"]):
        told = run(*command, "--weights", out / "model.pt", expect=1).stderr
        assert f"a model that `finetune` made from '{init}'" in told
        assert "Traceback" not in told
    assert put_together(out, init) == pytest.approx(predictions(out), rel=1e-5)


def put_together(run, init):
    """The predictions of a run's videos, made as docs/finetuning.md says."""
    recipe = load_recipe(run / "recipe.toml")
    start = load_start(init, recipe.model, recipe.clips.frames)
    model = FineTuneModel(start, read_tasks(run / "tasks.csv")).eval()
    model.load_state_dict(torch.load(run / "model.pt", weights_only=True)["weights"])
    info = json.loads((run / "run.json").read_text())
    videos = {video.video_id: video for video in read_manifest(info["data"]["path"]).videos}
    chosen = [videos[name] for name in predictions(run)]
    decoded = EvaluationClips(chosen, start.feeding, recipe.clips.plan(2), start.plane_order)
    found = {}
    with torch.no_grad():
        for i, video in enumerate(chosen):
            _, pixels, planes, clips = decoded[i]
            pictures = model.encode_pictures(model.normalise(pixels).flatten(0, 1)[planes])
            found[video.video_id] = model.outputs(pictures[clips]).mean().item()
    return found


def predictions(run):
    return rows_of(run).set_index("video_id")["prediction"].to_dict()
