"""PanEcho written a second time, from torchvision's ConvNeXt, with exactly the released checkpoint's names."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from panecho_embed.core.tasks import all_tasks
from panecho_embed.models.panecho import PanEcho
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.models.weights import MIRROR_VARIABLE, PLACE_VARIABLE

ensure_torchvision()
from torchvision.models import convnext_tiny  # noqa: E402


class _Frames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = convnext_tiny()
        del self.model.classifier[2]

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _Time(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pe", _positions(16))


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Frames()
        self.time_encoder = _Time()
        layer = nn.TransformerEncoderLayer(768, 8, 768, dropout=0.0, activation="relu", batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    def pictures(self, x: Tensor) -> Tensor:
        planes = [x[:, channel, frame] for channel in range(3) for frame in range(x.shape[2])]
        triples = [torch.stack(planes[first : first + 3], dim=1) for first in range(0, len(planes), 3)]
        return torch.stack([self.encoder(triple) for triple in triples], dim=1)

    def clips(self, pictures: Tensor) -> Tensor:
        return self.transformer(pictures + _positions(pictures.shape[1])).mean(1)


def _positions(length: int) -> Tensor:
    rows = [
        [f(p / 10000 ** (2 * i / 768)) for i in range(768 // 2) for f in (math.sin, math.cos)] for p in range(length)
    ]
    return torch.tensor(rows)[None]


class Reference(nn.Module):
    """Stages: (N, 3, T, H, W) -> `encoder.pictures` -> `encoder.clips` -> `outputs`, raw."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Backbone()
        for task in all_tasks():
            self.add_module(f"{task.name}_head", nn.Sequential(nn.Dropout(0.25), nn.Linear(768, task.num_outputs)))

    def outputs(self, clips: Tensor) -> dict[str, Tensor]:
        return {task.name: self.get_submodule(f"{task.name}_head")(clips) for task in all_tasks()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.outputs(self.encoder.clips(self.encoder.pictures(x)))


def _randomise(module: nn.Module, seed: int = 1) -> None:
    """Every parameter large enough to be missed: as initialised, layer scales are 1e-6 and biases 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith(("layer_scale", "gamma")):
                value.copy_(0.2 + 0.05 * noise)
            elif value.ndim == 1:
                value.add_(0.1 * noise)
            else:
                value.add_(0.02 * noise)


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module], None]:
    return _randomise


@pytest.fixture(scope="session")
def reference() -> Reference:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Reference().eval()
    _randomise(model)
    return model


@pytest.fixture(scope="session")
def checkpoint(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the released checkpoint's layout."""
    path = tmp_path_factory.mktemp("released") / "panecho.pt"
    torch.save({"weights": reference.state_dict(), "epoch": 3}, path)
    return path


@pytest.fixture(scope="session")
def panecho(checkpoint: Path) -> PanEcho:
    return PanEcho(weights=checkpoint)


@pytest.fixture(autouse=True)
def nowhere_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights of the machine's own, no token, no settings of its user."""
    for name in (PLACE_VARIABLE, MIRROR_VARIABLE, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
