"""The threshold of a decision: what each rule chooses, on which rows, and how it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.predictions import Predictions, concatenated
from panecho_embed.evaluation.targets import Target
from panecho_embed.evaluation.thresholds import ThresholdRule, with_threshold

TRUTH = np.array([0.0, 0, 1, 0, 1, 1])
PROBABILITY = np.array([0.1, 0.2, 0.3, 0.35, 0.6, np.nan])


def held_out(split: str = "val", kind: str = "binary", **changes: Any) -> Predictions:
    n = 5
    classes: tuple[str, ...] = ("no", "yes") if kind == "binary" else ()
    return Predictions(
        Target("X", kind, classes),  # type: ignore[arg-type]
        "video",
        {"video_id": np.array([f"v{i}" for i in range(n)], dtype=object)},
        np.array([f"p{i}" for i in range(n)], dtype=object),
        np.full(n, split, dtype=object),
        TRUTH[:n],
        PROBABILITY[:n],
        **changes,
    )


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("youden", 0.25),
        ("sensitivity=0.5", 0.475),
        ("sensitivity=0.9", 0.25),
        ("specificity=0.6", 0.25),
        ("specificity=0.9", 0.475),
        ("0.3", 0.3),
    ],
)
def test_every_rule_chooses_between_two_predictions(rule: str, threshold: float) -> None:
    assert ThresholdRule.parse(rule).choose(TRUTH, PROBABILITY) == pytest.approx(threshold)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_the_sensitivity_asked_for_is_reached_by_the_highest_threshold(seed: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    truth = np.r_[0, 1, rng.integers(0, 2, n)].astype(float)
    probability = rng.integers(0, 11, n + 2) / 10
    cut = ThresholdRule("sensitivity", wanted).choose(truth, probability)
    assert (probability[truth == 1] >= cut).mean() >= wanted - 1e-9
    higher = np.unique(probability[probability >= cut])
    if len(higher):
        assert (probability[truth == 1] > higher[0]).mean() < wanted
    low = ThresholdRule("specificity", wanted).choose(truth, probability)
    assert (probability[truth == 0] < low).mean() >= wanted - 1e-9


@given(st.integers(0, 10_000))
def test_youden_is_the_best_of_all_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.r_[0, 1, rng.integers(0, 2, 20)].astype(float)
    probability = rng.integers(0, 8, 22) / 7

    def both(cut: float) -> float:
        return float((probability[truth == 1] >= cut).mean() + (probability[truth == 0] < cut).mean())

    best = max(both(cut) for cut in [*np.unique(probability), 2])
    assert both(ThresholdRule().choose(truth, probability)) == pytest.approx(best)


# 0.5 was returned before: a number that nobody chose.
@pytest.mark.parametrize("truth", [[1, 1], [0, 0], [1, np.nan]])
def test_without_both_classes_no_threshold_is_chosen(truth: list[float]) -> None:
    assert np.isnan(ThresholdRule().choose(np.array(truth), np.array([0.2, 0.9])))
    assert ThresholdRule.parse("0.4").choose(np.array(truth), np.array([0.2, 0.9])) == 0.4


@pytest.mark.parametrize("text", ["youden", "sensitivity=0.9", "specificity=0.95", "0.5"])
def test_a_rule_is_written_as_it_is_read(text: str) -> None:
    assert str(ThresholdRule.parse(text)) == text
    assert ThresholdRule.parse(f" {text.upper()} ") == ThresholdRule.parse(text)


@pytest.mark.parametrize(
    "text", ["", "best", "0", "1", "1.5", "nan", "youden=0.5", "sensitivity", "sensitivity=2", "ppv=0.9", "=0.5"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"allowed are youden, sensitivity=0.9, .*such as 0.5 \(--threshold\)"):
        ThresholdRule.parse(text)


def test_rules_are_told_in_a_methods_section() -> None:
    sentences = [ThresholdRule.parse(text).sentence("held-out data") for text in ("youden", "sensitivity=0.9", "0.5")]
    assert sentences == [
        "The decision threshold maximised sensitivity plus specificity on held-out data (Youden).",
        "The decision threshold was chosen for a sensitivity of 0.9 on held-out data.",
        "The decision threshold was set to 0.5 beforehand.",
    ]


def test_a_threshold_is_not_chosen_on_test_rows() -> None:
    assert np.isnan(with_threshold(held_out("test"), ThresholdRule()).threshold).all()
    assert with_threshold(held_out("test"), ThresholdRule.parse("0.4")).threshold.tolist() == [0.4] * 5


def test_all_rows_are_given_the_threshold_that_validation_rows_choose() -> None:
    rows = concatenated([held_out(), held_out("test")])
    assert with_threshold(rows, ThresholdRule()).threshold.tolist() == pytest.approx([0.25] * 10)
    assert with_threshold(rows, ThresholdRule(), 0.7).threshold.tolist() == [0.7] * 10
    regression = held_out(kind="regression")
    assert with_threshold(regression, ThresholdRule()) is regression
