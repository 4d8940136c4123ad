"""Predictions of videos: clips averaged, gathered from all processes, no video counted twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.planes import PlaneOrder, pictures_of
from panecho_embed.core.records import Failure, VideoRef
from panecho_embed.core.tasks import Task
from panecho_embed.extraction.decode import DecodeSettings, decode_video
from panecho_embed.finetuning.model import FineTuneModel, Loss, mean_loss
from panecho_embed.finetuning.processes import Processes
from panecho_embed.finetuning.sampling import begin_loading

_Decoded = tuple[int, Tensor, Tensor, Tensor] | Failure

_PICTURES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What came out for n videos.

    index: (n,) into the data set, ascending. values: (n, K) values or probabilities, made from the mean raw output
    (logit) of a video's clips; of a binary task the probability of index 1. loss: over all of them, the mean over a
    video's clips, NaN without a label; task_losses: (T,). failures: videos that can't be decoded, which have no row.
    """

    index: Ints
    values: Floats
    loss: float
    task_losses: Floats
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationClips(Dataset[_Decoded]):
    """Decodes the same clips of a video every time, each frame once.

    plane_order: which pictures they are made of.
    """

    videos: Sequence[VideoRef]
    feeding: Feeding
    plan: ClipPlan
    plane_order: PlaneOrder

    def __getitem__(self, index: int) -> _Decoded:
        settings = DecodeSettings(self.feeding, (self.plan,), self.plan.frames_per_clip == 1, digest=False)
        decoded = decode_video(self.videos[index], settings)
        if isinstance(decoded, Failure):
            return decoded
        assert decoded.clips is not None
        pictures = pictures_of(decoded.clips, len(decoded.pixels), self.plane_order)
        (clips,) = pictures.clips
        pixels, planes = torch.from_numpy(decoded.pixels), torch.from_numpy(pictures.planes)
        return index, pixels, planes, torch.from_numpy(clips)


def predict_videos(
    model: FineTuneModel,
    clips: EvaluationClips,
    index: Ints,
    targets: Floats,
    tasks: Sequence[Task],
    loss: Loss,
    processes: Processes,
    *,
    workers: int = 0,
    each: Callable[[], object] = lambda: None,
) -> Predicted:
    """Predict the videos `index` of a data set; every process takes its share, and all get all.

    targets: (M, T) of the whole data set. each: called after every video of this process.
    """
    # Each process has its own videos, so there is no padding that could be counted.
    mine = index[processes.index :: processes.count].tolist()
    loader: Any = DataLoader(
        clips,
        sampler=mine,
        batch_size=None,
        num_workers=workers,
        pin_memory=processes.on_cuda,
        worker_init_fn=begin_loading,
    )
    rows: list[tuple[int, Floats, Floats]] = []
    failures: list[Failure] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for decoded in loader:
            if isinstance(decoded, Failure):
                failures.append(decoded)
            else:
                number, *video = decoded
                rows.append((number, *_one(model, video, targets[number], tasks, loss, processes)))
            each()
    model.train(was_training)
    rows, failures = processes.gathered(rows), processes.gathered(failures)
    rows.sort(key=lambda row: row[0])
    return _together(rows, failures, targets, tasks, loss)


def _one(
    model: FineTuneModel,
    video: Sequence[Tensor],
    target: Floats,
    tasks: Sequence[Task],
    loss: Loss,
    processes: Processes,
) -> tuple[Floats, Floats]:
    """(K,) predictions of one video, from the mean raw output of its clips, and (T,) losses, means over its clips.

    video: frames (U, 3, S, S) uint8, the planes (P, 3) of its pictures and its clips (N, L) of pictures.
    """
    frames, planes, clips = (tensor.to(processes.device, non_blocking=True) for tensor in video)
    # A plane keeps its channel's normalisation wherever it goes, so it comes first.
    every = model.normalise(frames).flatten(0, 1)
    with processes.autocast():
        encoded = [model.encode_pictures(every[some]) for some in planes.split(_PICTURES_AT_ONCE)]
        outputs = model.outputs(torch.cat(encoded)[clips])
    targets = torch.from_numpy(target).to(processes.device, torch.float32).expand(len(outputs), -1)
    counted = torch.full((len(outputs),), 1 / len(outputs), device=processes.device)
    sums = loss.sums(outputs, targets, counted)
    # As published: logits are averaged, not the probabilities of clips.
    values = _activated(outputs.mean(dim=0), tasks)
    return values.double().cpu().numpy(), sums.double().cpu().numpy()


def _together(
    rows: Sequence[tuple[int, Floats, Floats]],
    failures: Sequence[Failure],
    targets: Floats,
    tasks: Sequence[Task],
    loss: Loss,
) -> Predicted:
    index = np.array([row[0] for row in rows], dtype=np.int64)
    outputs = sum(task.num_outputs for task in tasks)
    values = np.array([row[1] for row in rows]).reshape(-1, outputs)
    sums = torch.from_numpy(np.array([row[2] for row in rows]).reshape(-1, len(tasks)).sum(axis=0))
    seen = torch.from_numpy(targets[index]).float()
    weights = loss.weights(seen, torch.ones(len(seen))).double()
    per_task = torch.where(weights > 0, sums / weights.clamp(min=1e-12), torch.nan)
    # Of nothing there is no loss; 0 would be the best that any epoch can have.
    total = float(mean_loss(sums, weights)) if (weights > 0).any() else float("nan")
    return Predicted(index, values, total, per_task.numpy(), tuple(failures))


def _activated(outputs: Tensor, tasks: Sequence[Task]) -> Tensor:
    """(..., K) raw outputs to values of regressions and probabilities: of index 1 of a binary task, of every class."""
    parts = []
    for task, raw in zip(tasks, outputs.split([task.num_outputs for task in tasks], dim=-1), strict=True):
        parts.append(raw if task.type == "regression" else raw.sigmoid() if task.type == "binary" else raw.softmax(-1))
    return torch.cat(parts, dim=-1)
