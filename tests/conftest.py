"""What all tests share: small records and embedding files, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Failure, Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingWriter

# On a busy machine, torch's threads wait for each other longer than they work.
torch.set_num_threads(1)

# The machines that run this are slow and shared; how long an example takes says nothing.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.fixture
def provenance() -> Provenance:
    weights = WeightsInfo("random (seed 0)", "ab" * 32, "none", pretrained=False)
    return Provenance("random", weights, Feeding(), ClipPlan(), "clip", dim=5, versions={"torch": "2"})


def refs(*names: str) -> tuple[VideoRef, ...]:
    """Videos "patient/study/video", or just "video"."""

    def ref(name: str) -> VideoRef:
        patient, study, video = name.split("/") if name.count("/") == 2 else (name, name, name)
        return VideoRef(video, study, patient, f"/data/{video}.avi", "A4C", "train")

    return tuple(ref(name) for name in names)


FileMaker = Callable[..., Path]


@pytest.fixture
def make_file(tmp_path: Path, provenance: Provenance) -> FileMaker:
    """make_file("x.h5", videos, rows=[2, 0, 3], labels={...}): rows hold 10 * video + row number."""

    def make(
        name: str,
        videos: Sequence[VideoRef],
        rows: Sequence[int],
        labels: dict[str, np.ndarray] | None = None,
        provenance: Provenance = provenance,
    ) -> Path:
        facts = [VideoFacts("done" if count else "failed", "00", 40, 30.0, "test") for count in rows]
        failures = [
            Failure(v.video_id, v.path, "decode", "broken") for v, count in zip(videos, rows, strict=True) if not count
        ]
        with EmbeddingWriter(tmp_path / name, provenance) as writer:
            for i, count in enumerate(rows):
                values = np.full((count, provenance.dim), 10.0 * i) + np.arange(count)[:, None]
                if count:
                    writer.add(i, values, np.arange(count), 1, 16)
            return writer.finish(Manifest(tuple(videos), labels or {}), facts, failures)

    return make
