"""`panecho-embed index`: a faster search over many videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from panecho_embed.cli.options import existing_file


@click.command()
@click.argument("emb", metavar="EMB.h5", type=existing_file)
@click.option(
    "--kind",
    type=click.Choice(["auto", "exact", "ivf"]),
    default="auto",
    show_default=True,
    help="Kind of index. auto: ivf for more than 100,000 videos if it is at least twice as fast, else exact.",
)
@click.option(
    "--recall",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=0.99,
    show_default=True,
    help="Fraction of the ten nearest videos that a query must find; ivf is tuned to reach it.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed for the sample that it is trained on and for the queries that tune it.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing index.")
def index(emb: Path, kind: Any, recall: float, seed: int, overwrite: bool) -> None:
    """Build an index beside an embedding file, for a fast search of very many videos.

    It holds the videos' unit vectors too, so that the embeddings are not read again, and belongs only to this state of
    the file: after another extraction it is refused until it is rebuilt.
    """
    from panecho_embed.retrieval import Collection
    from panecho_embed.retrieval.index import build_index, index_path

    info = build_index(Collection(emb), kind, recall=recall, seed=seed, overwrite=overwrite)
    folder = index_path(emb)
    size = sum(path.stat().st_size for path in folder.iterdir())
    if info.factory:
        click.echo(
            f"ivf ({info.factory}) finds {info.recall:.3f} of the ten nearest videos ({recall:g} asked for) by "
            f"{info.lists} lists and {info.candidates} candidates, in {info.query_ms:.2f} ms of one core"
        )
    if info.factory and info.kind == "exact":
        click.echo("exact was built instead: that is too few, or not twice as fast (--kind ivf builds it all the same)")
    click.echo(f"{info.kind} over {info.videos} videos in {folder}, {size / 2**20:.1f} MiB")
