"""`panecho-embed probe`: the commands, run for real on embedding files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from panecho_embed.cli.main import main
from panecho_embed.core.records import EmbeddingTable


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["probe", *map(str, arguments)])


def ok(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def test_linear_writes_metrics_predictions_grid_and_plot(embeddings: Path, tmp_path: Path) -> None:
    result = ok("linear", embeddings, "--target", "EF", "--draws", 200, "--cutoffs", "40,50", "-o", tmp_path / "run")
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    score = document["targets"]["EF"]["metrics"]["mae"]
    assert score["low"] < score["value"] < score["high"]
    assert {"auroc_below_40", "auroc_below_50"} <= document["targets"]["EF"]["metrics"].keys()
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    test = predictions[predictions.split == "test"]
    assert (test.truth - test.prediction).abs().mean() == pytest.approx(score["value"])
    assert len(pd.read_csv(tmp_path / "run" / "grid.csv").query("chosen")) == 1
    assert (tmp_path / "run" / "plots" / "EF-scatter.svg").stat().st_size > 1000
    assert "guessing the mean" in result.output


def test_keys_of_metrics_json_are_stable(embeddings: Path, tmp_path: Path) -> None:
    ok("linear", embeddings, "--target", "Grade", "--draws", 50, "-o", tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert list(document) == [
        *("schema_version", "made_by", "version", "created_utc", "command", "source", "options", "not_evaluated"),
        *("settings_id", "data_digest", "embeddings", "draws", "seed", "targets"),
    ]
    assert document["made_by"] == "probe linear"
    assert list(document["targets"]["Grade"]) == [
        *("task", "classes", "unit", "level", "n", "n_patients", "primary", "thresholds", "cutoffs", "trainings"),
        *("metrics", "baseline", "versus_baseline"),
        *("pooling", "fusion", "n_labelled", "n_missing", "note", "probe", "not_saved", "folds", "k_shot", "chance"),
        *(
            "threshold_rule",
            "encoder_patients",
            "leaking_patients",
            "chosen",
            "recording_only",
            "control",
            "no_control",
            "subgroups",
            "label_efficiency",
        ),
    ]


def test_labels_can_come_from_a_csv(embeddings: Path, tmp_path: Path) -> None:
    labels = pd.DataFrame({"patient_id": [f"p{i:03d}" for i in range(60)], "Age": range(60)})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    ok(
        "linear",
        embeddings,
        "--target",
        "Age",
        "--labels",
        tmp_path / "labels.csv",
        "--draws",
        50,
        "-o",
        tmp_path / "run",
    )
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())["targets"]) == {"Age"}


def test_several_targets_make_one_run(embeddings: Path, tmp_path: Path) -> None:
    ok("linear", embeddings, "--target", "all", "--draws", 50, "-o", tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert set(document["targets"]) == {"EF", "LowEF", "Grade", "Noise", "Sex"}


def test_recorded_command_repeats_the_run(embeddings: Path, tmp_path: Path) -> None:
    ok("linear", embeddings, "--target", "EF", "--draws", 50, "--strengths", "1,10", "-o", tmp_path)
    command = json.loads((tmp_path / "metrics.json").read_text())["command"]
    assert command == (
        f"panecho-embed probe linear {embeddings} --target EF --strengths 1,10 --draws 50 --out {tmp_path}"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["knn", "--k", "1,5,20", "--metric", "euclidean", "--weights", "distance"],
        ["faiss", "--index", "hnsw"],
        ["attentive", "--epochs", "3", "--level", "study"],
        ["linear", "--fusion", "late", "--level", "study"],
        ["linear", "--pooling", "mean+std", "--level", "study", "--k-shot", "9", "--trainings", "2"],
        ["linear", "--folds", "3", "--trainings", "2"],
        ["knn", "--k", "1", "--temperature", "0.1", "--centre", "no", "--k-shot", "1", "--trainings", "2"],
    ],
)
def test_every_probe_runs(embeddings: Path, tmp_path: Path, arguments: list[str]) -> None:
    kind, *options = arguments
    ok(kind, embeddings, "--target", "EF", *options, "--draws", 50, "-o", tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["targets"]["EF"]["metrics"]["mae"]["value"] > 0


def test_everything_that_can_be_asked_for_is_in_the_report(embeddings: Path, tmp_path: Path) -> None:
    extras = ["--control", "--subgroups", "view,Sex", "--fractions", "0.3,1", "--repeats", 2, "--cutoffs", "50"]
    result = ok("linear", embeddings, "--target", "EF,LowEF", *extras, "--draws", 50, "-o", tmp_path)
    html = (tmp_path / "report.html").read_text()
    for text in ("Shuffled labels", "Subgroups by Sex", "Label efficiency", "Bland-Altman", "Methods", "Settings id"):
        assert text in html
    assert "untrained weights" in html
    assert json.loads((tmp_path / "metrics.json").read_text())["command"] in html
    assert "shuffled labels" in result.output
    assert {"draws.json", "label_efficiency.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_a_target_that_cannot_be_evaluated_does_not_stop_the_others(embeddings: Path, tmp_path: Path) -> None:
    rare = pd.DataFrame({"patient_id": [f"p{i:03d}" for i in range(60)], "Rare": ["a"] * 59 + ["b"]})
    rare.to_csv(tmp_path / "rare.csv", index=False)
    arguments = ("--target", "EF,Rare", "--labels", tmp_path / "rare.csv", "--draws", 50, "-o", tmp_path / "run")
    result = run("linear", embeddings, *arguments)
    assert result.exit_code == 3
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(document["targets"]) == ["EF"]
    assert list(document["not_evaluated"]) == ["Rare"]
    assert "Rare was not evaluated: " in (tmp_path / "run" / "report.html").read_text()
    assert "Rare was not evaluated: " in result.output


def test_k_shot_trains_on_the_drawn_patients_and_says_who_they_were(embeddings: Path, tmp_path: Path) -> None:
    ok("linear", embeddings, "--target", "Sex", "--k-shot", 3, "--trainings", 2, "--draws", 50, "-o", tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text())["targets"]["Sex"]
    assert document["k_shot"] == 3
    assert (document["folds"][0]["train"], document["folds"][0]["validation"]) == (12, 0)
    drawn = json.loads((tmp_path / "draws.json").read_text())["Sex"]["k_shot"]
    assert [len(draw["patients"]) for draw in drawn] == [6, 6]
    assert document["trainings"] == 2
    assert (
        "3 patients of each class were drawn at random from the training patients, 2 times"
        in (tmp_path / "report.html").read_text()
    )


def test_a_second_run_leaves_nothing_of_the_first(embeddings: Path, tmp_path: Path) -> None:
    ok("linear", embeddings, "--target", "Sex", "--shots", 3, "--repeats", 1, "--draws", 50, "-o", tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    refused = run("linear", embeddings, "--target", "EF", "--draws", 50, "-o", tmp_path)
    assert refused.exit_code == 1
    assert f"{tmp_path} holds a finished probe run already; take another folder (-o)" in refused.output
    assert (tmp_path / "draws.json").exists()
    ok("linear", embeddings, "--target", "EF", "--draws", 50, "-o", tmp_path, "--overwrite")
    assert not (tmp_path / "draws.json").exists()
    assert not list((tmp_path / "plots").glob("Sex*"))
    assert (tmp_path / "notes.txt").exists()


def test_a_comparison_takes_no_probe_run_and_a_probe_no_comparison(embeddings: Path, tmp_path: Path) -> None:
    for name in ("metrics.json", "comparison.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{}")
    into_run = ["compare", embeddings, embeddings, "--target", "EF", "-o", tmp_path / "metrics.json", "--overwrite"]
    assert "holds a probe run, and a comparison does not replace it" in run(*into_run).output
    into_comparison = ["linear", embeddings, "--target", "EF", "-o", tmp_path / "comparison.json", "--overwrite"]
    assert "holds a comparison, and a probe run does not replace it" in run(*into_comparison).output


def test_a_file_in_a_missing_folder_is_refused_before_the_work(embeddings: Path, tmp_path: Path) -> None:
    out = tmp_path / "none" / "out"
    message = f"can't write {out}: the folder does not exist (-o)"
    # No probe is in the folder: the output is looked at first.
    assert message in run("apply", tmp_path, embeddings, "-o", out).output
    audited = CliRunner().invoke(main, ["audit", str(embeddings), "-o", str(out)])
    assert (audited.exit_code, audited.output) == (1, f"Error: {message}\n")


def test_leaking_patients_are_in_every_account_of_the_run(
    table: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    split = table.split.copy()
    split[table.video_id == "v000"] = "test"
    path = write(tmp_path / "leak.h5", replace(table, split=split))
    result = ok("linear", path, "--target", "EF", "--allow-leakage", "--draws", 50, "-o", tmp_path / "run")
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    report = (tmp_path / "run" / "report.html").read_text()
    assert document["targets"]["EF"]["leaking_patients"] == ["p000"]
    assert "1 patient was on two sides of a fold (--allow-leakage)" in result.output
    assert "Patients are on two sides of a fold." in report
    assert "No patient is on two sides" not in report


def test_a_probe_is_applied_to_a_new_file(embeddings: Path, file_of: Callable[..., Path], tmp_path: Path) -> None:
    ok("linear", embeddings, "--target", "EF,Sex", "--draws", 50, "-o", tmp_path / "run")
    ok("apply", tmp_path / "run", file_of(patients=7, seed=9), "-o", tmp_path / "new.csv")
    frame = pd.read_csv(tmp_path / "new.csv")
    assert frame.target.value_counts().to_dict() == {"EF": 14, "Sex": 14}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "Ef2"], "no label column 'Ef2': did you mean EF"),
        (["--target", "EF", "--level", "frame"], "stands at clip level"),
        (["--target", "EF", "--folds", "61"], "61 folds need at least 61 patients"),
        (["--target", "EF", "--cutoffs", "low"], "'low' is not a list of numbers"),
        (["--target", "Sex", "--task", "regression"], "text where regression needs numbers"),
        (["--target", "Sex", "--cutoffs", "40"], "--cutoffs is for a regression target; Sex is binary"),
        (
            ["--target", "EF", "--class-weight", "balanced"],
            "--class-weight is for a binary or multiclass or ordinal target",
        ),
        (["--target", "EF", "--positive", "M"], "--positive is for a binary target; EF is regression"),
        (["--target", "Grade", "--task", "ordinal"], "their order is not known: give it, the lowest first (--order"),
        (["--target", "LowEF", "--threshold", "best"], "allowed are youden, sensitivity=0.9"),
        (["--target", "EF", "--trainings", "3"], "the split column gives one training"),
        (["--target", "EF", "--shots", "2.5"], "'2.5' is not a list of whole numbers"),
        (["--target", "EF,LowEF", "--folds", "61"], "none of 2 targets can be evaluated; EF: 61 folds need"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(
    embeddings: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run("linear", embeddings, *arguments, "--draws", 50, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_an_output_that_cannot_be_written_is_one_line(embeddings: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("linear", embeddings, "--target", "EF", "--draws", 50, "-o", tmp_path / "file" / "run")
    assert result.exit_code == 1
    assert "a part of its path is a file, not a folder" in result.output


def test_help_imports_nothing_heavy(file_of: Callable[..., Path]) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from probes.cli import probe;"
        "[CliRunner().invoke(probe, [name, '--help']) for name in ('', *probe.commands)];"
        "print([name for name in ('torch', 'sklearn', 'faiss', 'pandas', 'scipy') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_a_decision_is_made_by_the_rule_asked_for(embeddings: Path, tmp_path: Path) -> None:
    ok("linear", embeddings, "--target", "LowEF", "--threshold", "sensitivity=0.9", "--draws", 50, "-o", tmp_path)
    document = json.loads((tmp_path / "metrics.json").read_text())["targets"]["LowEF"]
    assert document["threshold_rule"] == "sensitivity=0.9"
    assert document["thresholds"] == pytest.approx(
        [json.loads((tmp_path / "probe.json").read_text())["targets"]["LowEF"]["threshold"]]
    )
    assert all(document["metrics"][name]["value"] is not None for name in ("sensitivity", "specificity", "ppv", "npv"))
    assert "chosen for a sensitivity of 0.9 on held-out training data" in (tmp_path / "report.html").read_text()


def test_ordered_grades_are_read_in_their_order(embeddings: Path, tmp_path: Path) -> None:
    result = ok(
        "linear", embeddings, "--target", "Grade", "--order", "mild,moderate,severe", "--draws", 50, "-o", tmp_path
    )
    document = json.loads((tmp_path / "metrics.json").read_text())["targets"]["Grade"]
    assert (document["task"], document["primary"]) == ("ordinal", "weighted_kappa")
    assert {"auroc:moderate or above", "auroc:severe or above"} <= set(document["metrics"])
    assert "Weighted kappa" in result.output


def test_a_table_of_tasks_says_what_a_column_is(embeddings: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.csv").write_text("name,type,unit\nNoise,regression,dB\n")
    options = ("--target", "Noise", "--task-table", tmp_path / "tasks.csv", "--draws", 50, "-o", tmp_path / "run")
    assert "Noise, dB" in ok("linear", embeddings, *options).output
