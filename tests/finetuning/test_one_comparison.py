"""One `panecho-embed compare` for a probe, a fine-tuned model, PanEcho's own head and another toolkit's table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from tests.finetuning.conftest import finetune, rows_of

Runs = dict[str, Path]
DRAWS = ["--draws", "200"]


def run(*words: object, expect: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result.output


@pytest.fixture(scope="module")
def runs(graded: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three runs on the same videos, and a table of the columns that another toolkit would write at least."""
    folder = tmp_path_factory.mktemp("runs")
    panecho = ["--weights", weights / "panecho.pt"]
    finetune("custom", *panecho, "--data", graded, "-o", folder / "tuned", data__targets="EF", schedule__epochs=1)
    small = ["--image-size", "32", "--frames-per-clip", "4", "--clips", "1", "--workers", "0"]
    run("extract", graded, "-o", folder / "e.h5", *panecho, *small)
    run("predict", folder / "e.h5", "-o", folder / "head", *panecho, "--tasks", "EF", "--no-sheets")
    run("probe", "linear", folder / "e.h5", "--target", "EF", "-o", folder / "probe", *DRAWS)
    rows = rows_of(folder / "tuned", split="test")[["target", "video_id", "patient_id", "truth"]]
    rows.sort_values("truth").assign(prediction=rows["truth"] + 2).to_csv(folder / "theirs.csv", index=False)
    return {"tuned": folder / "tuned", "head": folder / "head", "probe": folder / "probe"}


@pytest.fixture(scope="module")
def theirs(runs: Runs) -> Path:
    return runs["tuned"].parent / "theirs.csv"


@pytest.fixture(scope="module")
def compared(runs: Runs, theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("compared") / "out"
    return run("compare", *runs.values(), f"other={theirs}", "-o", out, "--reference", "head", *DRAWS), out


def test_probe_fine_tuned_model_head_and_foreign_table_stand_in_one_table(
    compared: tuple[str, Path], runs: Runs
) -> None:
    said, out = compared
    assert "EF: it can't be told which is better: 8 patients were tested" in said
    scores = pd.read_csv(out / "scores.csv").query("metric == 'mae'").set_index("candidate")
    assert set(scores.index) == {*runs, "other"}
    assert set(scores["n_patients"]) == {8}
    for name, folder in runs.items():
        rows = pd.read_csv(folder / "predictions.csv").query("level == 'video' and split == 'test' and target == 'EF'")
        assert scores.loc[name, "value"] == pytest.approx((rows["prediction"] - rows["truth"]).abs().mean())


def test_differences_are_paired_by_patient(compared: tuple[str, Path], runs: Runs) -> None:
    _, out = compared
    differences = pd.read_csv(out / "differences.csv").set_index("first")
    assert set(differences.index) == {"tuned", "probe", "other"}
    assert set(differences["second"]) == {"head"}
    assert set(differences["n_patients"]) == {8}
    assert (differences["p_holm"] >= differences["p_value"]).all()
    errors = {}
    for name in ("tuned", "head"):
        rows = rows_of(runs[name], split="test").query("target == 'EF'").set_index("video_id")
        errors[name] = (rows["prediction"] - rows["truth"]).abs()
    apart = errors["tuned"] - errors["head"][errors["tuned"].index]
    assert differences.loc["tuned", "value"] == pytest.approx(apart.mean())
    # The jackknife over patients of a mean is its textbook standard error.
    assert differences.loc["tuned", "variance_patients"] == pytest.approx(apart.var(ddof=1) / 8, rel=0.25)


def test_the_report_says_who_made_them_and_what_can_not_be_concluded(compared: tuple[str, Path]) -> None:
    said, out = compared
    page = (out / "report.html").read_text(encoding="utf-8")
    for candidate, by in (
        ("tuned", "finetune"), ("head", "predict"), ("probe", "probe linear"), ("other", "a table of predictions"),
    ):  # fmt: skip
        assert f"<dt>Candidate {candidate}</dt><dd>{by}</dd>" in page
    assert "one training of a model says nothing of what other seeds would give" in said
    document = json.loads((out / "comparison.json").read_text())
    assert (document["made_by"], document["facts"]["Reference"]) == ("compare", "head")
    assert {path.name for path in (out / "predictions").iterdir()} == {
        "tuned.csv", "head.csv", "probe.csv", "other.csv"
    }  # fmt: skip


def test_what_a_comparison_wrote_is_compared_again(compared: tuple[str, Path], tmp_path: Path) -> None:
    _, out = compared
    tables = sorted((out / "predictions").iterdir())
    run("compare", *tables, "-o", tmp_path / "again", "--reference", "head", *DRAWS)
    columns = ["candidate", "metric", "value"]
    first, second = (pd.read_csv(folder / "scores.csv")[columns] for folder in (out, tmp_path / "again"))
    pd.testing.assert_frame_equal(first, second)


def test_seeds_of_one_name_are_trainings_of_one_candidate(runs: Runs, tmp_path: Path) -> None:
    rows = pd.read_csv(runs["tuned"] / "predictions.csv", dtype=str, keep_default_na=False)
    rows.assign(run="1").to_csv(tmp_path / "seed-1.csv", index=False)
    both = [f"tuned={runs['tuned']}", f"tuned={tmp_path / 'seed-1.csv'}"]
    run("compare", *both, runs["head"], "-o", tmp_path / "out", *DRAWS)
    scores = pd.read_csv(tmp_path / "out" / "scores.csv").query("metric == 'mae'").set_index("candidate")
    assert scores["trainings"].to_dict() == {"tuned": 2, "head": 1}


def test_a_foreign_table_without_a_column_is_told_which(runs: Runs, theirs: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(theirs)
    for lost in ("patient_id", "truth", "prediction"):
        rows.drop(columns=lost).to_csv(tmp_path / "lacks.csv", index=False)
        told = run("compare", runs["head"], tmp_path / "lacks.csv", "-o", tmp_path / "out", expect=2)
        assert f"lacks.csv: no column {lost}" in told
        assert "may be left out" in told
    assert not (tmp_path / "out").exists()


def test_of_different_patients_it_is_said_how_many_are_shared(runs: Runs, theirs: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(theirs)
    other = rows.assign(video_id="x" + rows["video_id"])
    other.loc[3:, "patient_id"] = "x" + other["patient_id"]
    other.to_csv(tmp_path / "other.csv", index=False)
    told = run("compare", runs["head"], tmp_path / "other.csv", "-o", tmp_path / "out", expect=2)
    assert "EF: the candidates have no row (video) in common, and 3 patients: head has 8 rows" in told
    assert not (tmp_path / "out").exists()


def test_rows_that_not_all_have_are_left_out_and_counted(runs: Runs, theirs: Path, tmp_path: Path) -> None:
    pd.read_csv(theirs).iloc[:5].to_csv(tmp_path / "five.csv", index=False)
    said = run("compare", runs["head"], tmp_path / "five.csv", "-o", tmp_path / "out", *DRAWS)
    assert "3 test rows that not every run has were left out" in said
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["n"]) == {5}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--reference", "nobody"], "the reference is 'nobody'; the candidates are head, other"),
        (["--target", "ESV"], "no target 'ESV' in head, other; in common are EF (--target)"),
        (["--level", "study"], "the runs have no rows of level study: head has"),
        (["--margin", "2 ml"], "MAE is in %: give it such as \"0.5 %\" (--margin)"),
        (["--margin", "wide"], "a number above 0 is needed"),
    ],
)  # fmt: skip
def test_what_can_not_be_compared_is_told(runs: Runs, theirs: Path, tmp_path: Path, more: list[str], told: str) -> None:
    words = ["compare", runs["head"], f"other={theirs}", "-o", tmp_path / "out", *DRAWS]
    assert told in run(*words, *more, expect=2)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_told(runs: Runs, tmp_path: Path) -> None:
    told = run("compare", runs["head"], tmp_path, "-o", tmp_path / "out", expect=1)
    assert "holds no predictions.csv; a run of `probe`, `finetune` or `predict` (with labels) leaves one" in told
    assert "no such run" in run("compare", runs["head"], tmp_path / "nowhere", "-o", tmp_path / "out", expect=1)
