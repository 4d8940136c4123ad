"""`panecho-embed pool`: clip or frame -> video -> study."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from panecho_embed.cli.options import existing_file, out_option, overwrite_option
from panecho_embed.core.records import PoolBy, PoolHow


@click.command()
@click.argument("source", metavar="EMB.h5", type=existing_file)
@click.option(
    "--by",
    required=True,
    type=click.Choice(get_args(PoolBy)),
    help="Level of the rows of the result: one per video or one per study.",
)
@click.option(
    "--how",
    type=click.Choice(get_args(PoolHow)),
    default="mean",
    show_default=True,
    help="How the rows of a video or study are combined.",
)
@out_option("Embedding file to write")
@overwrite_option
def pool(source: Path, by: str, how: str, out: Path, overwrite: bool) -> None:
    """Pool an embedding file to one row per video or study."""
    from panecho_embed.extraction.pooling import pool as run
    from panecho_embed.store import EmbeddingFile

    run(source, cast(PoolBy, by), out, cast(PoolHow, how), overwrite=overwrite)
    click.echo(f"{len(EmbeddingFile(out))} {by} rows in {out}")
