"""`panecho-embed manifest`: what would be extracted."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from panecho_embed.cli.options import Place, input_options, out_option, overwrite_option
from panecho_embed.cli.printable import echo_line
from panecho_embed.core.records import Ids


@click.command()
@click.argument("source", metavar="INPUT", type=Place())
@out_option("Table to write (CSV)")
@input_options
@overwrite_option
def manifest(source: Path | str, out: Path, layout: str, ids: str, id_salt: str | None, overwrite: bool) -> None:
    """Write the table of what `extract` would embed: paths, ids, views, frames, frame rates.

    Prints what the input was taken for: layout, patients, studies, views, splits, labels with units. Check that and
    the table, delete rows, correct ids, add a column per label, and give it to `extract` in place of INPUT.
    """
    from panecho_embed.core.progress import shown_progress
    from panecho_embed.core.wording import counted
    from panecho_embed.datasets.listing import manifest as run

    with shown_progress("file", leave=True) as show:
        table = run(source, out, layout=layout, ids=cast(Ids, ids), id_salt=id_salt, overwrite=overwrite, progress=show)
    for line in table.attrs["understood"]:
        echo_line(line)
    for note in table.attrs["notes"]:
        echo_line(f"note: {note}")
    kinds = table["content"].str.partition(":")[0]
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.value_counts().items())
    click.echo(
        f"{counted(len(table), 'file')} ({counts}) of {counted(table['study_id'].nunique(), 'study')} "
        f"and {counted(table['patient_id'].nunique(), 'patient')} in {click.format_filename(out)}; check the above "
        "before you extract"
    )
