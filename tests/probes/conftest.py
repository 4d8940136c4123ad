"""Embeddings with a known signal, as tables and as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import EmbeddingTable, Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingWriter

DIM = 24


def make_provenance(level: str = "clip", dim: int = DIM, backbone: str = "random") -> Provenance:
    return Provenance(
        backbone=backbone,
        weights=WeightsInfo("random (seed 0)", "0" * 64, "none", False),
        feeding=Feeding(),
        clips=None if level == "frame" else ClipPlan(),
        level=level,  # type: ignore[arg-type]
        dim=dim,
    )


def make_table(
    patients: int = 60,
    *,
    studies_each: int = 1,
    videos_each: int = 2,
    rows_each: int = 3,
    noise: float = 0.5,
    level: str = "clip",
    split: bool = True,
    seed: int = 0,
) -> EmbeddingTable:
    """EF, a class, a grade and a text label that can be read linearly from noisy rows."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(3, DIM)) / np.sqrt(DIM)
    latent = rng.normal(size=(patients, 3))
    video = np.repeat(np.arange(patients * studies_each * videos_each), rows_each)
    patient = video // (studies_each * videos_each)
    study = video // videos_each
    values = latent[patient] @ directions * 3 + rng.normal(size=(len(video), DIM)) * noise
    ef = 55 + 10 * latent[:, 0]
    splits = np.array(["train", "train", "train", "val", "test"], dtype=object)

    def named(prefix: str, number: np.ndarray) -> np.ndarray:
        return np.array([f"{prefix}{i:03d}" for i in number], dtype=object)

    def per_row(column: np.ndarray) -> np.ndarray:
        return np.asarray(column[patient])

    return EmbeddingTable(
        values=values.astype(np.float32),
        video_id=named("v", video),
        study_id=named("s", study),
        patient_id=named("p", patient),
        view=np.array(["A4C", "PLAX"], dtype=object)[video % 2],
        split=splits[patient % 5] if split else np.full(len(video), "", dtype=object),
        first_frame=np.tile(np.arange(rows_each) * 16, len(video) // rows_each).astype(np.int32),
        frame_step=np.ones(len(video)),
        frames_per_clip=np.full(len(video), 1 if level == "frame" else 16, dtype=np.int32),
        labels={
            "EF": per_row(ef),
            "LowEF": per_row((ef < 50).astype(float)),
            "Grade": per_row(
                np.array(["mild", "moderate", "severe"], dtype=object)[np.digitize(latent[:, 1], [-0.4, 0.4])]
            ),
            "Noise": per_row(rng.normal(size=patients)),
            "Sex": per_row(np.array(["F", "M"], dtype=object)[rng.integers(0, 2, patients)]),
        },
        level=level,  # type: ignore[arg-type]
        provenance=make_provenance(level),
    )


def write_table(path: Path, table: EmbeddingTable, fps: Mapping[str, float] | None = None) -> Path:
    """The table as an embedding file. fps: frame rate by video; 30 where not given."""
    ids, first, video = np.unique(table.video_id.astype(str), return_index=True, return_inverse=True)
    refs = tuple(
        VideoRef(
            name,
            str(table.study_id[i]),
            str(table.patient_id[i]),
            f"{name}.avi",
            str(table.view[i]),
            str(table.split[i]),
        )
        for name, i in zip(ids.tolist(), first, strict=True)
    )
    with EmbeddingWriter(path, table.provenance) as writer:
        writer.add(video, table.values, table.first_frame, table.frame_step, table.frames_per_clip)
        labels = {name: column[first] for name, column in table.labels.items()}
        rates = [(fps or {}).get(name, 30.0) for name in ids]
        facts = [VideoFacts("done", "", int(n), fps, "test") for n, fps in zip(np.bincount(video), rates, strict=True)]
        return writer.finish(Manifest(refs, labels), facts, [])


@pytest.fixture(scope="session")
def table() -> EmbeddingTable:
    return make_table()


@pytest.fixture(scope="session")
def table_of() -> Callable[..., EmbeddingTable]:
    return make_table


@pytest.fixture(scope="session")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(**options: Any) -> Path:
        return write_table(tmp_path_factory.mktemp("embeddings") / "emb.h5", make_table(**options))

    return make


@pytest.fixture(scope="session")
def embeddings(file_of: Callable[..., Path]) -> Path:
    return file_of()


@pytest.fixture(scope="session")
def write() -> Callable[[Path, EmbeddingTable], Path]:
    return write_table
