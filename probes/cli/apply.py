"""`panecho-embed probe apply`."""

from __future__ import annotations

from pathlib import Path

import click

from panecho_embed.cli.options import FileToRead


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("embeddings", type=FileToRead(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="CSV of predictions.")
def apply(run: Path, embeddings: Path, out: Path) -> None:
    """Predict with the probes of RUN for EMBEDDINGS that were made in the same way."""
    from panecho_embed.errors import StoreError
    from probes.saved import apply_probes

    frame = apply_probes(run, embeddings)
    try:
        frame.to_csv(out, index=False)
    except OSError as error:
        raise StoreError(f"{out}: the predictions can't be written ({error}) (-o)") from error
    click.echo(f"{len(frame)} predictions: {out}")
