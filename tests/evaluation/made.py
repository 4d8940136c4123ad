"""Predictions with an error of known size, made in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from panecho_embed.evaluation.metrics import Metrics, target_metrics
from panecho_embed.evaluation.predictions import Predictions
from panecho_embed.evaluation.targets import Kind, Target

EF = Target("EF", "regression", unit="%")
LOW = Target("LowEF", "binary", ("no", "yes"))
VIEW = Target("View", "multiclass", ("A4C", "PLAX", "PSAX"))
GRADE = Target("Grade", "ordinal", ("none", "mild", "severe"))


def texts(*values: object) -> np.ndarray:
    """Values as a column of text."""
    return np.array([str(value) for value in values], dtype=object)


def made(
    target: Target = EF,
    noise: float = 5.0,
    seed: int = 0,
    patients: int = 60,
    *,
    videos: int = 1,
    run: str = "",
    draw: str = "",
    baseline: bool = True,
    **changes: Any,
) -> Predictions:
    """Test rows whose truth is the same for every seed; noise: SD of the error in a latent value of SD 10."""
    latent = np.random.default_rng(99).normal(0, 10, patients).repeat(videos)
    read = latent + np.random.default_rng(seed).normal(0, noise, len(latent))
    n, count = len(latent), len(target.classes)
    if count:
        read = read.clip(-30, 30)
    if target.kind == "regression":
        truth, prediction, trivial = 55 + latent, 55 + read, np.full(n, 55.0)
    elif target.kind == "binary":
        truth, prediction, trivial = (latent > 4).astype(float), 1 / (1 + np.exp(4 - read)), np.full(n, 0.3)
    else:
        centres = np.linspace(-10, 10, count)
        truth = np.abs(latent[:, None] - centres).argmin(axis=1).astype(float)
        weight = np.exp(-((read[:, None] - centres) ** 2) / 50)
        prediction, trivial = weight / weight.sum(axis=1, keepdims=True), np.full((n, count), 1 / count)
    rows = Predictions(
        target=target,
        level="video",
        ids={
            "video_id": texts(*(f"v{i}" for i in range(n))),
            "study_id": texts(*(f"s{i // videos}" for i in range(n))),
        },
        patient=texts(*(f"p{i // videos}" for i in range(n))),
        split=np.full(n, "test", dtype=object),
        truth=truth,
        prediction=prediction,
        run=np.full(n, run, dtype=object),
        draw=np.full(n, draw, dtype=object),
        threshold=np.full(n, 0.5 if target.kind == "binary" else np.nan),
        baseline=trivial if baseline else np.full(target.shape(n), np.nan),
    )
    return replace(rows, **changes)


def regression_metrics(truth: Any, prediction: Any, patients: Any, **options: Any) -> Metrics:
    return target_metrics(EF, truth, prediction, patients, **options)


def binary_metrics(truth: Any, probability: Any, patients: Any, threshold: Any = 0.5) -> Metrics:
    return target_metrics(LOW, truth, probability, patients, threshold=threshold)


def class_metrics(kind: Kind, truth: Any, probability: Any, patients: Any, classes: str) -> Metrics:
    return target_metrics(Target("X", kind, tuple(classes)), truth, probability, patients)
