"""The frozen start beside the trained one: a probe on its embeddings, of the same patients in the same parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.core.tasks import TaskType
from panecho_embed.datasets import local_path
from panecho_embed.evaluation.predictions import FILE, Predictions, write_predictions
from panecho_embed.evaluation.splits import SPLITS
from panecho_embed.extraction.pooling import pool_table
from panecho_embed.extraction.run import extract
from panecho_embed.finetuning.data import Dataset, Fold, make_fold
from panecho_embed.finetuning.evaluate import Predicted
from panecho_embed.finetuning.outcome import of_all_folds, predictions_of
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.starts import fed_backbone
from panecho_embed.models.backbones import Backbone, MeanOverFrames
from panecho_embed.store import EmbeddingFile


class FrozenProbe(Protocol):
    """Reads a target from embeddings; packages add theirs by the entry-point group panecho_embed.frozen_probes."""

    def __call__(self, values: Floats, truth: Floats, split: npt.NDArray[np.str_], *, task: TaskType) -> Floats:
        """Learn from the training rows, choose settings on the validation rows, predict the test rows.

        values: (N, D). truth: (N,) value or class index. split: (N,) "train", "val" or "test". Returns (n,) values or
        (n, K) probabilities of class index 0 to K - 1, for the test rows in their order.
        """


def linear_probe() -> FrozenProbe:
    """The linear probe of this package. Raises ArgumentError where it is not installed."""
    found = list(entry_points(group="panecho_embed.frozen_probes", name="linear"))
    if not found:
        raise ArgumentError("--frozen needs the linear probe of this package; install it again (pip install .)")
    return cast(FrozenProbe, found[0].load())


def embed_start(
    init: str, weights: Path | None, recipe: Recipe, data: Path, out: Path, *, device: str, workers: int | None
) -> EmbeddingTable:
    """Video embeddings of an untrained start: the means of the clips that the recipe tests on. Resumes, and reuses.

    Raises as `extract` does.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    clips = recipe.clips.plan(recipe.clips.test)
    extract(
        data,
        out,
        backbone=_backbone(init, weights, recipe),
        clips=clips,
        mask_sector=recipe.data.mask_sector,
        crop_region=recipe.data.crop_region,
        include_stills=clips.frames_per_clip == 1,
        layout=recipe.data.layout,
        # The same ids as in training.
        ids=recipe.data.ids,
        id_table=local_path(data),
        device=device,
        workers=workers,
        progress=None,
    )
    return pool_table(EmbeddingFile(out).table(), "video")


def frozen_predictions(
    table: EmbeddingTable,
    dataset: Dataset,
    recipe: Recipe,
    probe: FrozenProbe,
    out: Path,
    *,
    seeded: bool = True,
    allow_leakage: bool = False,
) -> list[Predictions]:
    """What the probe predicts for validation and test rows, per video and per study; written into `out`.

    Of a cross-validation the test rows of all folds.

    The recipe's seed and fraction decide whom it learns from, as in training. seeded: whether it depends on the seed.
    """
    numbers: Sequence[int | None] = range(recipe.data.folds) if recipe.data.folds else [None]
    folds = [
        make_fold(dataset, recipe.data, number, seed=recipe.seed, allow_leakage=allow_leakage) for number in numbers
    ]
    by_fold = [predictions_of(fold, _fold_outputs(table, fold, probe), recipe) for fold in folds]
    found = by_fold[0] if len(by_fold) == 1 else of_all_folds(by_fold)
    if not seeded:
        found = [replace(one, run=np.full(len(one), "", dtype=object)) for one in found]
    out.mkdir(parents=True, exist_ok=True)
    write_predictions(found, out / FILE)
    return found


def _backbone(init: str, weights: Path | None, recipe: Recipe) -> Backbone:
    backbone = fed_backbone(init, recipe.model, weights=weights, seed=recipe.seed)
    if recipe.model.temporal == "none" and backbone.image_dim is not None:
        # The same function as the start that is trained, under a name that no reporting heads are looked up by.
        backbone = replace(
            backbone,
            name=f"{backbone.name}, mean of frames",
            clip_encoder=MeanOverFrames(),
            dim=backbone.image_dim,
            pooling="mean",
            l2_normalised=False,
            plane_order="frames",
        )
    return backbone


def _fold_outputs(table: EmbeddingTable, fold: Fold, probe: FrozenProbe) -> dict[str, Predicted]:
    """Outputs for the rows of "val" and "test"."""
    place = {video_id: i for i, video_id in enumerate(table.video_id.tolist())}
    parts = {
        name: np.array([i for i in fold.part(name) if fold.dataset.videos[i].video_id in place], dtype=np.int64)
        for name in SPLITS
    }
    # The rows that choose the strength are predicted too: they choose the threshold of a decision.
    index = np.concatenate([*parts.values(), parts["val"]])
    split = np.repeat([*parts, "test"], [*map(len, parts.values()), len(parts["val"])])
    rows = [place[fold.dataset.videos[i].video_id] for i in index]
    values = table.values[rows].astype(np.float64)
    outputs = [
        _predict(values, fold.targets.values[index, i], split, task.name, task.type, task.num_outputs, probe)
        for i, task in enumerate(fold.targets.tasks)
    ]
    losses = np.full(len(fold.targets.tasks), np.nan)
    tested, validated = np.split(np.hstack(outputs), [len(parts["test"])])
    return {
        "val": Predicted(parts["val"], validated, float("nan"), losses, ()),
        "test": Predicted(parts["test"], tested, float("nan"), losses, ()),
    }


def _predict(
    values: Floats,
    truth: Floats,
    split: npt.NDArray[np.str_],
    name: str,
    task: TaskType,
    num_outputs: int,
    probe: FrozenProbe,
) -> Floats:
    """(n, num_outputs) of all test rows, labelled or not."""
    used = np.isfinite(truth) | (split == "test")
    there: Floats = np.array([])
    if task == "multiclass":
        # A class that no training row has can't be learned: nobody is given it, and it chooses no settings.
        there = np.unique(truth[(split == "train") & np.isfinite(truth)])
        used &= np.isin(truth, there) | (split == "test")
        truth = np.where(np.isin(truth, there), np.searchsorted(there, truth), np.nan)
    try:
        predicted = np.asarray(probe(values[used], truth[used], split[used], task=task))
    except ValueError as error:
        raise ArgumentError(f"{name}: no frozen probe can be fitted ({error})") from error
    if task == "regression":
        return predicted[:, None]
    return predicted[:, 1:2] if task == "binary" else _spread(predicted, there.astype(np.intp), num_outputs)


def _spread(predicted: Floats, there: npt.NDArray[np.intp], num_outputs: int) -> Floats:
    """Probabilities of the classes `there` as those of all classes."""
    every = np.zeros((len(predicted), num_outputs))
    every[:, there] = predicted
    return every
