"""One table of labels gives the same targets, truths and training patients to `probe`, `finetune` and `predict`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.core.tasks import Task, all_tasks
from panecho_embed.datasets import read_manifest
from panecho_embed.evaluation.targets import Reading, Target
from panecho_embed.finetuning.data import make_fold, read_dataset
from panecho_embed.finetuning.recipe import DataSettings
from panecho_embed.prediction.agreement import Agreement, agreements
from panecho_embed.prediction.averages import average
from panecho_embed.store import EmbeddingFile
from probes.linear import LinearProbe
from probes.plans import RunSettings
from probes.problem import load_problem
from probes.run import label_efficiency
from tests.conftest import FileMaker, refs
from tests.probes.conftest import make_table, write_table

VIDEOS = "abcdef"
KNOWN = {task.name: task for task in all_tasks()}

Truths = dict[str, float]


def head(name: str, *classes: str, positive: int | None = None) -> Task:
    """A reporting task that only `predict` knows."""
    kind = "regression" if not classes else "binary" if positive is not None else "multiclass"
    count = len(classes) if kind == "multiclass" else 1
    return Task(name, kind, count, classes, positive, "", math.nan, "")  # type: ignore[arg-type]


def write_labels(folder: Path, name: str, cells: Sequence[str]) -> Path:
    """A manifest, which is a table of labels too; the videos are there, but nobody opens them."""
    splits = ("train", "train", "train", "val", "test", "test")
    lines = []
    for video, cell, split in zip(VIDEOS, cells, splits, strict=True):
        (folder / f"{video}.avi").touch()
        lines.append(f"{folder / video}.avi,{video},{video},{video},A4C,{split},{cell}")
    path = folder / "labels.csv"
    path.write_text(f"path,video_id,study_id,patient_id,view,split,{name}\n" + "\n".join(lines) + "\n")
    return path


def in_probe(make_file: FileMaker, labels: Path, name: str, reading: dict[str, Any]) -> tuple[Target, Truths]:
    path = make_file("probe.h5", refs(*VIDEOS), rows=[1] * 6)
    problem = load_problem(path, name, labels=labels, reading=Reading(**reading))
    return problem.target, dict(zip(problem.ids["video_id"].tolist(), problem.truth.tolist(), strict=True))


def in_finetune(labels: Path, name: str, reading: dict[str, Any]) -> tuple[Target, Truths]:
    dataset = read_dataset(labels, DataSettings(targets=(name,), **reading))
    names = [video.video_id for video in dataset.videos]
    return dataset.targets.targets[0], dict(zip(names, dataset.targets.truth[:, 0].tolist(), strict=True))


def agreement(make_file: FileMaker, labels: Path, task: Task, reading: dict[str, Any]) -> Agreement:
    columns = read_manifest(labels).labels
    path = make_file("predict.h5", refs(*VIDEOS), rows=[1] * 6, labels=columns)
    raw = np.random.default_rng(0).normal(size=(6, task.num_outputs))
    predicted = average([task], replace(EmbeddingFile(path).table(), values=raw))
    (found,) = agreements(predicted, reading=Reading(**reading), draws=10)
    return found


def in_predict(make_file: FileMaker, labels: Path, task: Task, reading: dict[str, Any]) -> tuple[Target, Truths]:
    found = agreement(make_file, labels, task, reading)
    assert found.problem == ""
    _, videos = found.predictions
    return videos.target, dict(zip(videos.ids["video_id"].tolist(), videos.truth.tolist(), strict=True))


STAGE = ["0", "1", "2", "1", "0", "2"]
CASES: list[tuple[Task, list[str], dict[str, Any], Target, list[float]]] = [
    (
        KNOWN["EF"],
        ["55.5", "40", "", "61.25", "33", "48"],
        {},
        Target("EF", "regression", unit="%"),
        [55.5, 40, math.nan, 61.25, 33, 48],
    ),
    (
        KNOWN["LVOT20mmHg"],
        ["0", "1", "0", "1", "", "0"],
        {},
        Target("LVOT20mmHg", "binary", ("0.0", "1.0")),
        [0, 1, 0, 1, math.nan, 0],
    ),
    (
        head("Died", "0", "1", positive=1),
        ["0", "1", "0", "1", "", "0"],
        {},
        Target("Died", "binary", ("0", "1")),
        [0, 1, 0, 1, math.nan, 0],
    ),
    (
        head("Died", "0", "1", positive=1),
        ["0", "1", "0", "1", "", "0"],
        {"positive": "0"},
        Target("Died", "binary", ("1", "0")),
        [1, 0, 1, 0, math.nan, 1],
    ),
    (
        head("Stage", "0", "1", "2"),
        STAGE,
        {"task": "ordinal"},
        Target("Stage", "ordinal", ("0", "1", "2")),
        [0, 1, 2, 1, 0, 2],
    ),
    (
        head("Stage", "0", "1", "2"),
        STAGE,
        {"task": "multiclass"},
        Target("Stage", "multiclass", ("0", "1", "2")),
        [0, 1, 2, 1, 0, 2],
    ),
    (head("Stage"), STAGE, {"task": "regression"}, Target("Stage", "regression"), [0, 1, 2, 1, 0, 2]),
    (
        head("Severity", "severe", "mild", positive=0),
        ["mild", "severe", "mild", "", "severe", "mild"],
        {"positive": "severe"},
        Target("Severity", "binary", ("mild", "severe")),
        [0, 1, 0, math.nan, 1, 0],
    ),
    (
        head("Severity", "mild", "severe", positive=1),
        ["mild", "severe", "mild", "severe", "severe", "mild"],
        {},
        Target("Severity", "binary", ("mild", "severe")),
        [0, 1, 0, 1, 1, 0],
    ),
    (
        head("Grade", "severe", "none", "mild"),
        ["none", "mild", "severe", "None", "mild", ""],
        {"order": ("none", "mild", "severe")},
        Target("Grade", "ordinal", ("none", "mild", "severe")),
        [0, 1, 2, 0, 1, math.nan],
    ),
    (
        KNOWN["AVStenosis"],
        ["None", "Mild", "severe", "Moderate", "none", "Severe"],
        {},
        Target("AVStenosis", "multiclass", ("Mild|Moderate", "None", "Severe")),
        [1, 0, 2, 0, 1, 2],
    ),
    (
        KNOWN["RASize"],
        ["Normal", "NA", "Dilated", "n/a", "nan", "Normal"],
        {},
        Target("RASize", "binary", ("Normal", "Dilated")),
        [0, math.nan, 1, math.nan, math.nan, 0],
    ),
    (
        KNOWN["RASize"],
        ["0", "1", "0", "1", "", "0"],
        {"task": "binary"},
        Target("RASize", "binary", ("Normal", "Dilated")),
        [0, 1, 0, 1, math.nan, 0],
    ),
    (
        KNOWN["GLS"],
        ["-18.5", "-20", "", "-12", "-15", "-21"],
        {},
        Target("GLS", "regression", unit="%"),
        [-18.5, -20, math.nan, -12, -15, -21],
    ),
    (
        KNOWN["GLS"],
        ["18.5", "20", "", "12", "15", "21"],
        {},
        Target("GLS", "regression", unit="%", sign=-1),
        [-18.5, -20, math.nan, -12, -15, -21],
    ),
]


@pytest.mark.parametrize(("task", "cells", "reading", "target", "truth"), CASES)
def test_a_column_is_the_same_target_everywhere(
    make_file: FileMaker,
    tmp_path: Path,
    task: Task,
    cells: list[str],
    reading: dict[str, Any],
    target: Target,
    truth: list[float],
) -> None:
    labels = write_labels(tmp_path, task.name, cells)
    expected = target, {name: value for name, value in zip(VIDEOS, truth, strict=True) if math.isfinite(value)}
    assert in_probe(make_file, labels, task.name, reading) == expected
    assert in_finetune(labels, task.name, reading) == expected
    assert in_predict(make_file, labels, task, reading) == expected


@pytest.mark.parametrize(
    ("task", "cells", "reading", "message", "flag"),
    [
        (head("Stage", "0", "1", "2"), STAGE, {}, "Stage has the whole numbers 0, 1, 2 alone", "--task ordinal"),
        (KNOWN["AVStenosis"], STAGE, {}, "AVStenosis has the numbers '0', '1', '2', and its classes", "--task ordinal"),
        (
            head("Grade", "severe", "none", "mild"),
            ["none", "mild", "severe"] * 2,
            {"task": "ordinal"},
            "Grade has the grades",
            "--order",
        ),
    ],
)
def test_what_the_values_do_not_say_is_asked_for_everywhere(
    make_file: FileMaker,
    tmp_path: Path,
    task: Task,
    cells: list[str],
    reading: dict[str, Any],
    message: str,
    flag: str,
) -> None:
    labels = write_labels(tmp_path, task.name, cells)
    with pytest.raises(ArgumentError) as probe:
        in_probe(make_file, labels, task.name, reading)
    with pytest.raises(ManifestError) as finetune:
        in_finetune(labels, task.name, reading)
    problem = agreement(make_file, labels, task, reading).problem
    assert message in str(probe.value)
    assert message in str(finetune.value)
    assert message in problem
    assert flag in str(probe.value)
    assert flag in problem
    assert flag.replace("--task ", "data.task=").replace("--order", "data.order") in str(finetune.value)


@pytest.mark.parametrize("target", ["EF", "LowEF"])
def test_a_tenth_of_a_hundred_patients_are_the_same_for_a_probe_and_for_fine_tuning(
    tmp_path: Path, target: str
) -> None:
    table: EmbeddingTable = make_table(patients=120, rows_each=1)
    patient = np.array([int(name[1:]) for name in table.patient_id])
    split = np.where(patient < 100, "train", np.where(patient < 110, "val", "test")).astype(object)
    table = replace(table, split=split)
    header = "path,video_id,study_id,patient_id,view,split,EF,LowEF\n"
    lines = []
    for i in range(len(table)):
        (tmp_path / f"{table.video_id[i]}.avi").touch()
        ids = f"{table.video_id[i]},{table.study_id[i]},{table.patient_id[i]},{table.view[i]},{split[i]}"
        lines.append(f"{table.video_id[i]}.avi,{ids},{table.labels['EF'][i]:.6f},{table.labels['LowEF'][i]:g}")
    (tmp_path / "videos.csv").write_text(header + "\n".join(lines) + "\n")

    problem = load_problem(write_table(tmp_path / "table.h5", table), target)
    curve = label_efficiency(
        problem, LinearProbe(problem.target.kind), RunSettings(fractions=(0.1,), repeats=1, seed=0)
    )
    settings = DataSettings(targets=(target,), fraction=0.1)
    fold = make_fold(read_dataset(tmp_path / "videos.csv", settings), settings, None, seed=0)
    drawn = {fold.dataset.videos[i].patient_id for i in fold.train}
    assert drawn == set(curve.draws[0].patients)
    assert len(drawn) >= 10
