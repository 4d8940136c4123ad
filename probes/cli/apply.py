"""`panecho-embed probe apply`."""

from __future__ import annotations

from pathlib import Path

import click

from panecho_embed.cli.options import FileToRead, overwrite_option


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("embeddings", type=FileToRead(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="CSV of predictions.")
@overwrite_option
def apply(run: Path, embeddings: Path, out: Path, overwrite: bool) -> None:
    """Predict with the probes of RUN for EMBEDDINGS that were made in the same way.

    Says how many of the patients trained or tuned the encoder, where its weights record that.
    """
    import numpy as np

    from panecho_embed.core.outputs import refuse_to_replace, written_whole

    # Before scikit-learn is loaded.
    refuse_to_replace(out, overwrite, embeddings)
    from panecho_embed.core.patients import encoder_caution
    from panecho_embed.store import EmbeddingFile
    from probes.saved import apply_probes

    frame = apply_probes(run, embeddings)
    with written_whole(out) as temporary:
        frame.to_csv(temporary, index=False)
    click.echo(f"{len(frame)} predictions: {out}")
    who = np.array(frame["patient_id"], dtype=object)
    if note := encoder_caution(EmbeddingFile(embeddings).provenance.patients, who, who, "patient"):
        click.echo(note)
