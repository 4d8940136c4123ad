"""Models of their full size through the command; minutes."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.phantoms import write_studies
from tests.finetuning.conftest import finetune

ensure_torchvision()
from torchvision.models.video import mvit_v2_s  # noqa: E402

pytestmark = pytest.mark.slow

FEW = {"schedule.epochs": 1, "optimizer.batch_size": 2, "optimizer.micro_batch": 2, "clips.test": 1}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "few"
    write_studies(folder, "echonet-dynamic", patients=6, num_frames=20)
    return folder


def test_panecho_as_released_at_its_own_size(few, tmp_path):
    """42 M parameters, 16 frames of 224 pixels."""
    save_checkpoint(PanEcho(pretrained=False), tmp_path / "panecho.pt")
    out = tmp_path / "run"
    words = ["echonet-dynamic", "--init", "panecho", "--weights", tmp_path / "panecho.pt", "--data", few, "-o", out]
    finetune(*words, **FEW | {"clips.frames": 16, "model.image_size": 0})
    info = json.loads((out / "run.json").read_text())
    assert (info["feeding"]["crop"], info["epochs"]) == (224, 1)
    model = PanEcho(weights=out / "model.pt")
    assert model.dim == 768
    predicted = pd.read_csv(out / "predictions.csv")
    assert predicted["prediction"].notna().all()


def test_echoprime_as_released_with_its_encoder_frozen(few, tmp_path):
    """Whole clips of 16 frames of 224 pixels on the 0-255 scale."""
    model = mvit_v2_s()
    model.head = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(768, 512))
    torch.save(model.state_dict(), tmp_path / "echo_prime_encoder.pt")
    out = tmp_path / "run"
    words = ["echonet-dynamic", "--init", "echoprime", "--weights", tmp_path / "echo_prime_encoder.pt", "--data", few]
    settings = FEW | {"clips.frames": 16, "model.image_size": 0, "model.trainable": "last-1"}
    finetune(*words, "-o", out, **settings)
    info = json.loads((out / "run.json").read_text())
    assert (info["feeding"]["scale"], info["status"]) == (1.0, "done")
    before = model.state_dict()
    after = torch.load(out / "model.pt", weights_only=True)["weights"]
    changed = [name for name, value in before.items() if not torch.equal(after[f"clip_encoder.model.{name}"], value)]
    assert changed == ["head.1.weight", "head.1.bias"]


def test_kinetics_with_all_of_it_learning(few, tmp_path, starts):
    out = tmp_path / "run"
    words = ["echonet-dynamic", "--init", "kinetics", "--data", few, "-o", out]
    finetune(*words, **FEW | {"clips.frames": 8, "model.image_size": 0})
    before = torch.load(starts / "r3d_18-b3b3357e.pth", weights_only=True)
    after = torch.load(out / "model.pt", weights_only=True)["weights"]
    weights = [name for name in before if name.endswith((".weight", ".running_mean")) and not name.startswith("fc.")]
    assert not [name for name in weights if torch.equal(after[f"clip_encoder.model.{name}"], before[name])]
