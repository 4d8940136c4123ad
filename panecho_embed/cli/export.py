"""`panecho-embed export`: the embeddings in the form of another tool."""

from __future__ import annotations

from pathlib import Path

import click

from panecho_embed.cli.options import existing_file, out_option


@click.command()
@click.argument("emb", metavar="EMB.h5", type=existing_file)
@out_option("File to write, .parquet, .npz or .h5ad (AnnData), or a folder for a Hugging Face data set")
@click.option("--overwrite", is_flag=True, help="Replace an existing file, or the folder of an earlier export.")
def export(emb: Path, out: Path, overwrite: bool) -> None:
    """Write the embeddings with ids, splits, labels, units and provenance as Parquet, NumPy, AnnData or a data set.

    Ids stay as they are in the file, and paths of videos are not written. Parquet and folders need the extra:
    pip install 'panecho-embed[export]'.
    """
    from panecho_embed.store.exporting import export as write

    write(emb, out, overwrite=overwrite)
    click.echo(f"wrote {out}")
