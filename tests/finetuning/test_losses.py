"""The loss, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from panecho_embed.core.errors import RecipeError
from panecho_embed.core.tasks import Task
from panecho_embed.finetuning.model import Loss, mean_loss
from panecho_embed.finetuning.recipe import LossSettings
from tests.finetuning.fabricate import EF, GRADE, LOW

TASKS = (EF, LOW, GRADE)
NAN = math.nan
TRAINING = np.array([[50.0, 0, 0], [60.0, 1, 0], [40.0, 1, 1], [NAN, 1, 2]])


def outputs(*rows):
    """EF, LowEF's logit, Grade's three."""
    return torch.tensor(rows, dtype=torch.float32)


def whole(loss, raw, targets, counted=None):
    there = torch.ones(len(raw)) if counted is None else counted
    return float(mean_loss(loss.sums(raw, targets, there), loss.weights(targets, there)))


RAW = outputs([52, 0.5, 1, 2, 3], [61, -1, 0, 0, 0])
TARGETS = torch.tensor([[50.0, 1, 2], [60.0, 0, NAN]])


def test_it_is_the_mean_over_tasks_of_the_mean_over_labels():
    regression = (4 + 1) / 2 / 50  # by the training mean
    binary = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-1))) / 2
    classes = math.log(math.exp(1) + math.exp(2) + math.exp(3)) - 3  # the other label is missing
    found = whole(Loss(TASKS, TRAINING, LossSettings()), RAW, TARGETS)
    assert found == pytest.approx((regression + binary + classes) / 3, rel=1e-6)


def test_a_task_without_a_label_in_the_batch_does_not_count():
    targets = TARGETS.clone()
    targets[:, 1:] = NAN
    assert whole(Loss(TASKS, TRAINING, LossSettings()), RAW, targets) == pytest.approx(2.5 / 50)


def test_a_batch_without_any_label_is_no_loss_and_has_no_gradient():
    raw = RAW.clone().requires_grad_()
    loss = Loss(TASKS, TRAINING, LossSettings())
    missing = torch.full_like(TARGETS, NAN)
    value = mean_loss(loss.sums(raw, missing, torch.ones(2)), loss.weights(missing, torch.ones(2)))
    value.backward()
    assert value.item() == 0
    assert torch.equal(raw.grad, torch.zeros_like(raw))


def test_missing_labels_get_no_gradient():
    raw = RAW.clone().requires_grad_()
    loss = Loss(TASKS, TRAINING, LossSettings())
    mean_loss(loss.sums(raw, TARGETS, torch.ones(2)), loss.weights(TARGETS, torch.ones(2))).backward()
    assert torch.equal(raw.grad[1, 2:], torch.zeros(3))
    assert raw.grad[0].all()


def test_the_variance_scales_a_regression():
    targets = TARGETS.clone()
    targets[:, 1:] = NAN
    variance = ((50 - 50) ** 2 + (60 - 50) ** 2 + (40 - 50) ** 2) / 3
    assert whole(Loss(TASKS, TRAINING, LossSettings(scale="variance")), RAW, targets) == pytest.approx(2.5 / variance)


def test_balanced_classes_count_the_same():
    """LowEF: one of index 0, three of index 1: a label counts 4 / (2 * 1), or 4 / (2 * 3)."""
    targets = TARGETS.clone()
    targets[:, [0, 2]] = NAN
    first, second = 4 / 6 * math.log1p(math.exp(-0.5)), 4 / 2 * math.log1p(math.exp(-1))
    expected = (first + second) / (4 / 6 + 4 / 2)
    found = whole(Loss(TASKS, TRAINING, LossSettings(class_weights="balanced")), RAW, targets)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_class_that_training_lacks_counts_once():
    training = np.array([[0.0], [0.0], [2.0]])
    loss = Loss((GRADE,), training, LossSettings(class_weights="balanced"))
    # Two of three classes are there: 3 / (2 * 2), none, 3 / (2 * 1).
    assert loss.weights(torch.tensor([[0.0], [1.0], [2.0]]), torch.ones(3)).item() == pytest.approx(0.75 + 1 + 1.5)


def test_parts_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(7, 5, generator=generator)
    ef = [50.0, NAN, 60, 55, NAN, 40, 45]
    targets = torch.tensor([ef, [1, 0, NAN, 1, NAN, 0, 1], [2, 1, 0, NAN, 1, 0, 2]]).T
    loss = Loss(TASKS, TRAINING, LossSettings(class_weights="balanced"))
    weights = loss.weights(targets, torch.ones(7))
    parts = [
        mean_loss(loss.sums(raw[part], targets[part], torch.ones(len(raw[part]))), weights)
        for part in (slice(0, 3), slice(3, 4), slice(4, 7))
    ]
    assert float(sum(parts)) == pytest.approx(whole(loss, raw, targets), rel=1e-5)


def test_what_only_fills_up_does_not_count():
    loss = Loss(TASKS, TRAINING, LossSettings())
    assert whole(loss, RAW, TARGETS, torch.tensor([1.0, 0.0])) == pytest.approx(whole(loss, RAW[:1], TARGETS[:1]))


def test_a_mean_around_0_is_no_scale():
    strain = Task("Shift", "regression", 1, (), None, "", NAN, "")
    with pytest.raises(RecipeError, match=r"Shift has a training mean of 0 and a deviation of 1.*loss\.scale=variance"):
        Loss((strain,), np.array([[-1.0], [1.0]]), LossSettings())


def test_a_negative_mean_scales_by_its_size():
    shift = Task("Shift", "regression", 1, (), None, "", NAN, "")
    loss = Loss((shift,), np.array([[-4.0], [-6.0]]), LossSettings())
    assert whole(loss, torch.tensor([[-3.0]]), torch.tensor([[-4.0]])) == pytest.approx(1 / 5)
