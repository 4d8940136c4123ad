"""`panecho-embed info`: what is in an embedding file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from panecho_embed.cli.options import existing_file
from panecho_embed.cli.printable import echo_line

_HIGH_COSINE = 0.5  # from here on `info` mentions centring


@click.command()
@click.argument("path", metavar="EMB.h5", type=existing_file)
@click.option("--failures", is_flag=True, help="List every input that failed or was skipped, with the reason.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    from panecho_embed.extraction.describing import info as describe

    facts = describe(file)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_line(value)}")
    if (facts["mean_cosine"] or 0) >= _HIGH_COSINE:
        click.echo("note: the mean cosine is high; kNN may want centring, which `probe knn` tries unless --centre no")


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
