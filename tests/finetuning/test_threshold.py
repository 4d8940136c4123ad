"""The threshold of a yes-or-no target: chosen on validation patients by the recipe's rule, and then left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from panecho_embed.core.errors import RecipeError
from panecho_embed.evaluation.thresholds import ThresholdRule, with_threshold
from panecho_embed.finetuning.outcome import read_outcome
from panecho_embed.finetuning.recipe_files import load_recipe
from tests.finetuning.conftest import NARROW, finetune, rows_of

SETTINGS = {"data.targets": "LowEF", "model.width": NARROW, "schedule.epochs": 1}
AT_THE_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv", "balanced_accuracy", "f1")


@pytest.fixture(scope="module")
def runs(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each rule; but for it, they are the same."""
    folder = tmp_path_factory.mktemp("runs")
    for rule in ("youden", "sensitivity=0.9", "0.3"):
        settings = SETTINGS | {"evaluation.threshold": rule}
        finetune("custom", "--init", "random", "--data", graded, "-o", folder / rule, **settings)
    return {rule: folder / rule for rule in ("youden", "sensitivity=0.9", "0.3")}


def document(run: Path) -> dict:
    found: dict = json.loads((run / "metrics.json").read_text())
    return found


def by_hand(rows: pd.DataFrame, threshold: float) -> dict[str, float]:
    called, low = rows["probability"] >= threshold, rows["truth"] == "yes"
    hits, none = (called & low).sum(), (~called & ~low).sum()
    with np.errstate(invalid="ignore"):
        return {
            "sensitivity": hits / low.sum(),
            "specificity": none / (~low).sum(),
            "ppv": hits / called.sum() if called.any() else np.nan,
            "npv": none / (~called).sum() if (~called).any() else np.nan,
            "balanced_accuracy": (hits / low.sum() + none / (~low).sum()) / 2,
            "f1": 2 * hits / (low.sum() + called.sum()),
        }


@pytest.mark.parametrize("rule", ["youden", "sensitivity=0.9", "0.3"])
def test_metrics_hold_the_decision_at_the_threshold_with_intervals(rule: str, runs: dict[str, Path]) -> None:
    target = document(runs[rule])["targets"]["LowEF"]
    (threshold,) = target["thresholds"]
    expected = by_hand(rows_of(runs[rule], target["level"], "test"), threshold)
    for name in AT_THE_THRESHOLD:
        value = target["metrics"][name]["value"]
        assert (np.nan if value is None else value) == pytest.approx(expected[name], nan_ok=True), name
        if value is not None:
            assert target["metrics"][name]["low"] <= value <= target["metrics"][name]["high"]
    assert document(runs[rule])["threshold_rule"] == rule


def test_validation_rows_alone_choose_it(runs: dict[str, Path]) -> None:
    rows = rows_of(runs["sensitivity=0.9"], "study", "val")
    (threshold,) = document(runs["sensitivity=0.9"])["targets"]["LowEF"]["thresholds"]
    low = rows[rows["truth"] == "yes"]["probability"].sort_values(ignore_index=True)
    # The highest that reaches 90 % of 4: all of them; the next higher one would miss the lowest.
    assert (low >= threshold).all()
    below = rows[rows["probability"] < low[0]]["probability"]
    assert threshold > below.max() if len(below) else threshold <= low[0]
    youden = rows_of(runs["youden"], "study", "val")
    (chosen,) = document(runs["youden"])["targets"]["LowEF"]["thresholds"]
    best = max(by_hand(youden, cut)["balanced_accuracy"] for cut in [*youden["probability"], 2.0])
    assert by_hand(youden, chosen)["balanced_accuracy"] == pytest.approx(best)
    assert document(runs["0.3"])["targets"]["LowEF"]["thresholds"] == [0.3]


@pytest.mark.parametrize("rule", ["youden", "sensitivity=0.9", "0.3"])
def test_the_model_keeps_it(rule: str, runs: dict[str, Path]) -> None:
    about = torch.load(runs[rule] / "model.pt", weights_only=True)["panecho_embed"]
    assert [about["thresholds"]["LowEF"]] == document(runs[rule])["targets"]["LowEF"]["thresholds"]
    assert about["threshold_rule"] == rule


def test_the_methods_say_how_it_was_chosen(runs: dict[str, Path]) -> None:
    pages = {rule: (run / "report.html").read_text() for rule, run in runs.items()}
    assert "maximised sensitivity plus specificity on the validation patients (Youden)" in pages["youden"]
    assert "was chosen for a sensitivity of 0.9 on the validation patients" in pages["sensitivity=0.9"]
    assert "The decision threshold was set to 0.3 beforehand." in pages["0.3"]


def test_test_rows_do_not_choose_it(runs: dict[str, Path]) -> None:
    rows = read_outcome(runs["youden"]).at("study")["LowEF"]
    (chosen,) = set(with_threshold(rows, ThresholdRule()).threshold)
    assert set(with_threshold(rows.of_split("val"), ThresholdRule()).threshold) == {chosen}
    assert np.isnan(with_threshold(rows.of_split("test"), ThresholdRule()).threshold).all()
    assert set(with_threshold(rows, ThresholdRule.parse("0.3")).threshold) == {0.3}  # stated beforehand


def test_another_rule_is_another_run(graded: Path, runs: dict[str, Path]) -> None:
    words = ["custom", "--init", "random", "--data", graded, "-o", runs["youden"]]
    told = finetune(*words, expect=1, **SETTINGS | {"evaluation.threshold": "0.3"}).stderr
    assert 'evaluation.threshold: "0.3", not "youden"' in told


@pytest.mark.parametrize("rule", ["sometimes", "sensitivity=2", "1.5", "accuracy=0.9"])
def test_a_rule_that_there_is_not_is_refused(rule: str) -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.threshold: the threshold is .*sensitivity=0\.9.*--set eval"):
        load_recipe("custom", [f"evaluation.threshold={rule}"])
