"""Predictions against labels of the same name, by split: those who were tested first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.intervals import DEFAULT_DRAWS
from panecho_embed.evaluation.predictions import FILE, Predictions, write_predictions
from panecho_embed.evaluation.scores import Scored, score, score_documents, write_metrics
from panecho_embed.evaluation.splits import SPLITS, split_name
from panecho_embed.evaluation.targets import Reading, Target, matched_classes, read_target
from panecho_embed.evaluation.thresholds import ThresholdRule, choose_threshold
from panecho_embed.prediction.averages import Predictions as Averages
from panecho_embed.records import EmbeddingTable
from panecho_embed.tasks import Task

Floats = npt.NDArray[np.float64]

_NAMES = {"test": "test", "val": "validation", "train": "training"}


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
    """

    task: Task
    predictions: tuple[Predictions, ...] = ()
    scored: Mapping[str, Scored] = field(default_factory=dict)
    note: str = ""
    problem: str = ""

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
    fine_tuned: bool = False,
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
    fine_tuned : bool
        Whether the model is somebody's own: without a split it may know these patients, which is then noted.
    draws, seed : int
        Of the bootstrap.
    """
    tasks = dict.fromkeys(output.task for output in predictions.outputs)
    given = reading or Reading()
    given = replace(given, tasks={task.name: task for task in tasks})
    rule = rule or ThresholdRule()
    return [
        _agreement(predictions, task, given, thresholds or {}, rule, draws, seed, fine_tuned)
        for task in tasks
        if task.name in predictions.studies.labels
    ]


def write_agreements(found: Sequence[Agreement], about: Mapping[str, Any], folder: Path) -> None:
    """Write metrics.json and predictions.csv; remove those of an earlier run where there is nothing to write.

    Raises StoreError.
    """
    scored = [one.main for one in found if one.main is not None]
    if not scored:
        for name in (FILE, "metrics.json"):
            (folder / name).unlink(missing_ok=True)
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


def split_words(split: str) -> str:
    """A split in words: "validation"."""
    return _NAMES[split]


def _agreement(
    predictions: Averages,
    task: Task,
    reading: Reading,
    thresholds: Mapping[str, float],
    rule: ThresholdRule,
    draws: int,
    seed: int,
    fine_tuned: bool,
) -> Agreement:
    columns = [i for i, output in enumerate(predictions.outputs) if output.task == task]
    try:
        read = read_target(predictions.studies.labels[task.name], task.name, reading)
        if (read.target.kind == "regression") != (task.type == "regression"):
            raise ArgumentError(f"its labels are {read.target.kind}, and the task is {task.type}")
        studies, note = _rows(predictions.studies, read.target, read.truth, task, columns, fine_tuned)
        video_truth = read_truth(predictions.videos.labels[task.name], read.target, task.name, reading)
        videos, _ = _rows(predictions.videos, read.target, video_truth, task, columns, fine_tuned)
    except ArgumentError as error:
        told = str(error)
        return Agreement(task, problem=told if told.startswith(task.name) else f"{task.name}: {told}")
    threshold = thresholds.get(task.name)
    if threshold is not None and read.target.kind == "binary" and not _same_positive(read.target, task):
        threshold = float(np.nextafter(1 - threshold, 1))  # of the other class
    both = tuple(_decided(_with_baseline(rows), threshold, rule) for rows in (studies, videos))
    scored = {}
    for split in ("test", "val", "train"):
        part = both[0].of_split(split)
        if not len(part) or (part.target.classes and len(np.unique(part.truth)) < 2):
            continue
        as_tested = replace(part, split=np.full(len(part), "test", dtype=object))
        scored[split] = score(as_tested, draws=draws, seed=seed)
    notes = " ".join(filter(None, (f"{read.note}." if read.note else "", note)))
    if not scored:
        return Agreement(task, both, note=notes, problem=f"{task.name}: the labels of each split have a single value")
    return Agreement(task, both, scored, notes)


def read_truth(column: npt.NDArray[Any], target: Target, name: str, reading: Reading) -> Floats:
    """Values of a column that is a known target: of videos, as of their studies."""
    try:
        read = read_target(column, name, reading)
    except ArgumentError:
        return np.full(len(column), np.nan)
    return read.truth if read.target == target else np.full(len(column), np.nan)


def _rows(
    table: EmbeddingTable, target: Target, truth: Floats, task: Task, columns: Sequence[int], fine_tuned: bool
) -> tuple[Predictions, str]:
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
    split, note = _splits(table.split, fine_tuned)
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
    return rows.take(known), note


def _same_positive(target: Target, task: Task) -> bool:
    """Whether a target and a task's head call the same class positive."""
    return matched_classes(target, task)[1] == task.positive_class_index


def _splits(column: npt.NDArray[np.object_], fine_tuned: bool) -> tuple[npt.NDArray[np.object_], str]:
    """The split of each row; without a split column every row is a test row."""
    names = np.array([split_name(str(name)) for name in column], dtype=object)
    note = ""
    if (names == "").all() and fine_tuned:
        note = (
            "The input names no split, and the model was fine-tuned: if it was trained on these patients, this is no "
            "agreement on new ones (add the column split)."
        )
    if (names == "").any():
        unknown = sorted({str(name) for name, known in zip(column, names, strict=True) if not known and name})
        if unknown:
            note = f"The split column has {', '.join(map(repr, unknown[:3]))}: these rows count as test rows."
        elif (names != "").any():
            note = "Rows without a split count as test rows."
        names[names == ""] = "test"
    assert set(names) <= set(SPLITS)
    return names, note


def _with_baseline(rows: Predictions) -> Predictions:
    """What the training rows alone would predict, where there are some."""
    trained = rows.of_split("train")
    if not len(trained):
        return rows
    if rows.target.outputs == 1:
        baseline: Floats = np.full(len(rows), trained.truth.mean())
    else:
        counts = np.bincount(trained.truth.astype(np.int64), minlength=rows.target.outputs)
        baseline = np.tile(counts / counts.sum(), (len(rows), 1))
    return replace(rows, baseline=baseline)


def _decided(rows: Predictions, threshold: float | None, rule: ThresholdRule) -> Predictions:
    """With the threshold that the model brings, or that its rule chooses on validation rows."""
    if rows.target.kind != "binary":
        return rows
    chosen = threshold if threshold is not None else choose_threshold(rows.of_split("val"), rule)
    return replace(rows, threshold=np.full(len(rows), chosen))


def primary_line(one: Agreement) -> str:
    """The primary metric of every split, for the terminal."""
    from panecho_embed.evaluation.report import short_scores

    parts = [short_scores(part, split_words(split)) for split, part in one.scored.items()]
    return f"{one.task.name}: {'; '.join(parts)}"
