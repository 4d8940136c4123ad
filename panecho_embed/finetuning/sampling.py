"""Which clips a training step sees: a pure function of seed, epoch and video, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from panecho_embed.core.clips import ClipPlan, OneClip
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import Failure, VideoRef
from panecho_embed.core.workers import end_with_parent
from panecho_embed.extraction.decode import DecodeSettings, decode_video
from panecho_embed.finetuning.recipe import AugmentationSettings
from panecho_embed.models.torchvision_ops import ensure_torchvision

ensure_torchvision()
from torchvision.transforms.v2 import functional  # noqa: E402

_ZOOM_CHANCE = 0.5


class Key(NamedTuple):
    """A clip to be decoded. counted: 0 for one that only fills up a process's share of a step."""

    epoch: int
    video: int
    counted: float


class Batch(NamedTuple):
    """Clips of one process. video: (N,) which of the videos. counted: (N,) 0 or 1. pixels: (N, L, 3, S, S) uint8.

    failures: of videos that can't be decoded; their pixels are black, and they do not count.
    """

    video: Tensor
    counted: Tensor
    pixels: Tensor
    failures: list[Failure]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingClips(Dataset[Batch]):
    """Decodes one clip a key, from anywhere in its video, augmented."""

    videos: Sequence[VideoRef]
    feeding: Feeding
    plan: ClipPlan
    augmentation: AugmentationSettings
    seed: int

    def __getitem__(self, key: Key) -> Batch:
        rng = np.random.default_rng([self.seed, key.epoch, key.video])
        side, frames = self.feeding.crop, self.plan.frames_per_clip
        whole = replace(self.feeding, crop=self.feeding.least_side)
        settings = DecodeSettings(
            whole if self.augmentation.enabled else self.feeding,
            (OneClip(self.plan, rng.random()),),
            include_stills=frames == 1,
            digest=False,
        )
        decoded = decode_video(self.videos[key.video], settings)
        if isinstance(decoded, Failure):
            return _batch(key.video, 0.0, torch.zeros(frames, 3, side, side, dtype=torch.uint8), [decoded])
        assert decoded.clips is not None
        pixels = torch.from_numpy(decoded.pixels[decoded.clips[0][0]])
        if self.augmentation.enabled:
            pixels = augment(pixels, side, self.augmentation, rng)
        return _batch(key.video, key.counted, pixels, [])


def _batch(video: int, counted: float, pixels: Tensor, failures: list[Failure]) -> Batch:
    return Batch(torch.tensor([video]), torch.tensor([counted]), pixels[None], failures)


def together(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    return Batch(
        torch.cat([batch.video for batch in batches]),
        torch.cat([batch.counted for batch in batches]),
        torch.cat([batch.pixels for batch in batches]),
        [failure for batch in batches for failure in batch.failures],
    )


@dataclass(slots=True)
class MicroBatches:
    """What a loader is to load next: set before every epoch, because its workers live on."""

    batches: list[list[Key]] = field(default_factory=list)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def begin_loading(_worker: int) -> None:
    """In every worker of a loader, before it begins: it does not outlive the training."""
    end_with_parent()


def training_loader(clips: TrainingClips, batches: MicroBatches, workers: int, *, pin: bool) -> DataLoader[Batch]:
    """Decodes ahead in `workers` processes; none decodes in this one. pin: into page-locked memory."""
    return DataLoader(
        clips,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=together,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=begin_loading,
    )


def augment(frames: Tensor, side: int, settings: AugmentationSettings, rng: np.random.Generator) -> Tensor:
    """(L, 3, R, R) uint8, not yet cropped, to (L, 3, side, side) uint8, every frame changed alike.

    In the order in which PanEcho was trained: zoomed out onto black, cropped, mirrored, rotated. `rng` decides; from
    the same state it decides the same.
    """
    if rng.random() < _ZOOM_CHANCE:
        frames = _zoomed_out(frames, rng.uniform(1.0, settings.zoom_out), rng.random(2))
    room = frames.shape[-1] - side
    top, left = rng.integers(0, room + 1, size=2) if settings.crop else (room // 2, room // 2)
    frames = functional.crop(frames, int(top), int(left), side, side)
    if rng.random() < settings.flip:
        frames = functional.horizontal_flip(frames)
    angle = rng.uniform(-settings.rotation, settings.rotation)
    return functional.rotate(frames, angle).contiguous() if settings.rotation else frames.contiguous()


def _zoomed_out(frames: Tensor, factor: float, place: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    """On a black canvas `factor` times as large, anywhere on it."""
    side = frames.shape[-1]
    canvas = torch.zeros(*frames.shape[:2], int(side * factor), int(side * factor), dtype=frames.dtype)
    top, left = (place * (canvas.shape[-1] - side + 1)).astype(int)
    canvas[:, :, top : top + side, left : left + side] = frames
    return canvas
