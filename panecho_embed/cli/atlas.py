"""`panecho-embed atlas`: the embeddings as a table for embedding-atlas."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from panecho_embed.cli.options import existing_file, out_option, overwrite_option
from panecho_embed.cli.search import warning
from panecho_embed.core.progress import shown_progress


@click.command()
@click.argument("emb", metavar="EMB.h5", type=existing_file)
@out_option("Table to write (Parquet)")
@click.option(
    "--method", type=click.Choice(["umap", "pca"]), default="umap", show_default=True, help="Method of the 2-D map."
)
@click.option("--thumbnails/--no-thumbnails", default=True, show_default=True, help="Include a picture of each video.")
@overwrite_option
def atlas(emb: Path, out: Path, method: Any, thumbnails: bool, overwrite: bool) -> None:
    """Export ids, labels, a 2-D map, neighbours and thumbnails for embedding-atlas.

    Needs the extra: pip install 'panecho-embed[atlas]'.
    """
    from panecho_embed.core.outputs import refuse_to_replace

    # Before decoders are loaded.
    refuse_to_replace(out, overwrite, emb)
    from panecho_embed.retrieval import Collection
    from panecho_embed.retrieval.atlas import write_atlas

    collection = Collection(emb)
    for note in filter(None, (warning(collection), *collection.notes)):
        click.echo(f"note: {note}", err=True)
    with shown_progress("row") as show:
        write_atlas(collection, out, method=method, thumbnails=thumbnails, overwrite=overwrite, progress=show)
    image = " --image thumbnail" if thumbnails and collection.has_videos else ""
    click.echo(f"next: embedding-atlas {shlex.quote(str(out))} --x x --y y --neighbors neighbors{image}")
