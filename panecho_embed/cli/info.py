"""`panecho-embed info`: what is in an embedding file."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.options import existing_file
from panecho_embed.cli.printable import echo_line

if TYPE_CHECKING:
    import numpy.typing as npt

    from panecho_embed.store import EmbeddingFile

_COSINE_ROWS = 2000  # sampled
_HIGH_COSINE = 0.5  # from here on `info` mentions centring


@click.command()
@click.argument("path", metavar="EMB.h5", type=existing_file)
@click.option("--failures", is_flag=True, help="List every input that failed or was skipped, and why.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(path: Path, failures: bool, as_json: bool) -> None:
    """Say what an embedding file holds and how it was made."""
    from panecho_embed.store import EmbeddingFile

    file = EmbeddingFile(path)
    if failures:
        records = [dataclasses.asdict(failure) for failure in file.failure_records()]
        if as_json:
            click.echo(json.dumps(records, indent=2))
            return
        for line in [f"{r['video_id']}: [{r['stage']}] {r['message']}" for r in records] or ["no failures"]:
            echo_line(line)
        return
    facts = describe(file)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_line(value)}")
    if (facts["mean_cosine"] or 0) >= _HIGH_COSINE:
        click.echo("note: the mean cosine is high; kNN may want centring, which `probe knn` tries unless --centre no")


def describe(file: EmbeddingFile) -> dict[str, Any]:
    """What `info` prints, by name."""
    from panecho_embed.extraction.summary import cut_without_beat

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
        "fingerprint": file.fingerprint,
    }


def _heart_rates(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any] | None:
    """Beats per minute of the done videos, and how many were found how; None where none is known."""
    import numpy as np

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
    import numpy as np

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


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
