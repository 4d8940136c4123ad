"""PanEcho computes what the published code computed, from the tensor to the heads, however it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from panecho_embed.models.panecho import PanEcho, clip_pictures, save_checkpoint
from tests.golden import difference, largest_difference, normal

BOUND = 1e-4
REPOSITORY = Path(__file__).parents[2]
INPUTS = {"L16": (0, 16, 64), "L32": (1, 32, 64), "L8": (2, 8, 96)}


def given(name: str) -> tuple[torch.Tensor, int]:
    """The input of a golden record, and its number of frames."""
    seed, length, size = INPUTS[name]
    return torch.from_numpy(normal(seed, 2, 3, length, size, size)), length


def load_by_hub(**arguments):
    return torch.hub.load(str(REPOSITORY), "PanEcho", source="local", **arguments)


WAYS = ("PanEcho", "hubconf", "saved and loaded again")
# Every length by the class, every way by one length: loading takes most of the time.
CASES = [("PanEcho", name) for name in INPUTS] + [(way, "L16") for way in WAYS[1:]]


@pytest.fixture(scope="module")
def loaders(weights, tmp_path_factory):
    """Ways to come by the model: way -> load(clip_len=16, ...)."""
    again = tmp_path_factory.mktemp("saved") / "again.pt"
    save_checkpoint(PanEcho(weights=weights), again)
    return {
        "PanEcho": lambda **arguments: PanEcho(weights=weights, **arguments),
        "hubconf": lambda **arguments: load_by_hub(weights=weights, **arguments),
        "saved and loaded again": lambda **arguments: PanEcho(weights=again, **arguments),
    }


@pytest.mark.parametrize(("way", "name"), CASES)
@torch.inference_mode()
def test_all_heads_as_logits_and_probabilities(loaders, golden, way, name):
    x, length = given(name)
    model = loaders[way](clip_len=length)
    raw = model(x)
    assert len(raw) == 40
    assert largest_difference(raw, golden, f"{name}/raw") <= BOUND
    model.activations = True
    assert largest_difference(model(x), golden, f"{name}/probabilities") <= BOUND


@pytest.mark.parametrize(("way", "name"), CASES)
@torch.inference_mode()
def test_the_backbone_and_the_image_encoder(loaders, golden, way, name):
    x, length = given(name)
    backbone = loaders[way](backbone_only=True, clip_len=length)
    assert difference(backbone(x), golden[f"{name}/backbone"]) <= BOUND
    # By hand, as docs/models.md shows.
    vectors = backbone.image_encoder(clip_pictures(x, backbone.plane_order)).unflatten(0, (2, length))
    assert difference(backbone.clip_encoder(vectors), golden[f"{name}/backbone"]) <= BOUND
    assert difference(loaders[way](image_encoder_only=True)(x[:, :, 3]), golden[f"{name}/image_encoder"]) <= BOUND


@pytest.mark.parametrize("name", INPUTS)
@torch.inference_mode()
def test_on_frames_it_would_be_another_model(weights, golden, name):
    """What was wrong before: were this not so, the numbers could not tell the two orders apart."""
    x, length = given(name)
    model = PanEcho(weights=weights, backbone_only=True, clip_len=length)
    model.plane_order = "frames"
    on_frames, published = model(x), torch.from_numpy(golden[f"{name}/backbone"])
    assert difference(on_frames, published.numpy()) > 0.3
    assert torch.cosine_similarity(on_frames, published).max() < 0.95
