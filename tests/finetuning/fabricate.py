"""Run folders as `finetune` leaves them, made up in milliseconds: docs/finetuning.md says what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from panecho_embed.core.feeding import Feeding
from panecho_embed.core.tasks import Task, write_tasks
from panecho_embed.evaluation.predictions import FILE, Predictions, write_predictions
from panecho_embed.evaluation.targets import Target
from panecho_embed.finetuning.folder import SCHEMA_VERSION, write_info
from panecho_embed.finetuning.outcome import Outcome
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.recipe_files import load_recipe, to_toml
from panecho_embed.finetuning.report import write_metrics_of

EF = Task("EF", "regression", 1, (), None, "%", 55.0, "ejection fraction")
LOW = Task("LowEF", "binary", 1, ("no", "yes"), 1, "", float("nan"), "EF below 50")
GRADE = Task("Grade", "multiclass", 3, ("low", "mid", "high"), None, "", float("nan"), "thirds of EF")

STUDIES = 40


def small_recipe(*targets: str, level: str = "video", draws: int = 200) -> Recipe:
    """echonet-dynamic with few bootstraps."""
    recipe = load_recipe(
        "echonet-dynamic", [f"data.targets={','.join(targets or ('EF',))}", f"evaluation.level={level}"]
    )
    return replace(recipe, evaluation=replace(recipe.evaluation, draws=draws))


def fabricate(
    folder: Path,
    recipe: Recipe,
    *,
    init: str = "panecho",
    noise: float = 4.0,
    tasks: Sequence[Task] = (EF,),
    videos: int = 1,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """A finished run. noise: SD of its errors in EF. videos: of each study; every patient has two studies."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([recipe.seed, round(noise * 100), round(recipe.data.fraction * 1000)])
    (folder / "recipe.toml").write_text(to_toml(recipe))
    write_tasks(tasks, folder / "tasks.csv")
    rows = predictions(tasks, videos, noise, rng, str(recipe.seed))
    write_predictions(rows, folder / FILE)
    epochs = history(tasks)
    epochs.to_csv(folder / "history.csv", index=False)
    facts = run_info(init, recipe, tasks) | dict(info or {})
    write_info(facts, folder)
    outcome = Outcome(folder, recipe, facts, tuple(tasks), tuple(rows), {"": epochs})
    write_metrics_of(outcome, outcome.scored(), folder)
    return folder


def predictions(
    tasks: Sequence[Task], videos: int, noise: float, rng: np.random.Generator, run: str
) -> list[Predictions]:
    """Per video, then per study; the truth is the same in every run."""
    truth = np.repeat(np.random.default_rng(0).normal(55, 12, STUDIES), videos)
    study = np.repeat(np.arange(STUDIES), videos)
    predicted = truth + rng.normal(0, noise, len(truth))
    rows = [_rows(task, truth, predicted, study, videos, run) for task in tasks]
    return [*rows, *(one.by_study() for one in rows)]


def target_of(task: Task) -> Target:
    """What a task of these tests is to learn."""
    return Target(task.name, task.type, task.classes, task.unit)


def _rows(task: Task, ef: np.ndarray, predicted: np.ndarray, study: np.ndarray, videos: int, run: str) -> Predictions:
    truth, values = ef, predicted
    if task.type == "binary":
        truth, values = (ef < 50).astype(float), 1 / (1 + np.exp((predicted - 50) / 4))
    elif task.type == "multiclass":
        near = np.exp(-np.abs(predicted[:, None] - [45.0, 55.0, 65.0]) / 5)
        truth, values = np.digitize(ef, [50, 60]).astype(float), near / near.sum(axis=1, keepdims=True)
    target = target_of(task)
    trivial = task.training_mean if task.type == "regression" else 1 / len(task.classes)
    video = [f"v{number:03d}-{i % videos}" for i, number in enumerate(study)]
    return Predictions(
        target,
        "video",
        {"video_id": _texts(video), "study_id": _texts(f"s{number:03d}" for number in study)},
        patient=_texts(f"p{number // 2:03d}" for number in study),
        split=np.where(study % 10 == 9, "val", "test").astype(object),
        truth=truth,
        prediction=values,
        run=np.full(len(study), run, dtype=object),
        threshold=np.full(len(study), 0.5 if task.type == "binary" else np.nan),
        baseline=np.full(target.shape(len(study)), trivial),
    )


def _texts(values: Any) -> np.ndarray:
    return np.array(list(values), dtype=object)


def history(tasks: Sequence[Task], epochs: int = 6) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    table = {"epoch": epoch, "lr": 1e-4, "train_loss": 9 / epoch, "val_loss": 10 / epoch + 0.3 * (epoch > 4)}
    table |= {"val_score": 1 - 1 / epoch, "best": (epoch <= 4).astype(int), "seconds": 2.0}
    for task in tasks:
        table[f"val_loss:{task.name}"] = 8 / epoch
        table[f"val_{'r2' if task.type == 'regression' else 'auroc'}:{task.name}"] = 1 - 0.9 / epoch
    return pd.DataFrame(table)


def run_info(init: str, recipe: Recipe, tasks: Sequence[Task]) -> dict[str, Any]:
    pretrained = init != "random"
    source = f"{init}.pt" if pretrained else f"random (seed {recipe.seed})"
    return {
        "schema_version": SCHEMA_VERSION,
        "version": "0",
        "created_utc": "2026-01-01T00:00:00+00:00",
        "finished_utc": "2026-01-01T01:00:00+00:00",
        "command": f"panecho-embed finetune echonet-dynamic --init {init} --data /data -o run",
        "versions": {"torch": "2"},
        "status": "done",
        "init": init,
        "weights": {"source": source, "sha256": "ab" * 32, "licence": "MIT", "pretrained": pretrained},
        "feeding": Feeding().record(),
        "overrides": ["frame_step 2 (panecho's own: 1)"] if init == "panecho" else [],
        "plane_order": "published",
        "data": {"path": "/data", "digest": "cd" * 32},
        "fold": None,
        "device": "cpu",
        "processes": 1,
        "precision": "fp32",
        "counts": {"train": 100, "val": 4, "test": 36, "train_patients": round(100 * recipe.data.fraction)}
        | {"val_patients": 4, "test_patients": 18, "failed": 0, "shared_patients": 0},
        "best_epoch": 4,
        "epochs": 6,
        "seconds": 12.0,
    }


def change_info(folder: Path, **changes: Any) -> None:
    """Another run.json, as the run would have written it before it was finished."""
    info = json.loads((folder / "run.json").read_text())
    del info["sha256"]
    write_info(info | changes, folder)
    (folder / "SHA256SUMS").unlink(missing_ok=True)
