"""What a grid says and writes: verdicts, tables, figures, the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.candidates import Candidate, line_up
from panecho_embed.evaluation.comparison import compare_candidates
from panecho_embed.evaluation.comparison_report import contrast_rows, score_rows, verdict_text
from panecho_embed.evaluation.inference import holm
from panecho_embed.evaluation.predictions import Predictions
from panecho_embed.evaluation.scores import read_metrics
from panecho_embed.finetuning.grid import compare_outcomes
from panecho_embed.finetuning.grid_report import efficiency_rows, methods, write_grid
from panecho_embed.finetuning.outcome import read_outcome
from tests.finetuning.fabricate import EF, GRADE, LOW, fabricate, small_recipe
from tests.finetuning.fabricate_grid import fabricated_grid


def written(run: Path, metric: str = "mae") -> float:
    """What a run wrote of itself."""
    value: float = read_metrics(run)["targets"]["EF"]["metrics"][metric]["value"]
    return value


def test_the_mean_over_seeds_is_the_mean_of_what_the_runs_wrote(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path)
    (comparison,) = grid.comparisons[1.0]
    for name, scored in comparison.standings.items():
        folders = [trial.folder for trial in grid.outcomes if trial.init == name]
        assert len(folders) == 2
        assert scored.primary.value == pytest.approx(np.mean([written(folder) for folder in folders]))


def test_the_baseline_is_ranked_and_not_contrasted(tmp_path: Path) -> None:
    (comparison,) = fabricated_grid(tmp_path).comparisons[1.0]
    assert [row[0] for row in score_rows(comparison)[1]][-1] == "baseline"
    assert [(one.first, one.second) for one in comparison.contrasts] == [("imagenet", "panecho"), ("random", "panecho")]


def test_tables_go_from_best_to_worst(tmp_path: Path) -> None:
    (comparison,) = fabricated_grid(tmp_path).comparisons[1.0]
    columns, rows = score_rows(comparison)
    assert [row[0] for row in rows] == ["panecho", "imagenet", "random", "baseline"]
    assert [row[columns.index("Trainings")] for row in rows] == ["2", "2", "2", "-"]
    assert "R²" in columns
    assert [row[0] for row in contrast_rows(comparison)[1]] == ["imagenet - panecho", "random - panecho"]


def test_label_efficiency_has_a_column_a_fraction(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path, fractions=(0.1, 1.0))
    columns, rows = efficiency_rows(grid, "EF")
    assert columns == ["Start", "0.1", "1"]
    assert {row[0] for row in rows} == {"panecho", "random", "imagenet"}


def test_the_verdict_names_the_best_and_what_is_worse(tmp_path: Path) -> None:
    (comparison,) = fabricated_grid(tmp_path).comparisons[1.0]
    text = verdict_text(comparison, "panecho")
    assert text.startswith("EF: panecho has the lowest mean error, ")
    assert "Worse than panecho: random" in text
    # With several seeds, they are part of the variance.
    assert "what other seeds would give" not in text


def test_with_one_seed_the_verdict_says_what_can_not_be_concluded(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path, seeds=1)
    (comparison,) = grid.comparisons[1.0]
    said = "What can't be concluded: one training of a model says nothing of what other seeds would give"
    assert said in verdict_text(comparison, "panecho")
    assert said in write_grid(grid).read_text(encoding="utf-8").replace("&#39;", "'").replace("&#x27;", "'")
    assert set(pd.read_csv(tmp_path / "differences.csv")["unknown"]) == {"seeds;training"}


def test_several_seeds_bring_their_own_variance(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path, seeds=3)
    (comparison,) = grid.comparisons[1.0]
    for one in comparison.contrasts:
        assert one.difference.unknown == ("training",)
        assert one.difference.variances["seeds"] > 0
        assert one.difference.se**2 == pytest.approx(sum(one.difference.variances.values()))
        half = (one.difference.high - one.difference.low) / 2
        assert half > 1.96 * one.difference.variances["patients"] ** 0.5
    write_grid(grid)
    assert set(pd.read_csv(tmp_path / "differences.csv")["unknown"]) == {"training"}
    assert "sum of that over patients and seeds" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_equally_good_starts_are_undecided_and_within_a_wide_margin_equivalent(tmp_path: Path) -> None:
    alike = {"panecho": 4.0, "random": 4.05}
    (comparison,) = fabricated_grid(tmp_path / "a", noise=alike, seeds=3).comparisons[1.0]
    assert [one.verdict for one in comparison.contrasts] == ["undecided"]
    grid = fabricated_grid(tmp_path / "b", noise=alike, seeds=3, margin="20 %")
    assert [one.verdict for one in grid.comparisons[1.0][0].contrasts] == ["equivalent"]
    page = write_grid(grid).read_text(encoding="utf-8")
    assert "<dt>Margin</dt><dd>20 %</dd>" in page
    assert "two one-sided tests showed the difference to be within 20 of 0" in page


def test_p_values_are_corrected_over_all_fractions(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path, fractions=(0.1, 1.0))
    every = [one for fraction in grid.fractions for c in grid.comparisons[fraction] for one in c.contrasts]
    assert len(every) == 4
    expected = holm([one.difference.p_value for one in every])
    assert [one.p_holm for one in every] == pytest.approx(list(expected))
    alone = fabricated_grid(tmp_path / "alone").comparisons[1.0][0].contrasts
    largest = grid.comparisons[1.0][0].contrasts
    assert [one.difference.p_value for one in largest] == [one.difference.p_value for one in alone]
    assert min(one.p_holm for one in largest) > min(one.p_holm for one in alone)


def test_the_methods_count_the_differences_of_all_fractions(tmp_path: Path) -> None:
    text = methods(fabricated_grid(tmp_path, fractions=(0.1, 1.0)))
    assert "corrected for the 4 differences" in text
    assert text.count("bootstrap samples of patients were drawn") == 1


def test_frozen_starts_are_lines_with_differences_of_their_own(tmp_path: Path) -> None:
    runs = fabricated_grid(tmp_path / "runs", seeds=2).outcomes
    first = next(outcome for trial, outcome in runs.items() if trial.init == "imagenet")
    ef = first.at("video")["EF"]
    once = replace(ef, run=np.full(len(ef), "", dtype=object))  # no seed: pretrained weights, all patients
    frozen = {1.0: [Candidate("imagenet (frozen)", {"EF": once}, "frozen probe")]}
    grid = fabricated_grid(tmp_path / "grid", frozen=frozen)
    (comparison,) = grid.comparisons[1.0]
    assert set(comparison.standings) == {"panecho", "random", "imagenet", "imagenet (frozen)"}
    assert [one.second for one in comparison.contrasts] == ["panecho"] * 3
    (mine,) = (one for one in comparison.contrasts if one.first == "imagenet (frozen)")
    # The variance of the trained start's seeds is known; the frozen one has none.
    assert mine.difference.unknown == ("training",)
    assert mine.difference.variances["seeds"] > 0
    assert "Frozen: a linear probe" in methods(grid)
    assert "Frozen: a linear probe" not in methods(fabricated_grid(tmp_path / "without"))


def test_targets_that_can_not_be_scored_are_left_out(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path, tasks=(EF, LOW))
    outcomes = {}
    for trial, outcome in grid.outcomes.items():
        rows = [replace(one, truth=np.zeros(len(one))) if one.target.name == "LowEF" else one
                for one in outcome.predictions]  # fmt: skip
        outcomes[trial] = replace(outcome, predictions=tuple(rows))
    assert [c.name for c in compare_outcomes(outcomes, {}, "panecho")[1.0]] == ["EF"]


def test_files_hold_every_score_difference_and_run(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path, fractions=(0.1, 1.0))
    write_grid(grid)
    for folder in (tmp_path, tmp_path / "fraction-0.1"):
        scores = pd.read_csv(folder / "scores.csv")
        assert set(scores["candidate"]) == {"panecho", "random", "imagenet"}
        assert {"sd_over_trainings", "low", "high"} <= set(scores)
        differences = pd.read_csv(folder / "differences.csv")
        assert len(differences) == 2
        assert {"variance_patients", "variance_seeds", "p_holm", "verdict"} <= set(differences)
        document = json.loads((folder / "comparison.json").read_text())
        assert document["facts"]["Reference"] == "panecho"
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert len(runs) == 12
    for _, row in runs.iterrows():
        assert row["mae:EF"] == pytest.approx(written(Path(row["folder"])))


def test_the_page_shows_starts_licences_problems_and_the_command(tmp_path: Path) -> None:
    problems = {"echoclip": "the weights are <gated>"}
    grid = fabricated_grid(tmp_path, problems, fractions=(0.1, 1.0), seeds=1)
    assert grid.exit_code == 3
    page = write_grid(grid).read_text(encoding="utf-8")
    for text in ("panecho.pt", "MIT", "the weights are &lt;gated&gt;", grid.command, "random (seed 0): untrained"):
        assert text in page
    assert "EF: MAE, % by the fraction of patients." in page
    assert "Validation loss of every run at the largest fraction." in page
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    assert drawn == {"EF-candidates.svg", "EF-differences.svg"}


def test_many_targets_are_summarised_and_folded(tmp_path: Path) -> None:
    grid = fabricated_grid(tmp_path, seeds=1, tasks=(EF, LOW, GRADE))
    assert [c.name for c in grid.comparisons[1.0]] == ["Mean over 2 class targets", "EF", "LowEF", "Grade"]
    assert "The primary metric of each candidate." in write_grid(grid).read_text(encoding="utf-8")


def test_of_many_targets_the_mean_stands_open_and_the_targets_are_folded(tmp_path: Path) -> None:
    tasks = (EF, LOW, GRADE, replace(EF, name="EF2"), replace(LOW, name="Low2"))
    page = write_grid(fabricated_grid(tmp_path, seeds=1, tasks=tasks)).read_text(encoding="utf-8")
    assert "<h2>Mean over 3 class targets</h2>" in page
    assert "<h2>Mean over 2 regressions</h2>" in page
    assert page.count("<details") == page.count("<summary>")
    for task in tasks:
        assert f"<summary>{task.name}</summary>" in page


def test_the_methods_name_a_start_that_was_fed_otherwise(tmp_path: Path) -> None:
    text = methods(fabricated_grid(tmp_path))
    assert "panecho was fed otherwise: frame_step 2 (panecho's own: 1)." in text
    assert "imagenet was fed" not in text


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Predictions]:
    """The labelled test rows of a run, by target."""
    outcome = read_outcome(fabricate(tmp_path, small_recipe("EF", "Grade"), tasks=(EF, GRADE)))
    return {name: one.of_split("test") for name, one in outcome.at("video").items()}


def test_rows_that_not_every_run_has_are_left_out_and_counted(rows: dict[str, Predictions]) -> None:
    lined_up, left_out = line_up({"a": rows["EF"], "b": rows["EF"].take(np.arange(3, 36))})
    assert left_out == 3
    assert [len(one) for one in lined_up.values()] == [33, 33]
    for one in lined_up.values():
        np.testing.assert_array_equal(one.prediction, rows["EF"].prediction[3:])


def test_the_order_of_rows_does_not_matter(rows: dict[str, Predictions]) -> None:
    lined_up, left_out = line_up({"a": rows["EF"], "b": rows["EF"].take(np.arange(36)[::-1])})
    assert left_out == 0
    np.testing.assert_array_equal(lined_up["a"].prediction, lined_up["b"].prediction)


def test_targets_that_a_run_lacks_are_left_out(rows: dict[str, Predictions]) -> None:
    found = compare_candidates([Candidate("a", rows), Candidate("b", {"EF": rows["EF"]})], draws=20)
    assert [comparison.name for comparison in found] == ["EF"]


@pytest.mark.parametrize("name", ["truth", "patient"])
def test_runs_that_disagree_are_refused(rows: dict[str, Predictions], name: str) -> None:
    column = getattr(rows["EF"], name).copy()
    column[4] = 99.0 if name == "truth" else "somebody"
    with pytest.raises(ArgumentError, match="of 1 rows, first v004-0"):
        line_up({"a": rows["EF"], "b": replace(rows["EF"], **{name: column})})


def test_no_row_in_common_is_refused(rows: dict[str, Predictions]) -> None:
    ids = {name: np.array([f"x{value}" for value in column], dtype=object) for name, column in rows["EF"].ids.items()}
    with pytest.raises(ArgumentError, match=r"no row \(video\) in common, and 20 patients"):
        line_up({"a": rows["EF"], "b": replace(rows["EF"], ids=ids)})


def test_rows_that_different_runs_lack_are_all_counted(rows: dict[str, Predictions]) -> None:
    lined_up, left_out = line_up({"a": rows["EF"].take(np.arange(3, 36)), "b": rows["EF"].take(np.arange(0, 34))})
    assert (left_out, len(lined_up["a"])) == (5, 31)
