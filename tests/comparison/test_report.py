"""What a comparison writes: tables, figures, the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from panecho_embed.comparison.evaluate import BASELINE
from panecho_embed.comparison.report import write_comparison_report
from panecho_embed.comparison.result import Problem, write_files
from panecho_embed.comparison.tables import contrast_rows, efficiency_rows, ranked, score_rows, verdict
from panecho_embed.finetune.report import read_metrics
from tests.comparison.fabricated import fabricated_result
from tests.finetune.fabricate import EF, GRADE, LOW


def test_the_mean_over_seeds_is_the_mean_of_what_the_runs_wrote(tmp_path: Path) -> None:
    result = fabricated_result(tmp_path)
    for standing in result.comparisons[0].standings:
        folders = [trial.folder for trial in result.outcomes if trial.init == standing.candidate.name]
        written = [read_metrics(folder)[0]["EF"]["mae"].value for folder in folders]
        if written:
            assert standing.scores["mae"].value == pytest.approx(np.mean(written))


def test_the_baseline_is_ranked_and_not_contrasted(tmp_path: Path) -> None:
    (comparison,) = fabricated_result(tmp_path).comparisons
    assert ranked(comparison, 1.0)[-1].candidate.name == BASELINE
    assert [contrast.first for contrast in comparison.contrasts] == ["random", "imagenet"]


def test_tables_go_from_best_to_worst(tmp_path: Path) -> None:
    (comparison,) = fabricated_result(tmp_path).comparisons
    columns, rows = score_rows(comparison, 1.0)
    assert [row[0] for row in rows] == ["panecho", "imagenet", "random", BASELINE]
    assert [row[1] for row in rows] == ["2", "2", "2", "-"]
    assert columns[-1] == "R²"
    assert [row[0] for row in contrast_rows(comparison, 1.0)[1]] == ["imagenet - panecho", "random - panecho"]


def test_label_efficiency_has_a_column_a_fraction(tmp_path: Path) -> None:
    result = fabricated_result(tmp_path, fractions=(0.1, 1.0))
    columns, rows = efficiency_rows(result.comparisons[0], [0.1, 1.0])
    assert columns == ["Start", "0.1", "1"]
    assert [row[0] for row in rows] == ["panecho", "random", "imagenet"]


def test_the_verdict_names_the_best_and_what_is_worse(tmp_path: Path) -> None:
    (comparison,) = fabricated_result(tmp_path).comparisons
    text = verdict(comparison, 1.0, "panecho")
    assert text.startswith("EF: panecho has the best MAE")
    assert "worse: random" in text


def test_with_one_seed_the_verdict_says_what_is_not_known(tmp_path: Path) -> None:
    (comparison,) = fabricated_result(tmp_path, seeds=1).comparisons
    assert "what other seeds would give" in verdict(comparison, 1.0, "panecho")


def test_files_hold_every_score_difference_and_run(tmp_path: Path) -> None:
    result = fabricated_result(tmp_path, fractions=(0.1, 1.0))
    write_files(result)
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores["candidate"]) == {"panecho", "random", "imagenet", BASELINE}
    assert {"seed_sd", "sampling_sd", "low", "high"} <= set(scores)
    differences = pd.read_csv(tmp_path / "differences.csv")
    assert len(differences) == 4
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert len(runs) == 12
    for _, row in runs.iterrows():
        written = read_metrics(Path(row["folder"]))[0]["EF"]["mae"].value
        assert row["mae:EF"] == pytest.approx(written)
    assert json.loads((tmp_path / "comparison.json").read_text())["reference"] == "panecho"


def test_the_page_shows_starts_licences_problems_and_the_command(tmp_path: Path) -> None:
    problem = Problem("echoclip", "the weights are <gated>")
    result = fabricated_result(tmp_path, [problem], fractions=(0.1, 1.0), seeds=1)
    page = write_comparison_report(result).read_text(encoding="utf-8")
    for text in ("panecho.pt", "MIT", "the weights are &lt;gated&gt;", result.command, "random (seed 0): untrained"):
        assert text in page
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    assert drawn == {"EF-starts.png", "EF-differences.png", "EF-label-efficiency.png", "histories.png"}


def test_many_targets_are_summarised_and_folded(tmp_path: Path) -> None:
    result = fabricated_result(tmp_path, seeds=1, tasks=(EF, LOW, GRADE))
    assert [comparison.name for comparison in result.comparisons] == ["Mean over 2 class tasks", "EF", "LowEF", "Grade"]
    page = write_comparison_report(result).read_text(encoding="utf-8")
    assert "The metric of each start, by target." in page


def test_of_many_targets_the_mean_stands_open_and_the_targets_are_folded(tmp_path: Path) -> None:
    tasks = (EF, LOW, GRADE, replace(EF, name="EF2"), replace(LOW, name="Low2"))
    page = write_comparison_report(fabricated_result(tmp_path, seeds=1, tasks=tasks)).read_text(encoding="utf-8")
    assert "<h2>Mean over 3 class tasks</h2>" in page
    assert "<h2>Mean over 2 regressions</h2>" in page
    assert page.count("<details") == page.count("<summary>")
    for task in tasks:
        assert f"<summary>{task.name}</summary>" in page
