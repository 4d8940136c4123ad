"""Predictions against labels of the same name: metrics with intervals over patients, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.intervals import DEFAULT_DRAWS, scores
from panecho_embed.evaluation.metrics import Metrics, binary_metrics, multiclass_metrics, regression_metrics
from panecho_embed.prediction.averages import Predictions
from panecho_embed.prediction.files import number, write_whole
from panecho_embed.records import EmbeddingTable, Score
from panecho_embed.tasks import Task

Floats = npt.NDArray[np.float64]

INTERVALS = f"95 % percentile intervals of {DEFAULT_DRAWS:,} bootstraps over patients"

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a task's predictions agree with the labels of its name; per study.

    scores: by metric, {} where `problem` says why there are none. note: what was taken for granted of the labels.
    """

    task: Task
    scores: Mapping[str, Score]
    note: str = ""
    problem: str = ""


def agreements(predictions: Predictions) -> list[Agreement]:
    """One for each task that has a label column of exactly its name, in the order of the tasks.

    Labels and predictions are those of the studies. Classes are told by their names, case aside, or by one part of a
    name that stands for several ("Mild" for "Mild|Moderate"); never by a number that is no class's name, which could as
    well be an index of another order. Labels of a task that is reported with its sign flipped (GLS) may have either
    sign.
    """
    tasks = dict.fromkeys(output.task for output in predictions.outputs)
    return [_agreement(predictions, task) for task in tasks if task.name in predictions.studies.labels]


def _agreement(predictions: Predictions, task: Task) -> Agreement:
    studies = predictions.studies
    columns = [i for i, output in enumerate(predictions.outputs) if output.task == task]
    note = ""
    try:
        truth = _truth(studies.labels[task.name], task)
        if task.sign < 0 and len(known := truth[~np.isnan(truth)]) and (known > 0).all():
            truth, note = -truth, "the labels are all above 0; they were compared with their sign flipped"
        made = _metrics(studies, truth, studies.values[:, columns].astype(np.float64), task)
    except ArgumentError as error:
        return Agreement(task, {}, problem=str(error))
    return Agreement(task, scores(made), note)


def _metrics(studies: EmbeddingTable, truth: Floats, values: Floats, task: Task) -> Metrics:
    there = ~np.isnan(truth)
    truth, values, patients = truth[there], values[there], studies.patient_id[there].astype(str)
    different = len(np.unique(truth))
    if different < 2:
        raise ArgumentError(f"its labels have {'one value' if different else 'no value'}; nothing can be told apart")
    if task.type == "regression":
        return regression_metrics(truth, values[:, 0], patients)
    if task.type == "binary":
        return binary_metrics(truth == task.positive_class_index, values[:, 0], patients)
    return multiclass_metrics(truth, values, patients, task.classes)


def _truth(labels: npt.NDArray[Any], task: Task) -> Floats:
    """Numbers for a regression, class indices for the others; NaN where missing."""
    numeric = labels.dtype.kind == "f"
    if task.type == "regression":
        if not numeric:
            raise ArgumentError(f"its labels are text ({_some(labels)}); numbers were expected")
        return labels.astype(np.float64)
    names = _class_names(task)
    text = [("" if np.isnan(v) else f"{v:g}") if numeric else str(v) for v in labels]
    strangers = [label for label in dict.fromkeys(text) if label and _key(label) not in names]
    if strangers:
        raise ArgumentError(
            f"its labels {_some(strangers)} are no classes of the task; the classes are {', '.join(task.classes)}"
        )
    return np.array([names[_key(label)] if label else np.nan for label in text], dtype=np.float64)


def _class_names(task: Task) -> dict[str, int]:
    """Every way to write a class -> its index. Parts of a name count where no other class has them."""
    whole = {_key(name): i for i, name in enumerate(task.classes)}
    parts: dict[str, int] = {}
    for i, name in enumerate(task.classes):
        for part in map(_key, name.split("|")):
            parts[part] = -1 if parts.get(part, i) != i else i
    return {part: i for part, i in parts.items() if i >= 0} | whole


def _key(label: str) -> str:
    """Case and the decimals of a whole number do not matter: "1.0" is "1"."""
    text = label.strip().casefold()
    return text.removesuffix(".0")


def _some(values: Any) -> str:
    shown = [repr(str(value)) for value in dict.fromkeys(values) if str(value)]
    return ", ".join(shown[:_LISTED]) + (" ..." if len(shown) > _LISTED else "")


def write_agreements(found: Sequence[Agreement], about: Mapping[str, Any], path: Path) -> Path:
    """Write metrics.json; an interval that there is not is null. Raises StoreError."""
    tasks = [
        {
            "task": one.task.name,
            "level": "study",
            "note": one.note or None,
            "problem": one.problem or None,
            "metrics": [
                {
                    "metric": score.metric,
                    "value": number(score.value),
                    "low": number(score.low),
                    "high": number(score.high),
                    "n": score.n,
                    "n_patients": score.n_patients,
                }
                for score in one.scores.values()
            ],
        }
        for one in found
    ]
    content = {**about, "format": "panecho-embed metrics", "intervals": INTERVALS, "agreement": tasks}
    return write_whole(path, lambda file: json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False))
