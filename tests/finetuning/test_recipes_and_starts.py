"""Every recipe, and every start, through the real command, on phantoms in the data set's own layout."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import torch

from tests.finetuning.conftest import NARROW, finetune

STARTS = {
    "panecho": {},
    "random": {"model.width": NARROW},
    "imagenet": {},
    "echoclip": {},
    "kinetics": {"model.trainable": "last-1"},  # or four checkpoints of 400 MB each
    "timm:test_convnext": {},
    "own-frames": {},
    "own-clips": {"clips.frames": 4},
}
RECIPES = {
    "echonet-dynamic": ("dynamic", {}, ["EF"]),
    "echonet-pediatric": ("pediatric", {}, ["EF"]),
    "echonet-lvh": ("lvh", {}, ["IVSd", "LVIDd", "LVPWd", "LVIDs"]),
    "multitask": ("table", {}, ["pericardial-effusion", "EF", "GLS", "LVEDV", "LVSystolicFunction"]),
    "custom": ("table", {"data.targets": "EF,pericardial-effusion"}, ["EF", "pericardial-effusion"]),
}


# Every recipe and every start once; the other pairs are slow.
QUICK = {*((recipe, "panecho") for recipe in RECIPES), *(("custom", init) for init in STARTS)}
PAIRS = [
    pytest.param(recipe, init, id=f"{recipe}-{init}", marks=() if (recipe, init) in QUICK else pytest.mark.slow)
    for recipe in RECIPES
    for init in STARTS
]


@pytest.mark.parametrize(("recipe", "init"), PAIRS)
def test_it_ends_with_a_model_and_metrics(recipe, init, starts, request, tmp_path):
    if init != "panecho":
        # What it shows does not depend on the start.
        request.getfixturevalue("without_report")
    data, settings, targets = RECIPES[recipe]
    words = ["--fold", 0] if recipe == "echonet-pediatric" else []
    words += ["--weights", starts / "test_convnext.pt"] if init.startswith("timm:") else []
    out = tmp_path / "run"
    source = request.getfixturevalue(data)
    finetune(recipe, "--init", init, "--data", source, "-o", out, *words, **settings, **STARTS[init])
    run = out / "fold-0" if words[:1] == ["--fold"] else out
    info = json.loads((run / "run.json").read_text())
    assert (info["status"], info["init"], info["epochs"]) == ("done", init, 2)
    assert info["weights"]["pretrained"] == (init not in ("random", "own-frames", "own-clips"))
    assert list(json.loads((run / "metrics.json").read_text())["targets"]) == targets
    history = pd.read_csv(run / "history.csv")
    assert history["train_loss"].map(math.isfinite).all()
    saved = torch.load(run / "model.pt", weights_only=True)
    # PanEcho's own layout is for models that its own code would read: its order of planes and its pixels.
    layouts = {"panecho": "panecho", "random": "panecho-embed", "imagenet": "panecho-embed"}
    assert saved["panecho_embed"]["layout"] == layouts.get(init, "own")
    order = "frames" if recipe == "custom" and init != "panecho" else "published"
    # A model that sees clips as a whole has none.
    assert saved["panecho_embed"]["plane_order"] == (None if init in ("kinetics", "own-clips") else order)
