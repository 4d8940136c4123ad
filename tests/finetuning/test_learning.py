"""Training learns: first gradients of one size, a handful of videos learned by heart, and more that generalise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panecho_embed.core.tasks import Task
from panecho_embed.finetuning.data import make_fold, read_dataset
from panecho_embed.finetuning.learner import Learner
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.processes import join_processes
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.sampling import Key, TrainingClips, together
from panecho_embed.finetuning.starts import load_start
from panecho_embed.models import zoo
from panecho_embed.phantoms import write_studies
from tests.finetuning.conftest import NARROW

SETTINGS = (f"model.width={NARROW}", "model.image_size=32", "clips.frames=8", "clips.frame_step=4", "precision=fp32")


@pytest.fixture(scope="module")
def handful(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "handful"
    write_studies(folder, "echonet-dynamic", patients=12, num_frames=30, fps=25, size=48)
    return folder


class Handful:
    """One batch of all training videos, and what learns from it."""

    def __init__(self, data, *settings):
        recipe = load_recipe("echonet-dynamic", [*SETTINGS, *settings])
        dataset = read_dataset(data, recipe.data)
        fold = make_fold(dataset, recipe.data, None, seed=0)
        start = load_start("random", recipe.model, recipe.clips.frames)
        scales = fold.deviations() if recipe.model.head_init == "deviation" else None
        self.model = FineTuneModel(start, fold.targets.tasks, scales=scales)
        self.videos = fold.train
        self.learner = Learner(self.model, fold, recipe, join_processes("cpu", "fp32"), lambda failures: None)
        clips = TrainingClips(dataset.videos, start.feeding, recipe.clips.plan(1), recipe.augmentation, recipe.seed)
        self.batch = together([clips[Key(1, int(video), 1.0)] for video in self.videos])

    def gradients(self, step=0):
        self.learner.begin_epoch()
        self.learner.set_step(step + 1, [0, 1, step])
        return float(self.learner.gradients(self.videos, 1, iter([self.batch]))[0])

    def losses(self, steps):
        found = []
        for step in range(steps):
            found.append(self.gradients(step))
            self.learner.update()
        return found


@pytest.mark.slow
def test_a_handful_is_learned_by_heart(handful):
    losses = Handful(handful, "optimizer.lr=3e-4", "model.head_init=deviation").losses(80)
    assert losses[-1] < losses[0] / 10


def test_black_around_the_sector_does_not_blow_up_the_first_layer(handful):
    small = Handful(handful)
    small.gradients()
    norms = {name: float(p.grad.norm()) for name, p in small.model.named_parameters()}
    first = max(norm for name, norm in norms.items() if "stem.0" in name)
    assert first < 10 * max(norm for name, norm in norms.items() if "stem.0" not in name)


def test_random_is_the_random_backbone_for_other_pixels():
    settings = load_recipe("echonet-dynamic", [f"model.width={NARROW}", "model.plane_order=frames"]).model
    start = load_start("random", settings, 16, seed=3)
    model = FineTuneModel(start, [Task("EF", "regression", 1, (), None, "%", 55.0, "")])
    backbone = zoo.random(None, 3, NARROW)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
    with torch.inference_mode():
        mine = model.eval().encode_pictures(model.normalise(pixels))
        theirs = backbone.encode_pictures(backbone.normalise(pixels))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_head_begins_as_wide_as_its_target():
    settings = load_recipe("echonet-dynamic", [f"model.width={NARROW}"]).model
    tasks = [Task(name, "regression", 1, (), None, "", 0.0, "") for name in ("wide", "narrow")]
    plain = FineTuneModel(load_start("random", settings, 2), tasks)
    scaled = FineTuneModel(load_start("random", settings, 2), tasks, scales=[20.0, 0.1])
    for task, scale in (("wide", 20.0), ("narrow", 0.1)):
        torch.testing.assert_close(scaled.heads[task][1].weight, plain.heads[task][1].weight * scale)
        torch.testing.assert_close(scaled.heads[task][1].bias, plain.heads[task][1].bias)


def test_a_running_mean_does_not_keep_a_short_training_at_its_first_weights(handful):
    small = Handful(handful, "optimizer.lr=3e-4", "optimizer.ema=0.999")
    live = small.model.heads["EF"][1].weight
    before = live.detach().clone()
    small.losses(20)
    averaged = small.learner.evaluated.heads["EF"][1].weight
    assert (averaged - before).norm() > 0.3 * (live - before).norm()
