"""The recording-only baseline: what the frame rate, the view and other facts of the videos tell without any image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.core.wording import number
from panecho_embed.evaluation.scores import score
from panecho_embed.store import EmbeddingFile
from probes.account import recording_notes
from probes.linear import LinearProbe
from probes.plans import RunSettings
from probes.problem import Problem, load_problem, load_problems
from probes.recording import recording_facts
from probes.run import evaluate, recording_only, run_target

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def told(table: EmbeddingTable, write: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose frame rates are the EF of the patient, nearly."""
    rng = np.random.default_rng(0)
    ef = dict(zip(table.video_id, table.labels["EF"], strict=True))
    fps = {video: value + rng.normal(0, 0.5) for video, value in ef.items()}
    return write(tmp_path_factory.mktemp("told") / "told.h5", table, fps)


def lines_of(file: Path, out: Path, *words: object) -> str:
    arguments = ["probe", "linear", file, "-o", out, "--draws", 100, *words]
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def facts_by_hand(units: EmbeddingTable) -> dict[str, np.ndarray]:
    videos = {
        "video_id": np.array(["a", "b", "c", "d"], dtype=object),
        "study_id": np.array(["s", "s", "t", "t"], dtype=object),
        "path": np.array(["a.dcm", "b.avi", "c.dcm", "d.dcm"], dtype=object),
        "status": np.array(["done", "done", "done", "failed"], dtype=object),
        "view": np.array(["A4C", "PLAX", "A4C", "A4C"], dtype=object),
        "fps": np.array([20.0, 40.0, np.nan, 99.0]),
        "manufacturer": np.array(["x", "x", "x", "x"], dtype=object),
        "sha256": np.array(["1", "2", "3", "4"], dtype=object),
    }
    return dict(recording_facts(videos, units))


def units_of(table: EmbeddingTable, level: str, **ids: list[str]) -> EmbeddingTable:
    n = len(next(iter(ids.values())))
    columns = {name: np.array(values, dtype=object) for name, values in ids.items()}
    rows = {name: getattr(table, name)[:n] for name in ("patient_id", "view", "split", "first_frame", "frame_step")}
    frames = table.frames_per_clip[:n]
    return replace(table, values=table.values[:n], **rows, **columns, frames_per_clip=frames, labels={}, level=level)


def test_facts_of_videos_by_hand(table: EmbeddingTable) -> None:
    found = facts_by_hand(units_of(table, "video", video_id=["c", "a", "b"], study_id=["t", "s", "s"]))
    # The unknown rate is the mean of the known ones, with a column that says so; a constant fact is left out.
    assert {name: values.tolist() for name, values in found.items()} == {
        "view": [[1, 0], [1, 0], [0, 1]],
        "frame rate": [[30, 1], [20, 0], [40, 0]],
        "type of file": [[1, 0], [1, 0], [0, 1]],
    }


def test_a_study_has_the_mean_of_its_videos_and_their_number(table: EmbeddingTable) -> None:
    found = facts_by_hand(units_of(table, "study", video_id=["", ""], study_id=["t", "s"]))
    assert found["view"].tolist() == [[1, 0], [0.5, 0.5]]
    assert found["number of videos"].tolist() == [[1], [2]]


def test_it_learns_and_is_tested_as_the_probe_is(told: Path) -> None:
    """By hand: a linear probe on the same facts as if they were embeddings, in the same partitions."""
    problem = load_problem(told, "EF")
    settings = RunSettings(folds=3, trainings=2, draws=20)
    facts = np.column_stack(list(problem.recording.values()))
    every = np.arange(len(problem))
    expected = evaluate(replace(problem, source=facts, row=every, unit=every), LinearProbe(), settings).scored
    found = run_target(problem, LinearProbe(), settings).recording
    assert found["mae"] == pytest.approx(expected.primary.value)
    assert found["mae"] < 1


def test_the_command_warns_where_the_recordings_do_as_well(told: Path, tmp_path: Path) -> None:
    said = lines_of(told, tmp_path / "run", "--target", "EF")
    assert "Warning: the recordings alone (view, frame rate; no image) reach MAE, %" in said
    assert "recording only" in said
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())["targets"]["EF"]["recording_only"]
    assert document["facts"] == ["view", "frame rate"]
    assert document["metrics"]["mae"] < 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Recording only" in page
    assert "It is not shown that the embeddings tell more" in page
    assert "Recording only: a linear probe on what the file knows of the recordings (view, frame rate)" in page


def test_of_few_patients_the_note_gives_no_statistic(told: Path) -> None:
    result = run_target(load_problem(told, "EF"), LinearProbe(), RunSettings(folds=3, draws=20))
    assert recording_notes(result)
    few = np.isin(result.evaluation.scored.predictions.patient, np.unique(result.problem.patient)[:9])
    scored = score(result.evaluation.scored.predictions.take(np.flatnonzero(few)), draws=20)
    assert scored.primary.n_patients == 9
    assert recording_notes(replace(result, evaluation=replace(result.evaluation, scored=scored))) == []


def test_no_warning_where_they_do_not(embeddings: Path, tmp_path: Path) -> None:
    said = lines_of(embeddings, tmp_path / "run", "--target", "EF")
    assert "Recording only (a linear probe on view, no image, same folds): MAE, %" in said
    assert "Warning: the recordings" not in said


@pytest.mark.parametrize("target", ["LowEF", "Grade"])
def test_classes_too(told: Path, target: str) -> None:
    problem = load_problem(told, target)
    found = run_target(problem, LinearProbe(problem.target.kind), RunSettings(draws=20)).recording
    assert (found["auroc"] > 0.9) == (target == "LowEF")


def test_what_is_to_be_predicted_is_no_fact(told: Path) -> None:
    (view,) = load_problems(told, "view")
    assert list(view.recording) == ["frame rate"]


@pytest.mark.parametrize("target", ["fps", "num_frames"])
def test_a_label_that_is_called_as_a_fact_is_no_fact(
    table: EmbeddingTable, write: Write, tmp_path: Path, target: str
) -> None:
    rates = {name: 20.0 + i for i, name in enumerate(dict.fromkeys(table.video_id))}
    labels = {target: np.array([rates[name] for name in table.video_id])}
    problem = load_problem(write(tmp_path / "a.h5", replace(table, labels=labels), rates), target)
    assert list(problem.recording) == (["view"] if target == "fps" else ["view", "frame rate"])


def test_studies_and_views_of_a_table_of_labels(embeddings: Path, table: EmbeddingTable, tmp_path: Path) -> None:
    """Four videos a study in place of two, all of one view but the first."""
    names = list(dict.fromkeys(table.video_id))
    patients = dict(zip(table.video_id, table.patient_id, strict=True))
    lines = [f"{name},other-{patients[name]},{'A2C' if i else 'PSAX'},{i}" for i, name in enumerate(names)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["video_id,study_id,view,LVEF", *lines]) + "\n")
    problem = load_problem(embeddings, "LVEF", labels=labels, level="study")
    assert {name: values.shape for name, values in problem.recording.items()} == {"view": (60, 2)}
    assert problem.recording["view"].sum(axis=0).tolist() == [59.5, 0.5]


def test_means_of_a_constant_are_no_fact(table: EmbeddingTable) -> None:
    """(0.1 + 0.1 + 0.1) / 3 is not 0.1."""
    units = units_of(table, "study", video_id=["", ""], study_id=["s", "t"])
    videos = {
        "video_id": np.array(["a", "b", "c", "d"], dtype=object),
        "study_id": np.array(["s", "s", "s", "t"], dtype=object),
        "path": np.array(["a.dcm", "b.dcm", "c.dcm", "d.dcm"], dtype=object),
        "fps": np.full(4, 0.1),
        "frame_width": np.array([800, 0, 800, 800]),
    }
    found = recording_facts(videos, units)
    assert {name: values.tolist() for name, values in found.items()} == {
        "frame width": [[pytest.approx(1 / 3)], [0]],  # whether it is not known
        "number of videos": [[3], [1]],
    }


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["1.2.840.1", "1.2.840.2", "b/1.2.840.AVI"], [[1, 0], [1, 0], [0, 1]]),
        (["a.nii.gz", "b.gz", "c.nii"], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        (["study:1.2.840.1", "study:1.2.840.2", "study:c.dcm"], None),
    ],
)
def test_a_piece_of_an_id_is_no_type_of_file(table: EmbeddingTable, paths: list[str], expected: object) -> None:
    videos = {name: np.array(list("abc"), dtype=object) for name in ("video_id", "study_id")}
    found = recording_facts(
        videos | {"path": np.array(paths, dtype=object)},
        units_of(table, "video", video_id=["a", "b", "c"], study_id=["a", "b", "c"]),
    )
    assert {name: values.tolist() for name, values in found.items()} == (
        {} if expected is None else {"type of file": expected}
    )


def test_a_table_knows_nothing_of_the_recordings(table: EmbeddingTable) -> None:
    problem: Problem = load_problem(table, "EF")
    assert recording_only(problem, (), RunSettings()) == {}
    assert not run_target(problem, LinearProbe(), RunSettings(draws=20)).recording_suffices


def test_a_file_at_study_level(told: Path) -> None:
    facts = recording_facts(EmbeddingFile(told).video_columns, load_table_of(told))
    assert all(len(values) == 60 for values in facts.values())


def load_table_of(file: Path) -> EmbeddingTable:
    from probes.problem import load_table

    return load_table(file, level="study")[1]


def invoked(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_stands_in_comparisons_too(
    told: Path, embeddings: Path, table: EmbeddingTable, write: Write, tmp_path: Path
) -> None:
    """One line where all files know the same of the recordings, else one for each; with the warning of `probe`."""
    values = table.values + np.random.default_rng(1).normal(size=table.values.shape).astype(np.float32)
    rates = dict(
        zip(EmbeddingFile(told).video_columns["video_id"], EmbeddingFile(told).video_columns["fps"], strict=True)
    )
    noisy = write(tmp_path / "noisy.h5", replace(table, values=values), rates)
    words = ["--target", "EF", "--draws", 100]
    shown = invoked("probe", "compare", told, noisy, *words, "--refits", 2, "-o", tmp_path / "same")
    (line,) = (line for line in shown.splitlines() if line.startswith("recording only"))
    assert float(line.split()[2]) < 1
    assert "without any image, does as well as" in shown
    document = json.loads((tmp_path / "same" / "comparison.json").read_text())
    kept = document["targets"]["EF"]["recording_only"]
    assert set(kept) == {"told", "noisy"}
    for name, file in (("a", told), ("b", embeddings)):
        lines_of(file, tmp_path / name, "--target", "EF")
    alone = {
        name: json.loads((tmp_path / name / "metrics.json").read_text())["targets"]["EF"]["recording_only"]["metrics"][
            "mae"
        ]
        for name in ("a", "b")
    }
    assert kept["told"]["mae"] == pytest.approx(alone["a"])
    shown = invoked("compare", tmp_path / "a", tmp_path / "b", "--draws", 100, "-o", tmp_path / "both")
    lines = {line.partition(")")[0]: line for line in shown.splitlines() if line.startswith("recording only")}
    assert set(lines) == {"recording only (a", "recording only (b"}
    assert f" {number(alone['b'])} " in lines["recording only (b"]
    assert "does as well as a, within" in shown


def test_a_heart_rate_found_in_the_pictures_is_no_fact(table: EmbeddingTable) -> None:
    videos = {name: np.array(list("abc"), dtype=object) for name in ("video_id", "study_id", "path")}
    videos["heart_rate_bpm"] = np.array([60.0, 80.0, 99.0])
    videos["heart_rate_confidence"] = np.array([np.nan, np.nan, 0.9])
    videos["heart_rate_source"] = np.array(["HeartRate", "HeartRate", "self-similarity"], dtype=object)
    videos["r_wave_times_ms"] = np.array(["1.0", "", ""], dtype=object)
    found = recording_facts(videos, units_of(table, "video", video_id=["a", "b", "c"], study_id=["a", "b", "c"]))
    assert {name: values.tolist() for name, values in found.items()} == {
        "heart rate bpm": [[60, 0], [80, 0], [70, 1]],
        "heart rate source": [[1, 0], [1, 0], [0, 1]],
    }
