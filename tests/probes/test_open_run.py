"""A custom probe and a plain scikit-learn estimator go the whole way: evaluate, save, report, apply, compare."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.predictions import read_predictions
from panecho_embed.evaluation.targets import Reading
from probes.base import BaseProbe
from probes.linear import LinearProbe
from probes.outputs import RunInfo, apply_probes, load_probes, write_run
from probes.plans import RunSettings
from probes.problem import load_problem
from probes.run import evaluate, run_target

SETTINGS = RunSettings(draws=100)


class Nearest(BaseProbe):
    """The value of the nearest training row: as little code as a probe can be."""

    saved: ClassVar[tuple[str, ...]] = ("rows_", "values_")
    name = "Nearest row"

    def __init__(self, task: str = "regression") -> None:
        self.task = task  # type: ignore[assignment]

    def methods_sentence(self) -> str:
        return "The value of the nearest training embedding was taken"

    def fit(self, X: Any, y: Any) -> Self:
        self.rows_, self.values_ = self._check_fit(X, y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        apart = ((np.asarray(X)[:, None] - self.rows_) ** 2).sum(axis=2)
        return np.asarray(self.values_[apart.argmin(axis=1)])


class Bare(Nearest):
    """It names nothing to save."""

    saved: ClassVar[tuple[str, ...]] = ()
    name = "Bare"


def test_a_custom_probe_goes_the_whole_way(embeddings: Path, file_of: Callable[..., Path], tmp_path: Path) -> None:
    problem = load_problem(embeddings, "EF")
    assert evaluate(problem, Nearest(), SETTINGS).scored.gain["mae"].high < 0
    result = run_target(problem, Nearest(), replace(SETTINGS, subgroups=("Sex",), fractions=(0.5, 1), repeats=2))
    write_run([result], RunInfo(str(embeddings)), tmp_path)
    report = (tmp_path / "report.html").read_text()
    assert "Nearest row: EF" in report
    assert "The value of the nearest training embedding was taken." in report
    assert not (tmp_path / "grid.csv").exists()

    new = file_of(patients=7, seed=9)
    frame = apply_probes(tmp_path, new, classes=[Nearest])
    expected = result.probe.predict(load_problem(new, "EF").values)
    np.testing.assert_allclose(frame["prediction"], expected)
    with pytest.raises(ArgumentError, match=r"no probe is called 'Nearest'; installed are linear, knn, faiss, attenti"):
        load_probes(tmp_path)


@pytest.mark.parametrize(
    ("target", "estimator"),
    [
        ("EF", Ridge()),
        ("EF", make_pipeline(StandardScaler(), Ridge(alpha=3))),
        ("LowEF", LogisticRegression()),
        ("Grade", LogisticRegression()),
    ],
    ids=["Ridge", "Pipeline", "binary", "multiclass"],
)
def test_a_scikit_learn_estimator_goes_the_whole_way(
    embeddings: Path, file_of: Callable[..., Path], tmp_path: Path, target: str, estimator: Any
) -> None:
    pytest.importorskip("skops.io")
    problem = load_problem(embeddings, target)
    assert evaluate(problem, estimator, SETTINGS).scored.primary.n == 24
    result = run_target(problem, estimator, SETTINGS)
    write_run([result], RunInfo(str(embeddings)), tmp_path)
    assert "scikit-learn's" in html.unescape((tmp_path / "report.html").read_text())
    document = json.loads((tmp_path / "metrics.json").read_text())["targets"][target]
    assert document["probe"]["name"] == type(estimator).__name__
    assert document["not_saved"] == ""

    new = file_of(patients=7, seed=9)
    frame = apply_probes(tmp_path, new)
    values = load_problem(new, target).values
    if target == "EF":
        np.testing.assert_allclose(frame["prediction"], result.probe.predict(values))
    else:
        columns = [name for name in frame if name.startswith("probability:")]
        expected = result.probe.predict_proba(values)[:, -len(columns) :]
        np.testing.assert_allclose(frame[columns], expected)
    if target == "LowEF":
        assert np.isfinite(frame["threshold"]).all()


def test_grades_take_a_classifier(embeddings: Path) -> None:
    problem = load_problem(embeddings, "Grade", reading=Reading(order=("mild", "moderate", "severe")))
    assert evaluate(problem, LogisticRegression(), SETTINGS).scored.metric == "weighted_kappa"


def test_an_estimator_of_another_kind_is_refused(embeddings: Path) -> None:
    with pytest.raises(ArgumentError, match=r"the estimator is Ridge\(\); task 'binary' takes a classifier"):
        evaluate(load_problem(embeddings, "LowEF"), Ridge(), SETTINGS)


def test_one_command_compares_them_with_a_linear_probe(embeddings: Path, tmp_path: Path) -> None:
    problem = load_problem(embeddings, "EF")
    for name, probe in (("nearest", Nearest()), ("ridge", Ridge()), ("linear", LinearProbe())):
        write_run([run_target(problem, probe, SETTINGS)], RunInfo(str(embeddings)), tmp_path / name)
    runs = [str(tmp_path / name) for name in ("nearest", "ridge", "linear")]
    options = ["--reference", "linear", "--draws", "100", "-o", str(tmp_path / "compared")]
    result = CliRunner().invoke(main, ["compare", *runs, *options])
    assert result.exit_code == 0, result.output
    differences = pd.read_csv(tmp_path / "compared" / "differences.csv")
    assert set(differences["first"]) == {"nearest", "ridge"}
    assert set(differences["second"]) == {"linear"}
    assert "baseline" in result.output
    assert (tmp_path / "compared" / "report.html").is_file()


def test_a_probe_that_cannot_be_saved_says_why_and_is_evaluated_all_the_same(
    table: EmbeddingTable, tmp_path: Path
) -> None:
    results = [run_target(load_problem(table, "EF"), probe, SETTINGS) for probe in (Bare(), LinearProbe())]
    noise = run_target(load_problem(table, "Noise"), Bare(), SETTINGS)
    write_run([results[1], noise], RunInfo("x"), tmp_path / "some")
    document = json.loads((tmp_path / "some" / "metrics.json").read_text())["targets"]
    assert document["EF"]["not_saved"] == ""
    assert document["Noise"]["not_saved"] == "Bare names no attributes to save (`saved`)"
    assert set(load_probes(tmp_path / "some")) == {"EF"}
    write_run([results[0]], RunInfo("x"), tmp_path / "none")
    assert not (tmp_path / "none" / "probe.json").exists()
    assert [one.target.name for one in read_predictions(tmp_path / "none" / "predictions.csv")] == ["EF"]


def test_a_probe_that_fails_in_its_report_leaves_an_older_run_as_it_was(table: EmbeddingTable, tmp_path: Path) -> None:
    class Silent(Nearest):
        def methods_sentence(self) -> str:
            raise KeyError("Silent")

    problem = load_problem(table, "EF")
    write_run([run_target(problem, Nearest(), SETTINGS)], RunInfo("x"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(KeyError):
        write_run([run_target(problem, Silent(), SETTINGS)], RunInfo("x"), tmp_path, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_registered_probe_has_a_command(embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    entry = EntryPoint("nearest", f"{__name__}:Nearest", "panecho_embed.probes")
    monkeypatch.setattr("probes.registry.entry_points", lambda group: [entry])
    arguments = ["probe", "nearest", str(embeddings), "--target", "EF", "--draws", "50", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert set(load_probes(tmp_path)) == {"EF"}
    wrong = CliRunner().invoke(main, [*arguments, "--overwrite", "--set", "depth=3"])
    assert wrong.exit_code == 2
    assert "the probe nearest does not take {'depth': 3}" in wrong.output


@pytest.mark.parametrize(
    ("options", "source"),
    [(["--k-shot", "9"], "draws"), (["--folds", "3"], "folds")],
)
def test_finished_runs_on_the_same_draws_or_partitions_are_paired(
    embeddings: Path, tmp_path: Path, options: list[str], source: str
) -> None:
    for name, more in (("weak", ["--strengths", "1,10"]), ("strong", ["--strengths", "1000,10000"])):
        words = ["probe", "linear", str(embeddings), "--target", "EF,LowEF", *options, *more]
        result = CliRunner().invoke(main, [*words, "--trainings", "3", "--draws", "50", "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    runs = [f"{name}={tmp_path / name}" for name in ("weak", "strong")]
    result = CliRunner().invoke(main, ["compare", *runs, "--draws", "50", "-o", str(tmp_path / "compared")])
    assert result.exit_code == 0, result.output
    differences = pd.read_csv(tmp_path / "compared" / "differences.csv", keep_default_na=False)
    assert set(differences["target"]) == {"EF", "LowEF"}
    assert (differences[f"variance_{source}"].astype(float) > 0).all()
    assert (differences["variance_training"].astype(float) > 0).all()
    assert set(differences["unknown"]) == {""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin", "1 mL"], "the margin is '1 mL', and MAE is in %: give it such as \"0.5 %\" (--margin)"),
        (["--reference", "nobody"], "the reference is 'nobody'; the candidates are"),
        (["--target", "LVEDV"], "no target 'LVEDV' in"),
        (["--level", "study"], "the runs have no rows of level study"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_in_words(
    embeddings: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    problem = load_problem(embeddings, "EF")
    write_run([run_target(problem, LinearProbe(), SETTINGS)], RunInfo("x"), tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")[
        ["target", "patient_id", "video_id", "truth", "prediction", "split", "unit"]
    ]
    table.to_csv(tmp_path / "theirs.csv", index=False)
    words = ["compare", str(tmp_path / "run"), str(tmp_path / "theirs.csv"), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(main, [*words, "--draws", "20"]).exit_code == 0
    result = CliRunner().invoke(main, [*words, "--overwrite", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.output
