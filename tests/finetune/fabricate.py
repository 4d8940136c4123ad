"""Run folders as `finetune` leaves them, made up in milliseconds: docs/finetuning.md says what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from panecho_embed.evaluation.intervals import scores
from panecho_embed.evaluation.metrics import task_metrics
from panecho_embed.finetune.recipe import Recipe
from panecho_embed.finetune.recipe_files import load_recipe, to_toml
from panecho_embed.provenance import Preprocess
from panecho_embed.tasks import Task, write_tasks

EF = Task("EF", "regression", 1, (), None, "%", 55.0, "ejection fraction")
LOW = Task("LowEF", "binary", 1, ("yes", "no"), 0, "", float("nan"), "EF below 50")
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
    rows = predictions(tasks, videos, noise, rng)
    rows.to_csv(folder / "predictions.csv", index=False)
    by_study = per_study(rows)
    by_study.to_csv(folder / "predictions_studies.csv", index=False)
    used = by_study if recipe.evaluation.level == "study" else rows
    (folder / "metrics.json").write_text(json.dumps(metrics(tasks, used, recipe)))
    history(tasks).to_csv(folder / "history.csv", index=False)
    (folder / "run.json").write_text(json.dumps(run_info(init, recipe, tasks) | dict(info or {})))
    return folder


def predictions(tasks: Sequence[Task], videos: int, noise: float, rng: np.random.Generator) -> pd.DataFrame:
    """The truth is the same in every run."""
    truth = np.random.default_rng(0).normal(55, 12, STUDIES)
    rows = []
    for study, ef in enumerate(truth):
        for video in range(videos):
            predicted = ef + rng.normal(0, noise)
            ids = {"video_id": f"v{study:03d}-{video}", "study_id": f"s{study:03d}", "patient_id": f"p{study // 2:03d}"}
            ids |= {"view": "A4C", "split": "val" if study % 10 == 9 else "test", "fold": ""}
            rows += [ids | {"target": task.name} | columns(task, ef, predicted) for task in tasks]
    return pd.DataFrame(rows).astype(object).fillna("")


def columns(task: Task, ef: float, predicted: float) -> dict[str, Any]:
    if task.type == "regression":
        return {"truth": ef, "prediction": predicted}
    if task.type == "binary":
        low = 1 / (1 + np.exp((predicted - 50) / 4))
        return {"truth": "yes" if ef < 50 else "no", **probabilities(task, [low, 1 - low])}
    logits = np.exp(-np.abs(predicted - np.array([45.0, 55.0, 65.0])) / 5)
    return {"truth": GRADE.classes[int(np.digitize(ef, [50, 60]))], **probabilities(task, logits / logits.sum())}


def probabilities(task: Task, values: Sequence[float]) -> dict[str, Any]:
    named = {f"probability_{i}": float(value) for i, value in enumerate(values)}
    return {"prediction": task.classes[int(np.argmax(values))], **named}


def per_study(rows: pd.DataFrame) -> pd.DataFrame:
    groups = []
    for _, group in rows.groupby(["study_id", "target"], sort=False):
        row = group.iloc[0].to_dict()
        for name in ("prediction", *(c for c in rows if c.startswith("probability_"))):
            if isinstance(row[name], float):
                row[name] = group[name].astype(float).mean()
        groups.append(row)
    return pd.DataFrame(groups).drop(columns=["video_id", "view"])


def metrics(tasks: Sequence[Task], rows: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    targets = {}
    for task in tasks:
        own = rows[(rows["target"] == task.name) & (rows["split"] == "test")]
        classes = task.classes
        if task.type == "regression":
            truth, given = own["truth"].astype(float), own["prediction"].astype(float)
            trivial = np.full(len(own), task.training_mean)
        else:
            given = own[[f"probability_{i}" for i in range(len(classes))]].to_numpy(dtype=float)
            if task.positive_class_index == 0:
                classes, given = classes[::-1], given[:, ::-1]
            truth = own["truth"].map(classes.index)
            trivial = np.full(given.shape, 1 / len(classes))
            if task.type == "binary":
                given, trivial = given[:, 1], trivial[:, 1]
        patients = own["patient_id"].to_numpy(dtype=str)
        found, baseline = (
            scores(task_metrics(task.type, truth, p, patients, classes), draws=recipe.evaluation.draws)
            for p in (given, trivial)
        )
        targets[task.name] = {
            "task": task.type,
            "classes": list(task.classes),
            "unit": task.unit,
            "n": len(own),
            "n_patients": len(set(patients)),
            "metrics": {name: without_nan(asdict(score)) for name, score in found.items()},
            "baseline": {name: without_nan(asdict(score)) for name, score in baseline.items()},
        }
    level, draws = recipe.evaluation.level, recipe.evaluation.draws
    return {"schema_version": 1, "level": level, "draws": draws, "seed": recipe.seed, "targets": targets}


def without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value != value else value for key, value in fields.items()}


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
        "schema_version": 2,
        "version": "0",
        "created_utc": "2026-01-01T00:00:00+00:00",
        "finished_utc": "2026-01-01T01:00:00+00:00",
        "command": f"panecho-embed finetune echonet-dynamic --init {init} --data /data -o run",
        "versions": {"torch": "2"},
        "status": "done",
        "init": init,
        "weights": {"source": source, "sha256": "ab" * 32, "licence": "MIT", "pretrained": pretrained},
        "preprocess": asdict(Preprocess()),
        "plane_order": "published",
        "data": {"path": "/data", "fingerprint": "cd" * 32},
        "fold": None,
        "device": "cpu",
        "processes": 1,
        "precision": "fp32",
        "counts": {"train": 100, "val": 4, "test": 36, "train_patients": round(100 * recipe.data.fraction)}
        | {"val_patients": 4, "test_patients": 18, "failed": 0},
        "baseline": {t.name: 50.0 if t.type == "regression" else [1 / len(t.classes)] * len(t.classes) for t in tasks},
        "best_epoch": 4,
        "epochs": 6,
        "seconds": 12.0,
    }
