"""`panecho-embed grid` with the recipes that are not one target and one split, and under torchrun."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.evaluation.splits import random_order
from tests.finetuning.conftest import NARROW, SMALL, rows_of

pytestmark = pytest.mark.usefixtures("without_report")


def words(recipe: str, data: Path, out: Path, *more: str, inits: str) -> list[str]:
    settings = SMALL | {"schedule.epochs": "1", "evaluation.draws": "50"}
    settings |= {"model.width": str(NARROW)} if "random" in inits else {}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return ["grid", recipe, "--inits", inits, "--data", str(data), "-o", str(out), *options, *more]


def run(*arguments: str, expect: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == expect, result.output
    return result.output


@pytest.fixture
def cross_validated(pediatric: Path, starts: Path, tmp_path: Path) -> Path:
    # Four folds in place of ten.
    shutil.copytree(pediatric, tmp_path / "data")
    for file in (tmp_path / "data").glob("*/FileList.csv"):
        rows = pd.read_csv(file)
        rows.assign(Split=rows["Split"] % 4).to_csv(file, index=False)
    more = ["--set", "data.folds=4", "--seeds", "1", "--frozen"]
    arguments = words("echonet-pediatric", tmp_path / "data", tmp_path / "out", *more, inits="panecho,random")
    assert "2 runs trained, 0 reused" in run(*arguments)
    return tmp_path / "out"


def test_of_a_cross_validation_every_study_is_tested_once_by_trained_and_frozen_starts(cross_validated: Path) -> None:
    trained = rows_of(cross_validated / "runs/panecho/fraction-1/seed-0", "study")
    frozen = rows_of(cross_validated / "frozen/panecho/fraction-1/seed-0", "study")
    assert trained["study_id"].is_unique
    assert set(trained["fold"]) == set(range(4))
    columns = ["study_id", "patient_id", "fold", "truth"]
    pd.testing.assert_frame_equal(*(t[columns].sort_values("study_id", ignore_index=True) for t in (trained, frozen)))
    scores = pd.read_csv(cross_validated / "scores.csv").query("metric == 'mae'").set_index("candidate")
    assert set(scores.index) == {"panecho", "random", "panecho (frozen)", "random (frozen)"}
    assert set(scores["n"]) == {12}
    mine = np.abs(trained["prediction"] - trained["truth"]).mean()
    assert scores.loc["panecho", "value"] == pytest.approx(mine, rel=1e-6)
    page = (cross_validated / "report.html").read_text(encoding="utf-8")
    assert "12 studies of 12 patients tested" in page
    assert "Training and validation: the mean over the folds" in page


@pytest.fixture
def of_many_targets(table: Path, starts: Path, tmp_path: Path) -> Path:
    more = ["--seeds", "1", "--fractions", "0.9,1", "--frozen"]
    printed = run(*words("multitask", table, tmp_path / "out", *more, inits="panecho,imagenet"))
    assert "\nLVEDV" in printed  # in the table of all targets
    assert "\nMean over 3 regressions: " in printed
    assert "\nLVEDV: " not in printed
    return tmp_path / "out"


def test_of_many_targets_each_has_its_scores_differences_and_curve_and_so_have_their_means(
    of_many_targets: Path,
) -> None:
    tasks = {"EF", "GLS", "LVEDV", "pericardial-effusion", "LVSystolicFunction"}
    means = {"Mean over 2 class targets", "Mean over 3 regressions"}
    for folder in (of_many_targets, of_many_targets / "fraction-0.9"):
        scores = pd.read_csv(folder / "scores.csv")
        assert set(scores["target"]) == tasks | means
        differences = pd.read_csv(folder / "differences.csv")
        assert set(differences["target"]) == tasks | means
        # Of each target: one other start and two frozen ones.
        assert set(differences.groupby("target").size()) == {3}
        assert (differences["p_holm"] >= differences["p_value"])[differences["p_value"].notna()].all()
        # Frozen or trained, a decision has a threshold that validation rows chose.
        decided = scores.query("target == 'pericardial-effusion' and metric == 'sensitivity'")
        assert len(decided) == 4
        assert decided["value"].notna().all()
        # The mean's difference is that of the means.
        r2 = scores.query("metric == 'r2'").groupby("candidate")["value"].mean()
        of_mean = differences.query("target == 'Mean over 3 regressions'").set_index("first")["value"]
        assert of_mean["imagenet"] == pytest.approx(r2["imagenet"] - r2["panecho"])
        # Of fewer than 10 patients nothing is drawn.
        assert not [*(folder / "plots").iterdir()]
    page = (of_many_targets / "report.html").read_text(encoding="utf-8")
    assert page.count("by the fraction of patients.") == len(tasks)


def test_too_few_patients_are_told_before_anything_is_trained(table: Path, starts: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    first_drawn = random_order(rows.loc[rows["split"] == "train", "patient_id"], seed=0)[:2]
    rows.loc[rows["patient_id"].isin(first_drawn), "LVEDV"] = ""
    rows.to_csv(tmp_path / "few.csv", index=False)
    more = ["--fractions", "0.1,1", "--set", "data.targets=EF,LVEDV", "--set", "loss.scale=variance"]
    arguments = words("custom", tmp_path / "few.csv", tmp_path / "out", *more, inits="panecho,imagenet")
    told = run(*arguments, expect=1)
    assert "fraction 0.1, seed 0: " in told
    assert "LVEDV has no label in train (4 videos)" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_torchrun_gives_what_one_process_does(dynamic: Path, weights: Path, tmp_path: Path) -> None:
    arguments = words("echonet-dynamic", dynamic, tmp_path / "two", "--frozen", "--seeds", "1", inits="panecho,random")
    environment = os.environ | {"PANECHO_EMBED_WEIGHTS": str(weights), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "panecho_embed", *arguments, "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run 1 of 2: panecho") == 1
    assert done.stdout.count("2 runs trained, 0 reused") == 1
    alone = words("echonet-dynamic", dynamic, tmp_path / "one", "--frozen", "--seeds", "1", inits="panecho,random")
    one_process = subprocess.run(
        [sys.executable, "-m", "panecho_embed", *alone, "--device", "cpu"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert one_process.returncode == 0, one_process.stderr
    mine, theirs = (pd.read_csv(tmp_path / name / "scores.csv") for name in ("one", "two"))
    pd.testing.assert_frame_equal(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_five_published_starts_stand_in_one_table(dynamic: Path, starts: Path, tmp_path: Path) -> None:
    inits = "panecho,random,imagenet,echoclip,kinetics"
    run(*words("echonet-dynamic", dynamic, tmp_path / "out", "--frozen", "--seeds", "1", inits=inits))
    scores = pd.read_csv(tmp_path / "out" / "scores.csv").query("metric == 'mae'")
    names = inits.split(",")
    assert set(scores["candidate"]) == {*names, *(f"{name} (frozen)" for name in names)}
