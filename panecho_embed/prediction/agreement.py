"""Predictions against labels of the same name: of patients who were not in training first, of others apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.core.tasks import Task
from panecho_embed.core.wording import counted, interval, number
from panecho_embed.evaluation.inference import DEFAULT_DRAWS
from panecho_embed.evaluation.metrics import SHORT, display_name
from panecho_embed.evaluation.predictions import FILE, Predictions, trivial_prediction, write_predictions
from panecho_embed.evaluation.scores import Scored, score, score_documents, write_metrics
from panecho_embed.evaluation.splits import SPLITS, split_name
from panecho_embed.evaluation.targets import Reading, Target, matched_classes, read_target
from panecho_embed.evaluation.thresholds import ThresholdRule, with_threshold
from panecho_embed.prediction.averages import Predictions as Averages

_NAMES = {"test": "test", "val": "validation", "train": "training"}
_NOT_RECORDED = (
    "Which patients these weights were trained on is not recorded. If any of them are in this input, the agreement is "
    "not that of new patients."
)


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How well a task's predictions agree with the labels of its name; per study.

    Parameters
    ----------
    task : Task
    predictions : tuple of Predictions
        Of the labelled studies, then of their videos; () where `problem` says why there are none.
    scored : mapping of str to Scored
        By split, "test" first: only of test rows is the agreement that of new patients.
    note : str
        What was taken for granted.
    problem : str
        Why there are no scores, beginning with the name of the task.
    words : mapping of str to str
        What to call the patients of each split: "test" is "not in training" where the model's file says who was.
    """

    task: Task
    predictions: tuple[Predictions, ...] = ()
    scored: Mapping[str, Scored] = field(default_factory=dict)
    note: str = ""
    problem: str = ""
    words: Mapping[str, str] = field(default_factory=lambda: _NAMES)

    @property
    def main(self) -> Scored | None:
        """The scores to report: of the test rows, or where there are none of the first split that has scores."""
        return next(iter(self.scored.values()), None)


def agreements(
    predictions: Averages,
    *,
    reading: Reading | None = None,
    thresholds: Mapping[str, float] | None = None,
    rule: ThresholdRule | None = None,
    patients: TrainingPatients | None = None,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> list[Agreement]:
    """One for each task that has a label column of exactly its name, in the order of the tasks.

    Parameters
    ----------
    predictions : averages of clips, videos and studies
    reading : Reading, optional
        How label columns are read; as tasks those of the predictions are known.
    thresholds : mapping of str to float, optional
        Of yes-or-no decisions, saved with the model. Otherwise `rule` chooses them on rows whose split is val.
    rule : ThresholdRule, optional
    patients : TrainingPatients, optional
        Those of the model. They decide who is a training row ("train") or a validation row ("val"), whatever the split
        column says. All others are "test" where the record can tell; only rows whose split is val still choose the
        threshold of a model that brings none. Where it can't, the split column decides on the others.
    draws, seed : int
        Of the bootstrap.
    """
    tasks = dict.fromkeys(output.task for output in predictions.outputs)
    given = reading or Reading()
    given = replace(given, tasks={task.name: task for task in tasks})
    rule, patients = rule or ThresholdRule(), patients or TrainingPatients()
    certain = not patients.unclear(predictions.videos.patient_id)
    return [
        _agreement(predictions, task, given, thresholds or {}, rule, draws, seed, patients, certain)
        for task in tasks
        if task.name in predictions.studies.labels
    ]


def write_agreements(found: Sequence[Agreement], about: Mapping[str, Any], folder: Path) -> None:
    """Write metrics.json and predictions.csv, where there is anything to write. Raises OSError."""
    scored = [one.main for one in found if one.main is not None]
    if not scored:
        return
    write_predictions([rows for one in found for rows in one.predictions], folder / FILE)
    of_target = {
        one.task.name: {
            "note": one.note,
            "split": next(iter(one.scored)),
            "splits": {name: score_documents(part.scores) for name, part in one.scored.items()},
        }
        for one in found
        if one.scored
    }
    problems = {one.task.name: one.problem for one in found if one.problem}
    write_metrics(folder, "predict", scored, about={**about, "not_evaluated": problems}, of_target=of_target)


def _agreement(
    predictions: Averages,
    task: Task,
    reading: Reading,
    thresholds: Mapping[str, float],
    rule: ThresholdRule,
    draws: int,
    seed: int,
    patients: TrainingPatients,
    certain: bool,
) -> Agreement:
    columns = [i for i, output in enumerate(predictions.outputs) if output.task == task]
    try:
        read = read_target(predictions.studies.labels[task.name], task.name, reading)
        if (read.target.kind == "regression") != (task.type == "regression"):
            raise ArgumentError(f"its labels are {read.target.kind}, and the task is {task.type}")
        threshold = thresholds.get(task.name)
        chooses = read.target.kind == "binary" and threshold is None
        tables = (predictions.studies, predictions.videos)
        of_studies, note = _splits(tables[0], patients, certain, chooses)
        truths = (read.truth, _read_truth(tables[1].labels[task.name], read.target, task.name, reading))
        splits = (of_studies, _splits(tables[1], patients, certain, chooses)[0])
        both = [_rows(*one, read.target, task, columns) for one in zip(tables, truths, splits, strict=True)]
    except ArgumentError as error:
        told = str(error)
        return Agreement(task, problem=told if told.startswith(task.name) else f"{task.name}: {told}")
    if threshold is not None and read.target.kind == "binary" and not _same_positive(read.target, task):
        threshold = float(np.nextafter(1 - threshold, 1))  # of the other class
    both = [with_threshold(_with_baseline(rows), rule, threshold) for rows in both]
    words = dict(_NAMES)
    if certain or (set(of_studies) == {"test"} and not any(map(str.strip, map(str, tables[0].split)))):
        words["test"] = "not in training" if certain else "all"
    scored = {}
    for split in ("test", "val", "train"):
        part = both[0].of_split(split)
        if not len(part) or (part.target.classes and len(np.unique(part.truth)) < 2):
            continue
        as_tested = replace(part, split=np.full(len(part), "test", dtype=object))
        scored[split] = score(as_tested, draws=draws, seed=seed)
    notes = " ".join(filter(None, (f"{read.note}." if read.note else "", note)))
    if not scored:
        return Agreement(
            task, tuple(both), note=notes, problem=f"{task.name}: the labels of each split have a single value"
        )
    return Agreement(task, tuple(both), scored, notes, words=words)


def _read_truth(column: npt.NDArray[Any], target: Target, name: str, reading: Reading) -> Floats:
    """Values of a column that is a known target: of videos, as of their studies."""
    try:
        read = read_target(column, name, reading)
    except ArgumentError:
        return np.full(len(column), np.nan)
    return read.truth if read.target == target else np.full(len(column), np.nan)


def _rows(
    table: EmbeddingTable, truth: Floats, split: Texts, target: Target, task: Task, columns: Sequence[int]
) -> Predictions:
    """The labelled rows of a table with what the task's head predicts for them."""
    values = table.values[:, list(columns)].astype(np.float64)
    if target.kind == "regression":
        prediction = values[:, 0]
    elif target.kind == "binary":
        # The column is the probability of the clinically positive class, whatever the labels call positive.
        own = values[:, 0]
        prediction = own if _same_positive(target, task) else 1 - own
    elif task.type == "binary":
        raise ArgumentError(f"its labels have {len(target.classes)} classes, and the task two")
    else:
        prediction = values[:, matched_classes(target, task)]
    known = np.flatnonzero(np.isfinite(truth))
    ids = {"study_id": table.study_id} | ({} if table.level == "study" else {"video_id": table.video_id})
    rows = Predictions(
        target=target,
        level=table.level,
        ids={name: column.astype(object) for name, column in ids.items()},
        patient=table.patient_id.astype(object),
        split=split,
        truth=truth,
        prediction=prediction,
    )
    return rows.take(known)


def _same_positive(target: Target, task: Task) -> bool:
    """Whether a target and a task's head call the same class positive."""
    return matched_classes(target, task)[1] == task.positive_class_index


def _splits(table: EmbeddingTable, patients: TrainingPatients, certain: bool, chooses: bool) -> tuple[Texts, str]:
    """What each row was to the model: "train", "val" or "test"; see `agreements`. And what was taken for granted."""
    names = np.array([split_name(str(name)) for name in table.split], dtype=object)
    split = patients.parts_of(table.patient_id)
    if certain:
        split[(split == "") & (names == "val") & chooses] = "val"
        split[split == ""] = "test"
        return split, ""
    note = ""
    if (names == "").any():
        unknown = sorted({str(name) for name, known in zip(table.split, names, strict=True) if not known and name})
        if unknown:
            note = f"The split column has {', '.join(map(repr, unknown[:3]))}: these rows count as test rows."
        elif (names != "").any():
            note = "Rows without a split count as test rows."
        names[names == ""] = "test"
    assert set(names) <= set(SPLITS)
    return np.where(split == "", names, split), note


def _with_baseline(rows: Predictions) -> Predictions:
    """What the training rows alone would predict, where there are some."""
    trained = rows.of_split("train")
    if not len(trained):
        return rows
    return replace(rows, baseline=trivial_prediction(rows.target, trained.truth, len(rows)))


def overlap(patients: TrainingPatients, table: EmbeddingTable) -> tuple[str, dict[str, Any]]:
    """How many patients of a table the model was trained on: a sentence, and counts for predictions.json."""
    if not patients.known:
        return _NOT_RECORDED, {"recorded": False}
    found = patients.overlap(table.patient_id)
    neither = found.patients - found.found
    were = f"{found.training} {'was' if found.training == 1 else 'were'} in the training of this model"
    told = f"Of {counted(found.patients, 'patient')}, {were}, {found.validation} in its validation"
    if not found.unclear:
        told += f", {neither} in neither (patient ids compared)."
    elif found.found:
        told += f". It can't be told who of the other {neither} was: {found.unclear}."
    else:
        told = f"It can't be told who of these patients was in the training of this model: {found.unclear}."
    if patients.before:
        told += f" The patients of the weights that it started from ({patients.before}) are not recorded."
    counts: dict[str, Any] = {"recorded": True, "comparable": not found.unclear}
    counts |= {"training": found.training, "validation": found.validation}
    if not found.unclear:
        counts["neither"] = neither
    return told, counts | {"started_from_unrecorded": patients.before or None}


def agreement_tables(found: Sequence[Agreement]) -> list[tuple[list[str], list[list[str]]]]:
    """Columns and rows for the terminal: one row for each task and split, a table for tasks of the same metrics."""
    columns = ["Agreement with labels", "Studies", "Patients"]
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for one in found:
        for split, part in one.scored.items():
            metrics = SHORT[part.target.kind][:2]
            cells = [f"{number(part.scores[name].value)} ({interval(part.scores[name])})" for name in metrics]
            known = part.baseline.get(part.metric)
            counts = [str(part.primary.n), str(part.primary.n_patients)]
            row = [f"{part.target.title}, {one.words[split]}", *counts, *cells]
            tables.setdefault(metrics, []).append([*row, number(known.value) if known else "-"])
    return [
        (
            [*columns, *(f"{display_name(name)} (95 %)" for name in metrics), f"Baseline {display_name(metrics[0])}"],
            rows,
        )
        for metrics, rows in tables.items()
    ]
