"""One step of learning: accumulated gradients, clipping, rates, a running mean of the weights."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.finetuning.data import Targets
from panecho_embed.finetuning.learner import Learner, Rate, choose_trainable, layers_of, parameter_groups, set_training
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.processes import join_processes
from panecho_embed.finetuning.recipe import ModelSettings, OptimizerSettings, ScheduleSettings
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.sampling import Batch
from panecho_embed.finetuning.starts import Start, load_start
from panecho_embed.models.backbones import MeanOverFrames
from tests.finetuning.conftest import NARROW
from tests.finetuning.fabricate import EF, GRADE, LOW, target_of

FRAMES = [f"image_encoder.{name}" for name in ("stem.0", "stem.1", *(f"stages.{i}" for i in range(4)), "head")]
CLIPS = [f"clip_encoder.transformer.layers.{i}" for i in range(4)]
VALUES = np.array([[50.0, 1], [60, 0], [np.nan, 1], [70, np.nan], [55, 0], [45, 1]])
VIDEOS = np.array([0, 2, 3, 4, 5])
PIXELS = torch.randint(0, 255, (6, 2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def learner(*settings, precision="fp32"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    info = WeightsInfo("mine", "0" * 64, "MIT", pretrained=False)
    feeding = Feeding(resize=8, crop=8)
    start = Start("mine", encoder, MeanOverFrames(), 4, False, "published", feeding, feeding, info)
    recipe = load_recipe("custom", ["optimizer.lr=0.01", "optimizer.clip_norm=0", "schedule.name=constant", *settings])
    fold = SimpleNamespace(
        targets=Targets((target_of(EF), target_of(LOW)), (EF, LOW), VALUES, np.ones(2)), train=np.arange(6)
    )
    return Learner(
        FineTuneModel(start, [EF, LOW]), fold, recipe, join_processes("cpu", precision), lambda failures: None
    )


def batch(videos, counted=None):
    there = torch.ones(len(videos)) if counted is None else torch.tensor(counted)
    return Batch(torch.from_numpy(np.asarray(videos)), there, PIXELS[np.asarray(videos)], [])


def step(one, *parts):
    """A step over VIDEOS in these parts; returns its loss."""
    one.begin_epoch()
    one.set_step(1.0, [0, 1, 0])
    loss, _ = one.gradients(VIDEOS, len(parts), iter(parts))
    one.update()
    return loss.item()


def weights(one):
    return torch.cat([parameter.detach().flatten() for parameter in one.evaluated.parameters()])


def test_accumulated_micro_batches_learn_what_the_large_batch_does():
    at_once, in_parts = learner("optimizer.name=adam"), learner("optimizer.name=adam")
    before = weights(at_once)
    losses = step(at_once, batch(VIDEOS)), step(in_parts, batch([0, 2]), batch([3, 4]), batch([5]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert not torch.equal(weights(at_once), before)
    torch.testing.assert_close(weights(at_once), weights(in_parts), atol=1e-6, rtol=0)


def test_clips_that_only_fill_up_change_nothing():
    plain, filled = learner(), learner()
    assert step(plain, batch(VIDEOS)) == pytest.approx(step(filled, batch([*VIDEOS, 0, 0], [1.0] * 5 + [0, 0])))
    torch.testing.assert_close(weights(plain), weights(filled), atol=1e-6, rtol=0)


def test_videos_that_count_are_told_from_those_that_do_not():
    one = learner()
    one.begin_epoch()
    _, decoded = one.gradients(VIDEOS, 2, iter([batch([0, 2, 3], [1.0, 0, 1]), batch([4, 5, 0], [1.0, 1, 0])]))
    assert decoded == 4


def test_a_running_mean_of_the_weights_is_what_is_evaluated():
    plain, averaged = learner("optimizer.ema=0"), learner("optimizer.ema=0.2")
    trail = []
    for _ in range(3):
        step(plain, batch(VIDEOS))
        step(averaged, batch(VIDEOS))
        trail.append(weights(plain))
    # It begins with the first step's weights, and with a smaller decay: 2 / 11, then the 0.2 that is below 3 / 12.
    second = 2 / 11 * trail[0] + 9 / 11 * trail[1]
    expected = 0.2 * second + 0.8 * trail[2]
    torch.testing.assert_close(weights(averaged), expected)


def test_gradients_are_clipped_to_a_norm():
    free, clipped = learner(), learner("optimizer.clip_norm=0.001")
    step(free, batch(VIDEOS))
    step(clipped, batch(VIDEOS))

    def norm(one):
        return torch.cat([parameter.grad.flatten() for parameter in one._model.parameters()]).norm().item()

    assert norm(free) > 0.01
    assert norm(clipped) == pytest.approx(0.001, rel=1e-3)


def test_the_schedule_scales_every_layers_rate():
    one = learner("optimizer.layer_decay=0.5", "schedule.name=cosine", "schedule.epochs=10", "schedule.warmup_epochs=2")
    rates = []
    for done in (1.0, 2.0, 6.0, 10.0):
        one.set_step(done, [0, 1, 0])
        rates.append([group["lr"] for group in one._optimizer.param_groups])
    for at, factor in zip(rates, (0.5, 1.0, 0.5, 0.0), strict=True):
        assert at == pytest.approx([0.01 * factor] * 2 + [0.005 * factor] * 2)
    assert one.heads_rate == pytest.approx(0.0)


def test_a_state_goes_on_where_it_was_taken():
    first = learner("optimizer.ema=0.5")
    step(first, batch(VIDEOS))
    second = learner("optimizer.ema=0.5")
    second.restore(copy.deepcopy(first.state()))
    step(first, batch(VIDEOS))
    step(second, batch(VIDEOS))
    assert torch.equal(weights(first), weights(second))


def test_half_precision_is_close():
    full, half = learner(), learner(precision="bf16")
    assert step(half, batch(VIDEOS)) == pytest.approx(step(full, batch(VIDEOS)), rel=0.05)
    assert {parameter.dtype for parameter in half.evaluated.parameters()} == {torch.float32}


def test_dropout_follows_from_seed_epoch_and_step():
    one = learner("model.head_dropout=0.5")
    drawn = []
    for seed in ([0, 1, 0], [0, 1, 1], [0, 1, 0]):
        one.set_step(1.0, seed)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


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


def test_the_plateau_halves_after_its_patience_and_remembers():
    settings = ScheduleSettings("plateau", epochs=20, factor=0.5, patience=2)
    rate = Rate(settings, higher_is_better=True)
    factors = []
    for score in (0.5, 0.6, 0.6, 0.59, 0.58, 0.7):
        rate.epoch_ended(score)
        factors.append(rate.factor(1.0))
    assert factors == [1, 1, 1, 1, 0.5, 0.5]
    other = Rate(settings, higher_is_better=True)
    other.restore(rate.state())
    for one in (rate, other):
        for _ in range(3):
            one.epoch_ended(0.1)
        assert one.factor(1.0) == 0.25


def test_a_loss_gets_better_downwards():
    rate = Rate(ScheduleSettings("plateau", patience=0), higher_is_better=False)
    for loss in (3.0, 2.0, 1.0):
        rate.epoch_ended(loss)
    assert rate.factor(1.0) == 1
    rate.epoch_ended(1.5)
    assert rate.factor(1.0) == 0.5


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_others_do_not_look_at_the_monitor(name):
    rate = Rate(ScheduleSettings(name, epochs=4, warmup_epochs=1.0), higher_is_better=False)
    for _ in range(10):
        rate.epoch_ended(1.0)
    assert rate.factor(0.25) == 0.25
    assert rate.factor(2.5) == pytest.approx({"constant": 1.0, "cosine": 0.5}[name])
    assert rate.factor(4.0) == pytest.approx({"constant": 1.0, "cosine": 0.0}[name], abs=1e-12)


def test_the_cosine_is_taken_at_the_middle_of_a_step():
    one_step = Rate(ScheduleSettings("cosine", epochs=1), higher_is_better=False)
    assert one_step.factor(1.0, 1.0) == pytest.approx(0.5)
    two = Rate(ScheduleSettings("cosine", epochs=2, warmup_epochs=1.0), higher_is_better=False)
    factors = [two.factor(done, 0.5) for done in (0.5, 1.0, 1.5, 2.0)]
    assert factors == pytest.approx([0.5, 1.0, 0.5 + 0.5**1.5, 0.5 - 0.5**1.5])
