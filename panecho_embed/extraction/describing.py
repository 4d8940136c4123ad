"""What an embedding file holds and how it was made, as facts by name."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.extraction.summary import cut_without_beat
from panecho_embed.store import EmbeddingFile

_COSINE_ROWS = 2000  # sampled


def info(emb: str | Path | EmbeddingFile) -> dict[str, Any]:
    """Describe an embedding file: what it holds, how it was made, and what is missing.

    Parameters
    ----------
    emb : str, Path or EmbeddingFile
        Embedding file.

    Returns
    -------
    dict
        Fact -> value, ready for JSON: level, rows, dimension, videos by status, studies, patients, labels, backbone,
        weights with their SHA-256 and licence, feeding, clips, heart rates, mean cosine of two rows, precision,
        versions. What failed, and why, is the table `EmbeddingFile.failures`.

    Raises
    ------
    StoreError
        If the file is missing, damaged, or not an embedding file.
    """
    file = emb if isinstance(emb, EmbeddingFile) else EmbeddingFile(emb)
    provenance = file.provenance
    columns = file.video_columns
    statuses = [str(status) for status in columns["status"]]
    weights = provenance.weights
    return {
        "file": str(file.path),
        "created": file.created_utc,
        "level": file.level,
        "rows": len(file),
        "dimension": file.dim,
        "dtype": str(file.dtype),
        "videos": {name: statuses.count(name) for name in ("done", "skipped", "failed") if name in statuses},
        "studies": len(set(columns["study_id"])),
        "patients": len(set(columns["patient_id"])),
        "mean_cosine": mean_cosine(file),
        "labels": list(file.labels),
        "backbone": provenance.backbone,
        "weights": weights.source if weights.pretrained else f"RANDOM, NOT PRETRAINED: {weights.source}",
        "weights_sha256": weights.sha256,
        "weights_licence": weights.licence,
        "feeding": provenance.feeding.describe(),
        "overrides": list(provenance.overrides),
        "clips": None if provenance.clips is None else dataclasses.asdict(provenance.clips),
        "heart_rate": _heart_rates(columns),
        "cut_without_beat": []
        if not provenance.clips or provenance.clips.beats is None
        else cut_without_beat(file, provenance.clips),
        "plane_order": provenance.plane_order if provenance.clips else "frames",
        "l2_normalised": provenance.l2_normalised,
        "pooling": provenance.pooling,
        "precision": provenance.precision,
        "engine": provenance.engine,
        "versions": dict(provenance.versions),
        "settings_id": file.settings_id,
    }


def _heart_rates(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any] | None:
    """Beats per minute of the done videos, and how many were found how; None where none is known."""
    if "heart_rate_bpm" not in columns:
        return None
    done = columns["status"] == "done"
    rates = columns["heart_rate_bpm"][done]
    known = rates[np.isfinite(rates)]
    if not len(known):
        return None
    middle, least, most = (round(float(value), 1) for value in np.quantile(known, (0.5, 0, 1)))
    sources = Counter(source or "not known" for source in columns["heart_rate_source"][done])
    return {"median": middle, "lowest": least, "highest": most, **{str(name): count for name, count in sources.items()}}


def mean_cosine(file: EmbeddingFile, rows: int = _COSINE_ROWS) -> float | None:
    """Mean cosine of two different rows of a file, over all pairs of a random sample of its rows.

    rows: size of the sample. None where fewer than two rows are finite and not zero.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(file))[:rows])
    values = file.rows_on_disk[chosen].astype(np.float64)
    length = np.linalg.norm(values, axis=1)
    units = values[np.isfinite(length) & (length > 0)]
    count = len(units)
    if count < 2:
        return None
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    # The square of the sum of all unit vectors holds every pair twice, and every row with itself.
    return round(float((np.square(units.sum(axis=0)).sum() - count) / (count * (count - 1))), 4)
