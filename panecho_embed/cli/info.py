"""`panecho-embed info`: what is in an embedding file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.options import existing_file

if TYPE_CHECKING:
    from panecho_embed.store import EmbeddingFile


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
        lines = [f"{r['video_id']}: [{r['stage']}] {r['message']}" for r in records]
        click.echo(json.dumps(records, indent=2) if as_json else "\n".join(lines or ["no failures"]))
        return
    facts = describe(file)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_line(value)}")


def describe(file: EmbeddingFile) -> dict[str, Any]:
    """What `info` prints, by name."""
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
        "labels": list(file.labels),
        "backbone": provenance.backbone,
        "weights": weights.source if weights.pretrained else f"RANDOM, NOT PRETRAINED: {weights.source}",
        "weights_sha256": weights.sha256,
        "weights_licence": weights.licence,
        "preprocess": dataclasses.asdict(provenance.preprocess),
        "clips": None if provenance.clips is None else dataclasses.asdict(provenance.clips),
        "plane_order": provenance.plane_order if provenance.clips else "frames",
        "pooling": provenance.pooling,
        "precision": provenance.precision,
        "engine": provenance.engine,
        "versions": dict(provenance.versions),
        "fingerprint": file.fingerprint,
    }


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
