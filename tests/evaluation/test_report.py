"""The report of a run: its answer, its tables, its cautions, and the files it leaves."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.evaluation import metrics
from panecho_embed.evaluation.conclusions import sentence
from panecho_embed.evaluation.page import Section, Text
from panecho_embed.evaluation.predictions import concatenated
from panecho_embed.evaluation.report import (
    Account,
    by_kind,
    cautions,
    interval_sentence,
    metric_rows,
    short_scores,
    summary_rows,
    write_run_report,
)
from panecho_embed.evaluation.scores import Scored, read_metrics, score, write_metrics
from panecho_embed.evaluation.targets import Target
from tests.evaluation.made import EF, GRADE, LOW, made


def scored(target: Target = EF, noise: float = 3.0, patients: int = 60, baseline: bool = True) -> Scored:
    return score(made(target, noise, patients=patients, baseline=baseline), draws=100)


def test_a_summary_has_one_row_a_target() -> None:
    columns, rows = summary_rows([scored(EF), scored(LOW), scored(GRADE, baseline=False)])
    assert columns == ["Target", "Metric", "Value", "95 % interval", "Baseline", "Difference", "n", "Patients"]
    assert [row[:2] for row in rows] == [["EF", "MAE, %"], ["LowEF", "AUROC"], ["Grade", "Weighted kappa"]]
    assert rows[2][4:6] == ["-", "-"]
    assert all(len(row) == len(columns) for row in rows)


def test_a_table_of_metrics_takes_further_columns_and_leaves_out_what_is_not_defined() -> None:
    one = scored(EF)
    columns, rows = metric_rows(one, {"Shuffled labels": {"mae": "9.1"}})
    assert columns == ["Metric", "Value", "95 % interval", "Baseline", "Difference", "Shuffled labels"]
    assert rows[0][-1] == "9.1"
    assert {row[-1] for row in rows[1:]} == {"-"}
    bias = next(row for row in rows if row[0].startswith("Bias"))
    assert bias[4] == "-"  # more is neither better nor worse
    undecided = score(made(LOW, threshold=np.full(60, np.nan)), draws=50)
    assert "Sensitivity" not in [row[0] for row in metric_rows(undecided)[1]]
    assert metric_rows(scored(EF, baseline=False))[0] == ["Metric", "Value", "95 % interval"]


def test_one_caution_holds_for_all_targets_that_share_it() -> None:
    few = [scored(EF, patients=12), scored(replace(EF, name="LVEDV"), patients=12)]
    (note,) = cautions(few)
    assert note.startswith("Only 12 patients were tested: ")
    assert cautions([scored(EF)]) == []
    assert [note.partition(":")[0] for note in cautions([*few, scored(replace(EF, name="ESV"))])] == ["EF", "LVEDV"]


def test_how_intervals_were_made_is_told_once_for_each_method() -> None:
    one = interval_sentence([scored(EF)])
    assert "bootstrap" in one
    assert "100 bootstrap samples of patients were drawn" in one
    assert "Values are means" not in one
    both = interval_sentence([scored(EF), scored(LOW)])
    assert both.count("95% confidence intervals of AUROC") == 1
    three = score(concatenated([made(EF, seed=i, draw=str(i)) for i in range(3)]), draws=100)
    assert "Values are means over 3 trainings" in interval_sentence([three])


def test_kinds_stand_together() -> None:
    ordered = by_kind([scored(GRADE), scored(LOW), scored(replace(EF, name="Z")), scored(EF)])
    assert [one.target.name for one in ordered] == ["EF", "Z", "LowEF", "Grade"]


def test_a_line_for_the_terminal_has_the_short_metrics() -> None:
    line = short_scores(scored(EF))
    assert line.startswith("MAE ")
    assert line.endswith("(60 test videos of 60 patients)")


def account(**changes: object) -> Account:
    given = {
        "title": "A run <b>",
        "subtitle": "of a test",
        "question": "Can it be read?",
        "facts": {"Targets": "EF"},
        "warnings": ["Be careful."],
        "methods": ["How it was done."],
        "command": "panecho-embed probe linear x.h5",
        "sections": [Section("Data", [Text("Rows.")])],
        "extra": {"EF": [Text("Something about EF.")]},
    }
    return Account(**(given | changes))  # type: ignore[arg-type]


def test_a_report_holds_everything_and_its_figures_are_files_too(tmp_path: Path) -> None:
    targets = [scored(EF), scored(LOW)]
    text = html.unescape(write_run_report(tmp_path, targets, account()).read_text())
    for part in (
        *(sentence(one, "can be predicted") for one in targets),
        *("A run <b>", "Can it be read?", "Be careful.", "Rows.", "Something about EF.", "How it was done."),
        *("panecho-embed probe linear x.h5", "60 videos of 60 patients tested.", "The baseline predicts the mean"),
    ):
        assert part in text
    assert "A run <b>" not in (tmp_path / "report.html").read_text()
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        *(f"EF-{name}.svg" for name in ("scatter", "bland-altman", "calibration")),
        *(f"LowEF-{name}.svg" for name in ("roc", "precision-recall", "calibration", "confusion")),
    }


def test_many_targets_are_folded_and_have_their_main_figures(tmp_path: Path) -> None:
    targets = [scored(replace(EF, name=f"X {i}")) for i in range(5)]
    text = write_run_report(tmp_path, targets, account(command="")).read_text()
    assert "Each target" in text
    assert "Run from Python." in text
    assert "5 of 5 targets can be predicted: X 0, X 1, X 2, X 3, X 4." in text
    assert sentence(targets[0], "can be predicted") not in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {f"X_{i}-scatter.svg" for i in range(5)}


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    hostile = replace(LOW, name="<script>alert(1)</script>/..", classes=("<i>", "$\\frac{"))
    text = write_run_report(tmp_path, [scored(hostile)], account()).read_text()
    assert "<script>alert(1)" not in text
    assert all(path.parent == tmp_path / "plots" for path in tmp_path.rglob("*.svg"))


def test_the_level_and_the_patients_tested_are_told(tmp_path: Path) -> None:
    rows = made(EF, videos=2, patients=40).by_study()
    text = write_run_report(tmp_path, [score(rows, draws=50)], account()).read_text()
    assert "40 studies of 40 patients tested." in text


def test_a_new_metric_is_one_entry_and_one_formula(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = metrics._regression_values
    monkeypatch.setitem(metrics.METRICS, "share_below", metrics.Metric("Share predicted below"))
    monkeypatch.setattr(metrics, "_regression_values", lambda sums: old(sums) | {"share_below": 0.5 + 0 * sums[:, 0]})
    found = scored()
    write_metrics(tmp_path, "probe", [found], about={})
    assert read_metrics(tmp_path)["targets"]["EF"]["metrics"]["share_below"]["value"] == 0.5
    assert ["Share predicted below", "0.500"] in [row[:2] for row in metric_rows(found)[1]]
