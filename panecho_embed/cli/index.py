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
    type=click.Choice(["auto", "exact", "ivf", "hnsw", "sq8", "pq"]),
    default="auto",
    show_default=True,
    help="Of index; auto chooses by the number of videos and the memory.",
)
@click.option("--memory-gb", type=float, help="Memory that the index may take.  [default: half of what is free]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample that it is trained on.")
@click.option("--overwrite", is_flag=True, help="Replace an index that is there and fits.")
def index(emb: Path, kind: Any, memory_gb: float | None, seed: int, overwrite: bool) -> None:
    """Build an index beside an embedding file, for a fast search of very many videos.

    It holds the videos' unit vectors too, so that the embeddings are not read again, and belongs to this state of the
    file alone: after another extraction it is refused until it is built anew.
    """
    from panecho_embed.search import Collection
    from panecho_embed.search.index import build_index, index_path

    info = build_index(Collection(emb), kind, memory_gb=memory_gb, seed=seed, overwrite=overwrite)
    folder = index_path(emb)
    size = sum(path.stat().st_size for path in folder.iterdir())
    what = f"{info.kind} ({info.factory})" if info.factory else info.kind
    click.echo(f"{what} over {info.videos} videos in {folder}, {size / 2**20:.1f} MiB")
