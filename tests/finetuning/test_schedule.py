from __future__ import annotations

import pytest

from panecho_embed.finetuning.learner import Rate
from panecho_embed.finetuning.recipe import ScheduleSettings


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
