"""Which layers learn, how fast, and what a frozen one leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from panecho_embed.core.errors import ArgumentError
from panecho_embed.finetuning.learner import choose_trainable, layers_of, parameter_groups, set_training
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.recipe import ModelSettings, OptimizerSettings
from panecho_embed.finetuning.starts import load_start
from tests.finetuning.conftest import NARROW
from tests.finetuning.fabricate import EF, GRADE

FRAMES = [f"image_encoder.{name}" for name in ("stem.0", "stem.1", *(f"stages.{i}" for i in range(4)), "head")]
CLIPS = [f"clip_encoder.transformer.layers.{i}" for i in range(4)]


def model(init="random", **settings):
    chosen = ModelSettings(width=NARROW if init == "random" else 1.0, image_size=32, **settings)
    return FineTuneModel(load_start(init, chosen, 4), [EF, GRADE])


def learning(part):
    return {name for name, parameter in part.named_parameters() if parameter.requires_grad}


def test_layers_go_from_the_pixels_to_the_heads():
    assert [layer.name for layer in layers_of(model())] == FRAMES + CLIPS


def test_every_parameter_is_in_one_layer(starts):
    for init in ("random", "own-frames", "own-clips", "kinetics"):
        built = model(init)
        inside = [id(p) for layer in layers_of(built) for p in layer.module.parameters()]
        assert sorted(inside) == sorted(id(p) for p in built.parameters() if p not in set(built.heads.parameters()))


@pytest.mark.parametrize(
    ("trainable", "frozen"),
    [
        ("all", []),
        ("heads", FRAMES + CLIPS),
        ("temporal", FRAMES),
        ("last-0", FRAMES + CLIPS),
        ("last-5", FRAMES[:-1]),
        ("last-11", []),
    ],
)
def test_what_is_frozen(trainable, frozen):
    built = model()
    assert [layer.name for layer in choose_trainable(built, trainable)] == frozen
    still = {name for name, _ in built.named_parameters()} - learning(built)
    assert still == {name for name, _ in built.named_parameters() if any(name.startswith(f"{f}.") for f in frozen)}


def test_more_layers_than_there_are_is_refused():
    with pytest.raises(ArgumentError, match=r"last-12; the start has 11 layers: image_encoder\.stem\.0, "):
        choose_trainable(model(), "last-12")


def test_rates_fall_from_the_heads_to_the_pixels():
    groups = parameter_groups(model(), OptimizerSettings(lr=0.1, layer_decay=0.5, weight_decay=0.3))
    rates = {group["name"].removesuffix(" (not decayed)"): group["lr"] for group in groups}
    assert list(rates) == ["heads", *reversed(FRAMES + CLIPS)]
    assert list(rates.values()) == pytest.approx([0.1 * 0.5**depth for depth in range(12)])


def test_without_decay_of_layers_all_learn_as_fast():
    assert {group["lr"] for group in parameter_groups(model(), OptimizerSettings(lr=0.1))} == {0.1}


def test_biases_and_norms_are_not_decayed():
    built = model()
    groups = parameter_groups(built, OptimizerSettings(weight_decay=0.3))
    decayed = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decayed == {id(p): 0.3 if p.ndim > 1 else 0.0 for p in built.parameters()}


def test_what_is_frozen_is_in_no_group():
    built = model()
    choose_trainable(built, "temporal")
    groups = parameter_groups(built, OptimizerSettings())
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in built.parameters() if p.requires_grad)


def test_frozen_batch_norms_keep_what_they_counted(starts):
    built = model("own-clips")
    frozen = choose_trainable(built, "last-1")
    assert [layer.name for layer in frozen] == ["clip_encoder.layers.0"]
    choose_trainable(built, "heads")
    set_training(built, layers_of(built))
    norm = next(module for module in built.modules() if isinstance(module, nn.BatchNorm3d))
    built(torch.randint(0, 255, (2, 4, 3, 32, 32), dtype=torch.uint8))
    assert norm.running_mean.abs().sum() == 0
    set_training(built, [])
    built(torch.randint(0, 255, (2, 4, 3, 32, 32), dtype=torch.uint8))
    assert norm.running_mean.abs().sum() > 0
