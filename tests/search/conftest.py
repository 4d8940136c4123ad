"""Collections to search: vectors made on the spot, and small phantom films embedded by a random encoder."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.phantoms import make_patients, render
from panecho_embed.store import EmbeddingWriter

VIEWS = ("A4C", "A2C", "PLAX")
PLAN = ClipPlan(frames_per_clip=4, num_clips=2)


def vectors_file(
    path: Path,
    *,
    patients: int = 6,
    dim: int = 8,
    rows: int = 2,
    views: tuple[str, ...] = VIEWS,
    studies: int = 1,
    seed: int = 0,
    video_path: Callable[[str], str] = lambda name: f"/nowhere/{name}.avi",
    level: str = "clip",
    values: np.ndarray | None = None,
) -> Path:
    """An embedding file in which a patient's videos lie close together; EF is the patient's number times ten.

    A video's rows stand close around its own vector. values: (V, D), to set the vectors of the videos.
    """
    rng = np.random.default_rng(seed)
    weights = WeightsInfo("random (seed 0)", "ab" * 32, "none", pretrained=False)
    provenance = Provenance("random", weights, Feeding(), PLAN, level, dim=dim)  # type: ignore[arg-type]
    videos, efs, vectors = [], [], []
    for patient in range(patients):
        centre = rng.normal(size=dim)
        for study in range(studies):
            for view in views:
                name = f"P{patient}/S{study}/{view}"
                study_id = f"P{patient}-S{study}"
                videos.append(VideoRef(name, study_id, f"P{patient}", video_path(name), view, "train"))
                efs.append(10.0 * patient if patient else np.nan)
                vectors.append(centre + 0.3 * rng.normal(size=dim))
    with EmbeddingWriter(path, provenance) as writer:
        for i, vector in enumerate(vectors if values is None else values):
            block = vector + (0.05 * rng.normal(size=(rows, dim)) if rows > 1 else 0)
            writer.add(i, np.broadcast_to(block, (rows, dim)), np.arange(rows), 1, 4)
        digests = [hashlib.sha256(f"{seed} {video.video_id}".encode()).hexdigest() for video in videos]
        facts = [VideoFacts("done", digest, 40, 30.0, "test") for digest in digests]
        sex = np.array(["F" if i % 2 else "M" for i in range(len(videos))], dtype=object)
        return writer.finish(Manifest(tuple(videos), {"EF": np.array(efs), "sex": sex}), facts, [])


@pytest.fixture
def emb(tmp_path: Path) -> Path:
    """6 patients, 1 study each, 3 views, 2 clips a video."""
    return vectors_file(tmp_path / "emb.h5")


def make_films(root: Path, patients: int = 5, loops: Mapping[str, int] | None = None) -> Path:
    """A table of phantom patients: a study each, of several takes of a view, two of A4C and one of PLAX."""
    lines = []
    for patient in make_patients(patients, 0):
        for view, takes in (loops or {"A4C": 2, "PLAX": 1}).items():
            for take in range(takes):
                path = root / f"{patient.patient_id}-{view}-{take}.npy"
                np.save(path, render(patient, view, num_frames=6, size=96, take=take).pixels)  # type: ignore[arg-type]
                who = {"patient_id": patient.patient_id, "study_id": f"{patient.patient_id}-S1"}
                lines.append({"path": path.name, "video_id": f"{who['study_id']}/{view}-{take}", **who, "view": view,
                              "fps": 30, "EF": round(patient.ef_percent, 1)})  # fmt: skip
    with (root / "films.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return root / "films.csv"


def embed_films(films: Path) -> Path:
    """The films, embedded by random weights."""
    out = films.with_name("films.h5")
    extract(films, out, backbone=load_backbone("random", image_size=32), clips=PLAN, workers=0)
    return out


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_films`."""
    return make_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="session")
def film_emb(films: Path) -> Path:
    """See `embed_films`."""
    return embed_films(films)
