"""Figures show the numbers they were given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from panecho_embed.evaluation import page as report
from panecho_embed.evaluation import plots
from panecho_embed.evaluation.predictions import Predictions, concatenated
from panecho_embed.evaluation.scores import Scored, score
from panecho_embed.evaluation.targets import Target

RNG = np.random.default_rng(0)
WHO = np.arange(120) // 2
TRUTH = RNG.normal(55, 10, 120)
PREDICTION = TRUTH + RNG.normal(0, 5, 120)


def lines(figure: Figure) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in figure.axes[0].lines
    }


def scored(kind: str, name: str = "", classes: tuple[str, ...] = (), threshold: float = 0.5) -> Scored:
    cutoffs: tuple[float, ...] = ()
    if kind == "regression":
        target, truth, prediction, cutoffs = Target(name or "EF", "regression", unit="%"), TRUTH, PREDICTION, (50.0,)
    elif kind == "binary":
        target = Target(name or "low", "binary", classes or ("no", "yes"))
        truth, prediction = (TRUTH < 50).astype(float), 1 / (1 + np.exp((PREDICTION - 50) / 5))
    else:
        target = Target(name or "grade", kind, ("low", "middle", "high"))  # type: ignore[arg-type]
        truth = np.digitize(TRUTH, [50, 60]).astype(float)
        logits = -np.abs(PREDICTION[:, None] - [45, 55, 65]) / 4
        prediction = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = Predictions(
        target,
        "video",
        {"video_id": np.array([f"v{i}" for i in range(120)], dtype=object)},
        np.array([f"p{i}" for i in WHO], dtype=object),
        np.full(120, "test", dtype=object),
        truth,
        prediction,
        threshold=np.full(120, threshold if kind == "binary" else np.nan),
    )
    return score(rows, cutoffs=cutoffs, draws=50)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("regression", {"scatter", "bland-altman", "calibration", "roc"}),
        ("binary", {"roc", "precision-recall", "calibration", "confusion"}),
        ("multiclass", {"roc", "precision-recall", "calibration", "confusion"}),
        ("ordinal", {"roc", "precision-recall", "calibration", "confusion"}),
    ],
)
def test_every_kind_has_its_figures(kind: str, names: set[str]) -> None:
    assert set(plots.target_figures(scored(kind))) == names


def test_without_a_threshold_there_is_no_confusion() -> None:
    assert "confusion" not in plots.target_figures(scored("binary", threshold=np.nan))


def test_of_several_trainings_the_first_is_drawn_and_the_caption_says_so() -> None:
    one = scored("regression").predictions
    two = concatenated([replace(one, draw=np.full(120, text, dtype=object)) for text in "ab"])
    drawn = plots.target_figures(score(two, draws=50))
    assert all(caption.endswith("First of 2 trainings.") for _, caption in drawn.values())
    assert len(drawn["scatter"][0].axes[0].collections[0].get_offsets()) == 120


def test_curves_of_grades_are_of_that_grade_or_above() -> None:
    figure, _ = plots.target_figures(scored("ordinal"))["roc"]
    assert [name.partition(":")[0] for name in lines(figure) if ":" in name] == ["middle or above", "high or above"]


def test_the_roc_curve_is_that_of_scikit_learn() -> None:
    one = scored("binary")
    low = one.predictions
    figure, _ = plots.target_figures(one)["roc"]
    x, y = lines(figure)[f"yes: {one.primary.value:.3f}"]
    false_positive, sensitivity, _ = roc_curve(low.truth, low.prediction, drop_intermediate=False)
    np.testing.assert_allclose(y, np.interp(x, false_positive, sensitivity), atol=1e-12)


def test_a_class_that_nobody_has_gets_no_curve() -> None:
    grades = scored("multiclass").predictions
    rows = grades.take(np.flatnonzero(grades.truth < 2))
    legend = plots.target_figures(score(rows, draws=50))["precision-recall"][0].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["low", "middle"]


def test_confusion_counts_every_unit_once() -> None:
    figure, _ = plots.target_figures(scored("multiclass"))["confusion"]
    assert sum(int(text.get_text()) for text in figure.axes[0].texts) == 120


def test_history_marks_the_epoch_that_was_kept() -> None:
    epochs = np.arange(1, 6)
    figure = plots.history(epochs, {"training": 5 / epochs, "validation": 6 / epochs}, "loss", best=4)
    assert list(lines(figure)["kept: epoch 4"][0]) == [4, 4]


def test_a_history_of_one_epoch_has_room() -> None:
    figure = plots.history(np.array([1]), {"training": np.array([2.0])}, "loss", best=1)
    low, high = figure.axes[0].get_xlim()
    assert low <= 0.5
    assert high >= 1.5
    ticks = [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high]
    assert ticks == [1]


def test_runs_of_a_group_share_colour_and_name() -> None:
    epochs, values = np.arange(1, 4), np.ones(3)
    figure = plots.histories([("a", epochs, values), ("b", epochs, values), ("a", epochs, values)], "loss")
    drawn = figure.axes[0].lines
    assert drawn[0].get_color() == drawn[2].get_color() != drawn[1].get_color()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_label_efficiency_of_several_names_each() -> None:
    n, value = np.array([10.0, 100.0]), np.array([8.0, 5.0])
    figure = plots.label_efficiency([plots.Efficiency(name, n, value, value - 1, value + 1) for name in "ab"], "MAE")
    assert {"a", "b"} <= set(lines(figure))


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_names_are_drawn_as_they_are_formulas_and_markup_too(kind: str) -> None:
    hostile = "$\\frac{$<script>&\x1b"
    named = scored(kind, hostile, (hostile, f"{hostile}!"))
    pictures = [report.figure(drawing, caption).svg for drawing, caption in plots.target_figures(named).values()]
    assert any(r"$\frac{$&lt;script&gt;&amp;\x1b" in svg for svg in pictures)
    assert not any("<script>" in svg or "\x1b" in svg for svg in pictures)
