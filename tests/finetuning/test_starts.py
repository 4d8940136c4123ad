"""What a training starts from: random weights are random, others are a file's, and pixels are normalised for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panecho_embed.core.planes import pictures_of
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.recipe import ModelSettings
from panecho_embed.finetuning.starts import load_start
from panecho_embed.models import checkpoint, panecho, zoo
from panecho_embed.models import weights as finding
from panecho_embed.models.checkpoint import from_checkpoint_names
from tests.finetuning.conftest import NARROW
from tests.finetuning.fabricate import EF, GRADE

SMALL = ModelSettings(width=NARROW, image_size=32)
OTHER = ModelSettings(image_size=32)


def tensors(start):
    return {
        f"{name}.{key}": value
        for name in ("image_encoder", "clip_encoder")
        for key, value in getattr(start, name).state_dict().items()
    }


def drawn(value):
    """Whether a tensor comes from a random generator, not from ones and zeros."""
    return value.is_floating_point() and value.unique().numel() > 2


@pytest.fixture
def no_file_is_opened(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a weights file was looked for")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    for module, name in (
        (checkpoint, "read_checkpoint"),
        (panecho, "read_checkpoint"),
        (zoo, "read_checkpoint"),
        (panecho, "find_weights"),
        (zoo, "find_weights"),
        (finding, "fetch"),
    ):
        monkeypatch.setattr(module, name, refuse)


def test_random_opens_no_weights_file(starts, no_file_is_opened):
    start = load_start("random", SMALL, 2)
    assert not start.weights.pretrained
    assert start.weights.source == "random (seed 0)"


def test_random_has_no_tensor_of_any_checkpoint(starts):
    mine = tensors(load_start("random", SMALL, 2))
    for init in ("panecho", "imagenet"):
        theirs = tensors(load_start(init, OTHER, 2))
        assert theirs.keys() == mine.keys()
        same = [name for name, value in mine.items() if drawn(value) and torch.equal(value, theirs[name])]
        # imagenet's transformer is from scratch, and drawn from the same seed by another way.
        assert not same, init


def test_random_follows_from_its_seed():
    first, again, other = (tensors(load_start("random", SMALL, 2, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if drawn(first[name]))


def test_pretrained_starts_have_every_tensor_of_their_file(starts):
    released = torch.load(starts / "panecho.pt", weights_only=True)["weights"]
    found = tensors(load_start("panecho", OTHER, 2))
    released = {name: value for name, value in released.items() if "_head." not in name and not name.endswith(".pe")}
    for name, value in from_checkpoint_names(released).items():
        assert torch.equal(found[name], value), name
    published = torch.load(starts / "r3d_18-b3b3357e.pth", weights_only=True)
    found = tensors(load_start("kinetics", OTHER, 2))
    for name, value in published.items():
        if not name.startswith("fc."):
            assert torch.equal(found[f"clip_encoder.model.{name}"], value), name


@pytest.mark.parametrize(
    ("init", "first", "order"),
    [
        ("panecho", 0.485, "bgr"),
        ("random", 0.0, "bgr"),
        ("imagenet", 0.485, "rgb"),
        ("echoclip", 0.48145466, "bgr"),
        ("kinetics", 0.43216, "rgb"),
        ("own-clips", 29.0, "rgb"),
    ],
)
def test_pixels_are_normalised_as_the_start_wants_them(init, first, order, starts):
    start = load_start(init, SMALL if init == "random" else OTHER if init != "own-clips" else ModelSettings(), 4)
    assert (start.feeding.mean[0], start.feeding.channel_order) == (first, order)
    model = FineTuneModel(start, [EF])
    grey = torch.full((1, 3, 1, 1), 100, dtype=torch.uint8)
    scaled = 100.0 if init == "own-clips" else 100 / 255
    expected = [(scaled - m) / s for m, s in zip(start.feeding.mean, start.feeding.std, strict=True)]
    assert model.normalise(grey).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_no_setting_of_a_recipe_can_change_the_normalisation():
    assert not {"mean", "std", "scale", "channel_order", "normalise"} & set(ModelSettings.__dataclass_fields__)


def test_heads_of_one_output_begin_at_the_training_mean():
    model = FineTuneModel(load_start("random", SMALL, 2), [EF, GRADE])
    assert model.heads["EF"][1].bias.tolist() == [EF.training_mean]
    assert len(set(model.heads["Grade"][1].bias.tolist())) == 3


def test_frames_and_whole_clips_go_the_same_way_twice(starts):
    """Picture by picture, as in testing, and clip by clip, as in training."""
    pixels = torch.randint(0, 255, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for init in ("random", "own-frames", "own-clips"):
        start = load_start(init, SMALL if init == "random" else OTHER, 4)
        model = FineTuneModel(start, [EF, GRADE]).eval()
        with torch.no_grad():
            made = pictures_of([np.arange(8).reshape(2, 4)], 8, model.plane_order)
            every = model.normalise(pixels).reshape(24, 32, 32)
            pictures = model.encode_pictures(every[torch.from_numpy(made.planes)])
            torch.testing.assert_close(model(pixels), model.outputs(pictures[torch.from_numpy(made.clips[0])]))
