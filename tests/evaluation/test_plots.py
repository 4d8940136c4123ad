"""Figures show the numbers they were given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from panecho_embed import report
from panecho_embed.evaluation import plots
from panecho_embed.evaluation.intervals import scores
from panecho_embed.evaluation.metrics import binary_metrics, multiclass_metrics, regression_metrics

RNG = np.random.default_rng(0)
WHO = np.arange(120) // 2
TRUTH = RNG.normal(55, 10, 120)
PREDICTION = TRUTH + RNG.normal(0, 5, 120)


def lines(figure: Figure) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in figure.axes[0].lines
    }


def predictions(task: str) -> plots.Predictions:
    if task == "regression":
        found = scores(regression_metrics(TRUTH, PREDICTION, WHO, cutoffs=(50.0,)), draws=50)
        return plots.Predictions("EF [%]", "regression", (), TRUTH, PREDICTION, WHO, found, cutoffs=(50.0,))
    if task == "binary":
        truth, probability = (TRUTH < 50).astype(float), 1 / (1 + np.exp((PREDICTION - 50) / 5))
        found = scores(binary_metrics(truth, probability, WHO), draws=50)
        return plots.Predictions("low", "binary", ("no", "yes"), truth, probability, WHO, found)
    truth = np.digitize(TRUTH, [50, 60])
    logits = -np.abs(PREDICTION[:, None] - [45, 55, 65]) / 4
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = ("low", "middle", "high")
    found = scores(multiclass_metrics(truth, probability, WHO, classes), draws=50)
    return plots.Predictions("grade", "multiclass", classes, truth.astype(float), probability, WHO, found)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("regression", {"scatter", "bland-altman", "calibration", "roc"}),
        ("binary", {"roc", "precision-recall", "calibration", "confusion"}),
        ("multiclass", {"roc", "precision-recall", "calibration", "confusion"}),
    ],
)
def test_every_task_has_its_figures(task: str, names: set[str]) -> None:
    assert set(plots.task_figures(predictions(task))) == names


def test_the_roc_curve_is_that_of_scikit_learn() -> None:
    low = predictions("binary")
    figure = plots.roc([plots.Ranking("yes", low.truth == 1, low.prediction, 0.9)], WHO)
    x, y = lines(figure)["yes: 0.900"]
    false_positive, sensitivity, _ = roc_curve(low.truth, low.prediction, drop_intermediate=False)
    np.testing.assert_allclose(y, np.interp(x, false_positive, sensitivity), atol=1e-12)


def test_a_class_that_nobody_has_gets_no_curve() -> None:
    nobody = plots.Ranking("rare", np.zeros(120, dtype=bool), PREDICTION, np.nan)
    everybody = plots.Ranking("low", TRUTH < 50, -PREDICTION, 0.9)
    legend = plots.precision_recall([nobody, everybody], WHO).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["low"]


def test_confusion_counts_every_unit_once() -> None:
    grade = predictions("multiclass")
    figure = plots.confusion(grade.truth, grade.prediction.argmax(axis=1), grade.classes)
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


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_names_are_drawn_as_they_are_formulas_and_markup_too(task: str) -> None:
    hostile = "$\\frac{$<script>&\x1b"
    given = predictions(task)
    named = replace(given, label=hostile, classes=(hostile, hostile) if given.classes else ())
    pictures = [report.figure(drawing, caption).svg for drawing, caption in plots.task_figures(named).values()]
    assert any(r"$\frac{$&lt;script&gt;&amp;\x1b" in svg for svg in pictures)
    assert not any("<script>" in svg or "\x1b" in svg for svg in pictures)
