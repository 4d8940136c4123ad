"""metrics.json: what the test patients say, with intervals, beside the trivial baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panecho_embed.evaluation.intervals import scores
from panecho_embed.evaluation.metrics import task_metrics
from panecho_embed.finetune.folds import Fold
from panecho_embed.finetune.history import write_text
from panecho_embed.finetune.recipe import Recipe
from panecho_embed.finetune.tables import arrays_of, trivial
from panecho_embed.finetune.targets import class_frequencies
from panecho_embed.jsonable import without_nan
from panecho_embed.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


def metrics_document(
    rows: pd.DataFrame, tasks: Sequence[Task], baselines: Mapping[str, Mapping[str, Any]], recipe: Recipe
) -> dict[str, Any]:
    """The content of metrics.json, from predictions of videos or studies; only labelled test rows count.

    baselines: name of the fold ("" without folds) -> target -> what `baseline_of` gives.
    """
    draws, seed = recipe.evaluation.draws, recipe.seed
    targets = {}
    for task in tasks:
        mine = rows[(rows["target"] == task.name) & (rows["split"] == "test") & (rows["truth"] != "")]
        if not len(mine):
            continue
        truth, prediction = arrays_of(mine, task)
        patients = mine["patient_id"].to_numpy(dtype=str)
        classes = task.classes
        both = [
            scores(task_metrics(task.type, truth, given, patients, classes), draws=draws, seed=seed)
            for given in (prediction, trivial(mine, task, baselines))
        ]
        targets[task.name] = {
            "task": task.type,
            "classes": list(classes),
            "unit": task.unit,
            "n": len(mine),
            "n_patients": len(np.unique(patients)),
            "metrics": {name: asdict(score) for name, score in both[0].items()},
            "baseline": {name: asdict(score) for name, score in both[1].items()},
        }
    level = recipe.evaluation.level
    return {"schema_version": SCHEMA_VERSION, "level": level, "draws": draws, "seed": seed, "targets": targets}


def baseline_of(fold: Fold) -> dict[str, float | list[float]]:
    """What predicts without looking: the training mean, as labelled, or the training frequency of every class."""
    found: dict[str, float | list[float]] = {}
    training = fold.targets.values[fold.train]
    for task, column, sign in zip(fold.targets.tasks, training.T, fold.targets.signs, strict=True):
        mean = float(sign * np.nanmean(column))
        found[task.name] = mean if task.type == "regression" else class_frequencies(task, column)
    return found


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON at once or not at all; numbers that are not finite are null. Raises OSError."""
    write_text(path, json.dumps(without_nan(document), indent=2, allow_nan=False) + "\n")
