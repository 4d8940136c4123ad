"""What a report may conclude: the rule looks at one interval, and its sentence says what can't be told."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from panecho_embed.evaluation.conclusions import Advantage, advantage_of, conclude, overall, sentence, skill
from panecho_embed.evaluation.scores import FEWEST_PATIENTS, Scored, score
from panecho_embed.evaluation.targets import Target
from tests.evaluation.made import EF, GRADE, LOW, VIEW, made

CLAIM = "can be read from these embeddings"
NAN = float("nan")


def scored(target: Target = EF, noise: float = 3.0, patients: int = 60, baseline: bool = True) -> Scored:
    return score(made(target, noise, patients=patients, baseline=baseline), draws=200)


@pytest.mark.parametrize(
    ("value", "low", "high", "n_patients", "expected"),
    [
        (2.0, 0.1, 4.0, 60, "yes"),
        (2.0, 0.0, 4.0, 60, "undecided"),
        (2.0, -1.0, 5.0, 60, "undecided"),
        (0.0, -1.0, 1.0, 60, "no"),
        (-0.5, -2.0, 1.0, 60, "no"),
        (-2.0, -3.0, -0.1, 60, "worse"),
        (2.0, 0.1, 4.0, FEWEST_PATIENTS, "yes"),
        (2.0, 0.1, 4.0, FEWEST_PATIENTS - 1, "unknown"),
        (2.0, NAN, NAN, 60, "unknown"),
        (NAN, NAN, NAN, 60, "unknown"),
    ],
)
def test_the_conclusion_follows_from_the_interval(value, low, high, n_patients, expected):
    assert conclude(Advantage(value, low, high), n_patients) == expected


def test_a_good_target_is_said_with_unit_interval_and_baseline():
    said = sentence(scored(), CLAIM)
    assert (
        said == "EF can be read from these embeddings: mean error 2.20 points (1.81 to 2.58); guessing the mean 7.29."
    )
    assert sentence(scored(replace(EF, unit="mL")), CLAIM).count("2.20 mL (") == 1


@pytest.mark.parametrize(
    ("noise", "start", "part"),
    [
        (60.0, "EF was predicted worse than by guessing: mean error ", "guessing the mean 7.29."),
        (9.5, "It can't be told whether EF can be read", "may be chance in 60 patients."),
        (10.0, "EF was predicted no better than by guessing: ", "can't be excluded (95 % interval)."),
    ],
)
def test_what_can_not_be_told_is_said(noise, start, part):
    said = sentence(scored(EF, noise), CLAIM)
    assert said.startswith(start)
    assert said.endswith(part)


@pytest.mark.parametrize(
    ("noise", "baseline", "said"),
    [
        (9.5, True, r"The advantage of 0\.\d+ points \("),
        (10.0, True, r"An advantage of up to [\d.]+ points can't be excluded"),
        (8.5, False, r"dvantage of (up to )?[\d.]+ in R² "),
    ],
)
def test_an_advantage_has_the_unit_of_what_it_is_an_advantage_in(noise, baseline, said):
    assert re.search(said, sentence(scored(EF, noise, baseline=baseline), CLAIM))


def test_few_patients_have_no_statistic():
    said = sentence(scored(patients=FEWEST_PATIENTS - 1), CLAIM)
    assert said == (
        "It can't be told whether EF can be read from these embeddings: 9 patients were tested, and statistics are "
        "reported from 10 on."
    )
    assert np.isnan(skill(scored(patients=FEWEST_PATIENTS - 1))).all()


def test_a_doubt_takes_the_claim_back():
    said = sentence(scored(), CLAIM, ["the recordings do as well"])
    assert said.startswith("It is not shown that EF can be read from these embeddings: mean error ")
    assert said.endswith("guessing the mean 7.29. But the recordings do as well.")


@pytest.mark.parametrize("target", [LOW, VIEW, GRADE], ids=lambda t: t.kind)
def test_higher_is_better_for_classes(target):
    assert sentence(scored(target), CLAIM).startswith(f"{target.name} {CLAIM}: ")
    assert advantage_of(scored(target)).low > 0
    assert conclude(advantage_of(scored(target, 300.0)), 60) in ("no", "undecided")


def test_without_training_labels_guessing_is_what_holds_for_any_guess():
    assert advantage_of(scored(LOW, baseline=False)).guess == "guessing 0.5"
    assert "R² 0.9" in sentence(scored(baseline=False), CLAIM)
    assert conclude(advantage_of(scored(EF, 60.0, baseline=False)), 60) == "worse"


def test_an_error_in_favour_is_an_advantage_and_a_share_of_what_is_possible():
    one = scored()
    advantage = advantage_of(one)
    assert advantage.value == pytest.approx(one.baseline["mae"].value - one.primary.value)
    value, low, high = skill(one)
    assert value == pytest.approx(1 - one.primary.value / one.baseline["mae"].value)
    assert low < value < high <= 1


def test_many_targets_are_grouped_by_what_can_be_told():
    few = scored(replace(EF, name="Rare"), patients=5)
    said = overall([scored(), scored(LOW), scored(replace(EF, name="ESV"), 60.0), few], CLAIM)
    assert said == (
        "2 of 4 targets can be read from these embeddings: EF, LowEF. Can't be told: Rare. Worse than guessing: ESV."
    )
