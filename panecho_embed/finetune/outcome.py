"""What a finished run left, read back from its folder: who was tested, what was predicted, how training went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import StoreError
from panecho_embed.evaluation.metrics import Metrics, task_metrics
from panecho_embed.finetune.folder import check_release
from panecho_embed.finetune.recipe import EvaluationLevel, Recipe
from panecho_embed.finetune.recipe_files import parse_recipe
from panecho_embed.finetune.tables import arrays_of, read_table, trivial
from panecho_embed.tasks import Task, read_tasks

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]

_FILES: Mapping[EvaluationLevel, str] = {"video": "predictions.csv", "study": "predictions_studies.csv"}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished run. info: of run.json. tasks: of its heads.

    histories, baselines: for each fold of a cross-validation, a table of epochs, and target -> training mean or
    training frequency of every class. Without folds there is one of each, under "".
    """

    folder: Path
    recipe: Recipe
    info: Mapping[str, Any]
    tasks: tuple[Task, ...]
    histories: Mapping[str, pd.DataFrame]
    baselines: Mapping[str, Mapping[str, Any]]

    @property
    def level(self) -> EvaluationLevel:
        """What a row of the metrics is: a video or a study."""
        return self.recipe.evaluation.level


@dataclass(frozen=True, slots=True, eq=False)
class TargetRows:
    """The labelled test rows of one task, N videos or studies.

    classes: of a binary task the clinically positive one last; () for regression. ids: (N,) of videos or studies,
    ascending. patients: (N,) ids. fold: (N,) name of the cross-validation's, "" without one. truth: (N,) value or index
    in `classes`. prediction: (N,) value or probability of the positive class; multiclass (N, K).
    """

    task: Task
    classes: tuple[str, ...]
    ids: npt.NDArray[np.object_]
    patients: npt.NDArray[np.object_]
    fold: npt.NDArray[np.object_]
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
        places = {str(fold): path / f"fold-{fold}" for fold in folds} if folds else {"": path}
        recipe = parse_recipe((path / "recipe.toml").read_text(encoding="utf-8"), str(path / "recipe.toml"))
        tasks = read_tasks(next(iter(places.values())) / "tasks.csv")
        histories = {fold: pd.read_csv(place / "history.csv") for fold, place in places.items()}
        baselines = {fold: _read_json(place / "run.json")["baseline"] for fold, place in places.items()}
    except (OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    check_release(info, path)
    return Outcome(path, recipe, info, tasks, histories, baselines)


def read_targets(outcome: Outcome, level: EvaluationLevel | None = None) -> dict[str, TargetRows]:
    """The labelled test rows of every task, by its name; a task without one is left out.

    level: "video" or "study"; that of the run's metrics by default. Raises StoreError.
    """
    level = level or outcome.level
    path = outcome.folder / _FILES[level]
    try:
        return tested_rows(read_table(path, outcome.tasks), outcome.tasks, level)
    except (OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error


def tested_rows(table: pd.DataFrame, tasks: Sequence[Task], level: EvaluationLevel) -> dict[str, TargetRows]:
    """The labelled test rows of every task that has some, by its name, of a table of predictions."""
    tested = table[(table["split"] == "test") & (table["truth"] != "")]
    of_task = {task: tested[tested["target"] == task.name] for task in tasks}
    return {task.name: rows_of(rows, task, f"{level}_id") for task, rows in of_task.items() if len(rows)}


def baseline_rows(outcome: Outcome, rows: TargetRows) -> TargetRows:
    """The same rows as the training mean, or the training frequencies, of their fold would have them."""
    import pandas as pd

    folds = pd.DataFrame({"fold": rows.fold})
    return replace(rows, prediction=trivial(folds, rows.task, outcome.baselines))


def _read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _unreadable(path: Path, error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return StoreError(f"{path}: no whole run of `panecho-embed finetune` ({reason})")


def rows_of(table: pd.DataFrame, task: Task, id_column: str) -> TargetRows:
    """The rows of one task in a table of predictions, all of them labelled, by ascending id."""
    ids = table[id_column].to_numpy(dtype=str)
    mine = table.iloc[np.argsort(ids, kind="stable")]
    truth, prediction = arrays_of(mine, task)
    return TargetRows(
        task,
        task.classes[::-1] if task.positive_class_index == 0 else task.classes,
        ids=mine[id_column].to_numpy(dtype=object),
        patients=mine["patient_id"].to_numpy(dtype=object),
        fold=mine["fold"].to_numpy(dtype=object),
        truth=truth,
        prediction=prediction,
    )
