"""`panecho-embed manifest`: what would be extracted."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from panecho_embed.cli.options import input_options, out_option
from panecho_embed.records import Layout


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@out_option("Table to write (CSV)")
@input_options
def manifest(source: Path, out: Path, layout: str, id_salt: str | None) -> None:
    """Write the table of what `extract` would embed: paths, ids, views, frames, frame rates.

    Check it, delete rows, correct ids, add a column per label, and give it to `extract` in place of INPUT.
    """
    from tqdm import tqdm

    from panecho_embed.errors import StoreError
    from panecho_embed.manifest import describe_manifest, read_manifest

    found = read_manifest(source, cast(Layout, layout), salt=id_salt)
    with tqdm(total=len(found), unit="file", disable=None) as bar:
        table = describe_manifest(found, progress=bar.update)
    try:
        table.to_csv(out, index=False)
    except OSError as error:
        raise StoreError(f"can't write {out}: {error.strerror or error} (-o)") from error
    for note in found.notes:
        click.echo(f"note: {note}")
    kinds = table["content"].str.partition(":")[0]
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.value_counts().items())
    click.echo(
        f"{len(table)} files ({counts}) of {table['study_id'].nunique()} studies "
        f"and {table['patient_id'].nunique()} patients in {out}"
    )
