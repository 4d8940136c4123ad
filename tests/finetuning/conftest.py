"""Phantom data sets as downloaded, and weights files as published, as small as they go."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from panecho_embed.cli.main import main
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.finetuning import report
from panecho_embed.models import backbones
from panecho_embed.models.backbones import Backbone, MeanOverFrames
from panecho_embed.models.checkpoint import CONVNEXT_TINY, ECHOCLIP, to_checkpoint_names
from panecho_embed.models.panecho import PanEcho, convnext, save_checkpoint
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.phantoms import write_studies

ensure_torchvision()
import timm  # noqa: E402
from torchvision.models.video import r3d_18  # noqa: E402

SMALL = {
    "model.image_size": "32",
    "clips.frames": "2",
    "clips.test": "2",
    "schedule.epochs": "2",
    "schedule.warmup_epochs": "0",
    "optimizer.batch_size": "8",
    "evaluation.draws": "20",
}
"""Settings under which a run takes a second."""

NARROW = 1 / 12

Finetune = Callable[..., Result]


def finetune(*words: object, expect: int = 0, **settings: object) -> Result:
    """`panecho-embed finetune WORDS`, small, with further settings: model__width=0.5."""
    chosen = SMALL | {key.replace("__", "."): str(value) for key, value in settings.items()}
    options = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(main, ["finetune", *map(str, words), *options])
    assert result.exit_code == expect, result.output
    return result


def rows_of(run: Path, level: str = "video", split: str = "") -> pd.DataFrame:
    """The rows of one level in a run's table of predictions; ids as text."""
    rows = pd.read_csv(run / "predictions.csv", dtype={"video_id": str, "study_id": str, "patient_id": str})
    chosen = rows["level"] == level
    return rows[chosen & (rows["split"] == split) if split else chosen].reset_index(drop=True)


def _phantoms(layout: str, patients: int) -> Callable[[pytest.TempPathFactory], Path]:
    def make(tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("data") / layout
        write_studies(folder, layout, patients=patients, num_frames=4, size=48)
        return folder

    return make


dynamic = pytest.fixture(scope="session")(_phantoms("echonet-dynamic", 16))
pediatric = pytest.fixture(scope="session")(_phantoms("echonet-pediatric", 12))
lvh = pytest.fixture(scope="session")(_phantoms("echonet-lvh", 16))


@pytest.fixture(scope="session")
def table(pediatric: Path) -> Path:
    """A table of both views of 12 studies with five of PanEcho's tasks, labels missing here and there."""
    with (pediatric / "A4C" / "FileList.csv").open(encoding="utf-8") as file:
        efs = {row["FileName"].rsplit("-", 1)[0]: float(row["EF"]) for row in csv.DictReader(file)}
    middle = sorted(efs.values())[len(efs) // 2]
    rows = []
    for number, (study, ef) in enumerate(efs.items()):
        low = ef < middle
        labels = {
            "EF": ef,
            "GLS": "" if number == 1 else round(-ef / 3, 3),
            "LVEDV": "" if number % 5 == 2 else round(200 - ef, 3),
            "pericardial-effusion": "mild_mod_severe" if low else "none_trace",
            "LVSystolicFunction": "Moderately|Severely Decreased" if low else "Normal|Hyperdynamic",
        }
        split = "train" if number < 6 else "val" if number < 9 else "test"
        ids = {"study_id": study, "patient_id": study.partition("-")[0], "split": split}
        for view in ("A4C", "PSAX"):
            path = next((pediatric / view / "Videos").glob(f"{study}-*.avi"))
            rows.append({"path": path, **ids, "view": view, **labels})
    path = pediatric.parent / "videos.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 28 phantom patients with a video each, 12 to train, 8 to validate and 8 to test.

    EF; LowEF, "yes" in the lower half; and Grade, the thirds of EF as severe, mild, none.
    """
    folder = tmp_path_factory.mktemp("graded")
    write_studies(folder / "data", "echonet-dynamic", patients=28, num_frames=4, size=48)
    files = pd.read_csv(folder / "data" / "FileList.csv").sort_values("EF", ignore_index=True)
    # By rank, so that every part has every class: low is the lower half.
    place = {"train": (0, 2, 5), "val": (1, 4), "test": (3, 6)}
    split = [next(name for name, places in place.items() if i % 7 in places) for i in range(len(files))]
    table = pd.DataFrame(
        {
            "path": [folder / "data" / "Videos" / f"{name}.avi" for name in files["FileName"]],
            "video_id": files["FileName"],
            "study_id": "s" + files["FileName"],
            "patient_id": "p" + files["FileName"],
            "split": split,
            "EF": files["EF"],
            "LowEF": ["yes" if i < 14 else "no" for i in range(len(files))],
            "Grade": [("severe", "mild", "none")[3 * i // len(files)] for i in range(len(files))],
        }
    )
    table.to_csv(folder / "videos.csv", index=False)
    return folder / "videos.csv"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights files under their published names and in their published layouts; narrow where they may."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save_checkpoint(PanEcho(pretrained=False, width=NARROW), folder / "panecho.pt")
        tiny = to_checkpoint_names(convnext("tiny", 8).state_dict(), CONVNEXT_TINY)
        classifier = {"classifier.2.weight": torch.randn(1000, 64), "classifier.2.bias": torch.zeros(1000)}
        torch.save({**tiny, **classifier}, folder / "convnext_tiny-983f1562.pth")
        tower = nn.Sequential()
        tower.add_module("trunk", convnext("base", 8))
        tower.add_module("proj", nn.Linear(64, 32, bias=False))
        text = {"logit_scale": torch.zeros(()), "ln_final.bias": torch.zeros(4)}
        torch.save(
            {**to_checkpoint_names(tower.state_dict(), ECHOCLIP), **text}, folder / "open_clip_pytorch_model.bin"
        )
        torch.save(r3d_18().state_dict(), folder / "r3d_18-b3b3357e.pth")
        torch.save(timm.create_model("test_convnext").state_dict(), folder / "test_convnext.pt")
    return folder


class WholeClips(nn.Module):
    """(N, 4, 3, S, S) to (N, 16): a three-dimensional model with batch norm, of clips of exactly 4 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 16, (4, 8, 8), stride=(1, 8, 8)), nn.BatchNorm3d(16), nn.ReLU(), nn.AdaptiveAvgPool3d(1)
        )

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        encoded: torch.Tensor = self.layers(clips.transpose(1, 2)).flatten(1)
        return encoded


def _own_frames(weights: str | Path | None, seed: int) -> Backbone:
    encoder = nn.Sequential(nn.Conv2d(3, 16, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    info = WeightsInfo("mine", "0" * 64, "MIT", pretrained=False)
    return Backbone("own-frames", encoder, MeanOverFrames(), 16, 16, Feeding(channel_order="rgb"), info)


def _own_clips(weights: str | Path | None, seed: int) -> Backbone:
    """As EchoPrime: pixels of 0-255, whole clips of one length, images of one size."""
    normalising = {"scale": 1.0, "mean": (29.0, 28.0, 29.0), "std": (48.0, 46.0, 47.0)}
    feeding = Feeding(resize=32, crop=32, channel_order="rgb", clips=ClipPlan(4), **normalising)
    info = WeightsInfo("mine", "1" * 64, "MIT", pretrained=False)
    fixed = {"fixed_clip_length": True, "fixed_image_size": True}
    return Backbone("own-clips", nn.Identity(), WholeClips(), 16, None, feeding, info, pooling="3d", **fixed)


@pytest.fixture
def starts(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every start can be had: the published ones' files lie where they are looked for, two of one's own are known."""
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(weights))
    monkeypatch.setitem(backbones._factories, "own-frames", _own_frames)
    monkeypatch.setitem(backbones._factories, "own-clips", _own_clips)
    return weights


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without their report, whose pictures are most of a small run's time."""
    monkeypatch.setattr(report, "_write_report_of", lambda outcome, scored, folder: None)
