"""Predictions as tables: a row a video and target, a row a study and target."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.finetune.evaluate import Predicted, split_outputs
from panecho_embed.finetune.folds import Fold
from panecho_embed.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]

_IDS = ("video_id", "study_id", "patient_id", "view")


def video_table(fold: Fold, predicted: Predicted, split: str) -> pd.DataFrame:
    """One row a video and target: ids, split, fold, truth, prediction, and probabilities where there are classes.

    Values are as labelled: in the label's unit, with its sign. The columns are those that docs/finetuning.md names.
    """
    import pandas as pd

    videos = [fold.dataset.videos[i] for i in predicted.index]
    truth = fold.targets.values[predicted.index]
    ids: dict[str, Any] = {name: [getattr(video, name) for video in videos] for name in _IDS}
    ids |= {"split": split, "fold": "" if fold.number is None else str(fold.number)}
    parts = split_outputs(fold.targets.tasks, predicted.values)
    frames = []
    for i, (task, values) in enumerate(zip(fold.targets.tasks, parts, strict=True)):
        columns = _columns(task, truth[:, i], values, fold.targets.signs[i])
        frames.append(pd.DataFrame({**ids, "target": task.name, **columns}, index=range(len(videos)), dtype=object))
    return pd.concat(frames, ignore_index=True)


def study_table(videos: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """The videos of a study averaged: one row a study and target."""
    import pandas as pd

    frames = []
    for task in tasks:
        rows = videos[videos["target"] == task.name]
        grouped = rows.groupby(["split", "study_id"], sort=False)
        first = grouped.first().reset_index()
        columns: dict[str, Any] = {}
        if task.type == "regression":
            columns["truth"] = grouped["truth"].agg(_mean).to_numpy(dtype=object)
            columns["prediction"] = grouped["prediction"].agg(_mean).to_numpy(dtype=object)
        else:
            columns["truth"] = grouped["truth"].agg(_common).to_numpy(dtype=object)
            names = _probability_columns(task)
            shares = np.column_stack([grouped[name].agg(_mean).to_numpy(dtype=np.float64) for name in names])
            columns["prediction"] = _called(task, shares)
            columns |= {name: shares[:, i].astype(object) for i, name in enumerate(names)}
        ids = {name: first[name] for name in ("study_id", "patient_id", "split", "fold", "target")}
        frames.append(pd.DataFrame({**ids, **columns}, dtype=object))
    return pd.concat(frames, ignore_index=True)


def read_table(path: Path, tasks: Sequence[Task]) -> pd.DataFrame:
    """What `write_table` wrote: numbers as numbers, class names as they are, "" where missing. Raises OSError."""
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape").astype(object)
    regressions = table["target"].isin([task.name for task in tasks if task.type == "regression"])
    for name in table.columns:
        if name.startswith("probability_"):
            table[name] = [_number(text) for text in table[name]]
        elif name in ("truth", "prediction"):
            table[name] = [
                _number(text) if is_number else text for text, is_number in zip(table[name], regressions, strict=True)
            ]
    return table


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table at once or not at all, "" where missing. Raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # Probabilities of the classes that other targets have.
    table.fillna("").to_csv(part, index=False, lineterminator="\n", errors="surrogateescape")
    part.replace(path)


def arrays_of(rows: pd.DataFrame, task: Task) -> tuple[Floats, Floats]:
    """Truth and prediction of labelled rows of one task, as `task_metrics` takes them.

    Truth: (n,) value or class index; prediction: (n,) value or probability of class 1, multiclass (n, C). Classes of a
    binary task are turned round where the positive one has index 0.
    """
    if task.type == "regression":
        return rows["truth"].to_numpy(dtype=np.float64), rows["prediction"].to_numpy(dtype=np.float64)
    index = {label: float(i) for i, label in enumerate(task.classes)}
    truth = np.array([index[label] for label in rows["truth"]])
    shares = rows[_probability_columns(task)].to_numpy(dtype=np.float64)
    if task.type == "multiclass":
        return truth, shares
    return (1 - truth, shares[:, 0]) if task.positive_class_index == 0 else (truth, shares[:, 1])


def trivial(rows: pd.DataFrame, task: Task, baselines: Mapping[str, Mapping[str, Any]]) -> Floats:
    """What the baseline predicts for the same rows: their fold's training mean, or its class frequencies.

    baselines: the fold's name in the table -> target -> mean or frequencies.
    """
    given = np.array([baselines[fold][task.name] for fold in rows["fold"]], dtype=np.float64)
    if task.type != "binary":
        return given
    return given[:, 0 if task.positive_class_index == 0 else 1]


def _columns(task: Task, truth: Floats, values: Floats, sign: float) -> dict[str, Any]:
    if task.type == "regression":
        return {"truth": _or_empty(sign * truth), "prediction": sign * values[:, 0]}
    shares = np.column_stack([1 - values[:, 0], values[:, 0]]) if task.type == "binary" else values
    names = _probability_columns(task)
    labels = [task.classes[int(value)] if np.isfinite(value) else "" for value in truth]
    return {"truth": labels, "prediction": _called(task, shares)} | {name: shares[:, i] for i, name in enumerate(names)}


def _probability_columns(task: Task) -> list[str]:
    return [f"probability_{i}" for i in range(len(task.classes))]


def _called(task: Task, shares: Floats) -> list[str]:
    """The most probable class; of a binary task with even odds the one of index 1."""
    called = (shares[:, 1] >= shares[:, 0]).astype(int) if task.type == "binary" else shares.argmax(axis=1)
    return [task.classes[i] for i in called]


def _or_empty(values: Floats) -> list[float | str]:
    return [float(value) if np.isfinite(value) else "" for value in values]


def _mean(values: pd.Series[Any]) -> float | str:
    there = [float(value) for value in values if value != ""]
    return float(np.mean(there)) if there else ""


def _common(values: pd.Series[Any]) -> str:
    there = {value for value in values if value != ""}
    return there.pop() if len(there) == 1 else ""


def _number(text: str) -> float | str:
    return float(text) if text else ""
