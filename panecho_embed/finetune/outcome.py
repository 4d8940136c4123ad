"""What a finished run left, read back from its folder: who was tested, what was predicted, how training went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import StoreError
from panecho_embed.finetune.recipe import EvaluationLevel, Recipe
from panecho_embed.finetune.recipe_files import parse_recipe
from panecho_embed.metrics import Metrics, task_metrics
from panecho_embed.tasks import Task, read_tasks

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]

_FILES: Mapping[EvaluationLevel, str] = {"video": "predictions.csv", "study": "predictions_studies.csv"}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished run. info: of run.json. tasks: of its heads.

    histories, baselines: for each fold of a cross-validation, a table of epochs, and target -> training mean or
    training frequency of every class. Without folds there is one of each, under None.
    """

    folder: Path
    recipe: Recipe
    info: Mapping[str, Any]
    tasks: tuple[Task, ...]
    histories: Mapping[int | None, pd.DataFrame]
    baselines: Mapping[int | None, Mapping[str, Any]]

    @property
    def level(self) -> EvaluationLevel:
        """What a row of the metrics is: a video or a study."""
        return self.recipe.evaluation.level


@dataclass(frozen=True, slots=True, eq=False)
class TargetRows:
    """The labelled test rows of one task, N videos or studies.

    classes: of a binary task the clinically positive one last; () for regression. ids: (N,) of videos or studies,
    ascending.
    patients: (N,) ids. fold: (N,) of the cross-validation, -1 without one. truth: (N,) value or index in `classes`.
    prediction: (N,) value or probability of the positive class; multiclass (N, K).
    """

    task: Task
    classes: tuple[str, ...]
    ids: npt.NDArray[np.object_]
    patients: npt.NDArray[np.object_]
    fold: npt.NDArray[np.int64]
    truth: Floats
    prediction: Floats

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> TargetRows:
        """Some of the rows, in the given order."""
        columns = {name: getattr(self, name)[rows] for name in ("ids", "patients", "fold", "truth", "prediction")}
        return replace(self, **columns)

    def metrics(self) -> Metrics:
        """The task's metrics, to be bootstrapped."""
        return task_metrics(self.task.type, self.truth, self.prediction, self.patients.astype(str), self.classes)


def read_outcome(folder: str | Path) -> Outcome:
    """A run by its folder. Raises StoreError if a file is missing or damaged, or the run is not done."""
    import pandas as pd

    path = Path(folder)
    try:
        info = _read_json(path / "run.json")
        if info["status"] != "done":
            raise StoreError(f"{path}: the run is not done but {info['status']}; the same `finetune` command goes on")
        folds = info.get("folds") or []
        places = {int(fold): path / f"fold-{fold}" for fold in folds} if folds else {None: path}
        recipe = parse_recipe((path / "recipe.toml").read_text(encoding="utf-8"), str(path / "recipe.toml"))
        tasks = read_tasks(next(iter(places.values())) / "tasks.csv")
        histories = {fold: pd.read_csv(place / "history.csv") for fold, place in places.items()}
        baselines = {fold: _read_json(place / "run.json")["baseline"] for fold, place in places.items()}
    except (OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    return Outcome(path, recipe, info, tasks, histories, baselines)


def read_targets(outcome: Outcome, level: EvaluationLevel | None = None) -> dict[str, TargetRows]:
    """The labelled test rows of every task, by its name; a task without one is left out.

    level: "video" or "study"; that of the run's metrics by default. Raises StoreError.
    """
    import pandas as pd

    level = level or outcome.level
    path = outcome.folder / _FILES[level]
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = rows[(rows["split"] == "test") & (rows["truth"] != "")]
        return {
            task.name: _target_rows(task, rows[rows["target"] == task.name], f"{level}_id")
            for task in outcome.tasks
            if (rows["target"] == task.name).any()
        }
    except (OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error


def baseline_rows(outcome: Outcome, rows: TargetRows) -> TargetRows:
    """The same rows as the training mean, or the training frequencies, of their fold would have them."""
    given = {-1 if fold is None else fold: baseline[rows.task.name] for fold, baseline in outcome.baselines.items()}
    trivial = np.array([given[fold] for fold in rows.fold.tolist()], dtype=np.float64)
    if rows.task.type == "binary":
        trivial = trivial[:, rows.task.positive_class_index or 0]
    return replace(rows, prediction=trivial)


def _read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _unreadable(path: Path, error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return StoreError(f"{path}: no whole run of `panecho-embed finetune` ({reason})")


def _target_rows(task: Task, rows: pd.DataFrame, id_column: str) -> TargetRows:
    order = np.argsort(rows[id_column].to_numpy(dtype=str), kind="stable")
    rows = rows.iloc[order]
    classes, truth, prediction = task.classes, rows["truth"], rows["prediction"]
    if task.type == "regression":
        values, predicted = truth.to_numpy(dtype=np.float64), prediction.to_numpy(dtype=np.float64)
    else:
        probabilities = rows[[f"probability_{i}" for i in range(len(classes))]].to_numpy(dtype=np.float64)
        if task.type == "binary" and task.positive_class_index == 0:
            classes, probabilities = classes[::-1], probabilities[:, ::-1]
        values = np.array([classes.index(name) for name in truth], dtype=np.float64)
        predicted = probabilities[:, 1] if task.type == "binary" else probabilities
    return TargetRows(
        task,
        classes,
        ids=rows[id_column].to_numpy(dtype=object),
        patients=rows["patient_id"].to_numpy(dtype=object),
        fold=np.array([int(fold) if fold else -1 for fold in rows["fold"]], dtype=np.int64),
        truth=values,
        prediction=predicted,
    )
