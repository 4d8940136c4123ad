"""From a model's outputs to predictions, and what a finished run left, read back from its folder."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panecho_embed.core.arraytypes import Texts
from panecho_embed.core.digests import read_checked
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.tasks import Task, read_tasks
from panecho_embed.evaluation.metrics import point_values
from panecho_embed.evaluation.predictions import FILE, Predictions, concatenated, read_predictions, trivial_prediction
from panecho_embed.evaluation.scores import Scored, check_tested, score
from panecho_embed.evaluation.thresholds import ThresholdRule, with_threshold
from panecho_embed.finetuning.data import Fold
from panecho_embed.finetuning.evaluate import Predicted
from panecho_embed.finetuning.folder import RunFolder, check_release
from panecho_embed.finetuning.recipe import EvaluationLevel, Recipe
from panecho_embed.finetuning.recipe_files import parse_recipe

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished run.

    info: of run.json. tasks: of its heads. predictions: of every target, per video and per study, validation and test
    rows. histories: a table of epochs for each fold of a cross-validation; without folds there is one, under "".
    """

    folder: Path
    recipe: Recipe
    info: Mapping[str, Any]
    tasks: tuple[Task, ...]
    predictions: tuple[Predictions, ...]
    histories: Mapping[str, pd.DataFrame]

    @property
    def level(self) -> EvaluationLevel:
        """What a row of the metrics stands for: "video" or "study"."""
        return self.recipe.evaluation.level

    @property
    def seconds(self) -> float:
        """Time that its epochs took, over all folds."""
        return sum(float(table["seconds"].sum()) for table in self.histories.values())

    def at(self, level: EvaluationLevel) -> dict[str, Predictions]:
        """Predictions of one level by target."""
        return {one.target.name: one for one in self.predictions if one.level == level}

    def scored(self) -> list[Scored]:
        """Every target that has labelled test rows, scored at the run's level."""
        evaluation = self.recipe.evaluation
        return [
            score(one, draws=evaluation.draws, seed=self.recipe.seed)
            for one in self.at(self.level).values()
            if can_be_scored(one)
        ]

    def not_scored(self) -> dict[str, str]:
        """Target -> why it has no scores."""
        why = "its test rows have no label, or all the same class"
        return {name: why for name, one in self.at(self.level).items() if not can_be_scored(one)}


def predictions_of(fold: Fold, predicted: Mapping[str, Predicted], recipe: Recipe) -> list[Predictions]:
    """The predictions of one model: of every target per video, then per study.

    predicted: of "val" and "test". The threshold of a yes-or-no target is chosen on the validation rows of each level.
    """
    rule = ThresholdRule.parse(recipe.evaluation.threshold)
    per_video = [with_threshold(one, rule) for one in _videos(fold, predicted, recipe.seed)]
    return [*per_video, *(with_threshold(one.by_study(), rule) for one in per_video)]


def epoch_scores(fold: Fold, predicted: Predicted, level: EvaluationLevel) -> tuple[float, dict[str, float]]:
    """What an epoch is worth by its predictions of validation videos, as videos or averaged over studies.

    Returns (mean of (mean AUROC over class targets, mean R2 over regressions), and each of them by its history column).
    """
    columns: dict[str, float] = {}
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for one in _videos(fold, {"val": predicted}, 0):
        rows = (one if level == "video" else one.by_study()).of_split("val")
        regression = rows.target.kind == "regression"
        name = "r2" if regression else "auroc"
        value = point_values(rows.metrics())[name] if len(rows) else float("nan")
        columns[f"val_{name}:{rows.target.name}"] = value
        if np.isfinite(value):
            kinds[regression].append(value)
    means = [float(np.mean(group)) for group in kinds.values() if group]
    return (float(np.mean(means)) if means else float("nan")), columns


def of_all_folds(folds: Sequence[Sequence[Predictions]]) -> list[Predictions]:
    """The test rows of all folds together, the videos of a study averaged over the folds too."""
    videos = [
        concatenated([_of(fold, name, "video").of_split("test") for fold in folds])
        for name in dict.fromkeys(one.target.name for one in folds[0])
    ]
    studies = []
    for one in videos:
        study = one.by_study()
        cut = {fold[0].fold[0]: _of(fold, one.target.name, "study").threshold[0] for fold in folds}
        studies.append(replace(study, threshold=np.array([cut[name] for name in study.fold], dtype=np.float64)))
    return [*videos, *studies]


def can_be_scored(one: Predictions) -> bool:
    """Whether there are labelled test rows, of two classes where there are classes."""
    try:
        check_tested(one.of_split("test"))
    except ArgumentError:
        return False
    return True


def read_outcome(folder: str | Path) -> Outcome:
    """A run by its folder. Raises StoreError if a file is missing or damaged, or the run is not done."""
    import pandas as pd

    path = Path(folder)
    try:
        info = RunFolder(path).info()
        if not info:
            raise StoreError(f"{path}: no run of `panecho-embed finetune`: run.json is missing")
        if info["status"] != "done":
            raise StoreError(
                f"{path}: the run is not done but {info['status']}; the same `finetune` command resumes it"
            )
        check_release(info, path)
        folds = info.get("folds") or []
        places = {str(fold): path / f"fold-{fold}" for fold in folds} if folds else {"": path}
        recipe = parse_recipe(read_checked(path / "recipe.toml").decode("utf-8"), str(path / "recipe.toml"))
        table = next(iter(places.values())) / "tasks.csv"
        read_checked(table)
        tasks = read_tasks(table)
        histories = {
            fold: pd.read_csv(io.BytesIO(read_checked(place / "history.csv"))) for fold, place in places.items()
        }
        predictions = read_predictions(path / FILE)
    except (OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    return Outcome(path, recipe, info, tasks, tuple(predictions), histories)


def _videos(fold: Fold, predicted: Mapping[str, Predicted], seed: int) -> list[Predictions]:
    targets = fold.targets
    index = np.concatenate([one.index for one in predicted.values()])
    stops = np.cumsum([task.num_outputs for task in targets.tasks])[:-1]
    values = np.split(np.concatenate([one.values for one in predicted.values()]), stops, axis=1)
    videos = [fold.dataset.videos[i] for i in index]

    def column(name: str) -> Texts:
        return np.array([getattr(video, name) for video in videos], dtype=object)

    split = np.array([name for name, one in predicted.items() for _ in one.index], dtype=object)
    number = "" if fold.number is None else str(fold.number)
    found = []
    for target, truth, sign, part, trained in zip(
        targets.targets, targets.truth[index].T, targets.signs, values, targets.truth[fold.train].T, strict=True
    ):
        found.append(
            Predictions(
                target=target,
                level="video",
                ids={"video_id": column("video_id"), "study_id": column("study_id")},
                patient=column("patient_id"),
                split=split,
                truth=truth,
                prediction=sign * part.reshape(target.shape(len(index))),
                fold=np.full(len(index), number, dtype=object),
                run=np.full(len(index), str(seed), dtype=object),
                baseline=trivial_prediction(target, trained, len(index)),
            )
        )
    return found


def _of(fold: Sequence[Predictions], name: str, level: str) -> Predictions:
    return next(one for one in fold if (one.target.name, one.level) == (name, level))


def _unreadable(path: Path, error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return StoreError(f"{path}: no whole run of `panecho-embed finetune` ({reason})")
