"""`panecho-embed weights`: which weights are here, fetch them, check them."""

from __future__ import annotations

from pathlib import Path

import click

_MEGABYTE = 1e6


@click.group()
def weights() -> None:
    """List, fetch and verify the models' weights.

    They are looked for in $PANECHO_EMBED_WEIGHTS (PanEcho's file, or a folder of files by name), then in the torch hub
    cache, where `fetch` puts them. $PANECHO_EMBED_WEIGHTS_URL may name a mirror to fetch them from.
    """


@weights.command("list")
def list_() -> None:
    """Show which weights are here, how large, and their licences."""
    from panecho_embed.models.weights import weights as table

    for name, path, megabytes, licence, file_name, notes in table().itertuples(index=False):
        where = f"{path} ({megabytes:.1f} MB)" if path else f"not here ({file_name})"
        click.echo(f"{name:<10} {where}")
        click.echo(f"{'':<10} licence: {licence}" + (f"; {notes}" if notes else ""))


@weights.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write the files to.  [default: the torch hub cache]",
)
def fetch(names: tuple[str, ...], folder: Path | None) -> None:
    """Download weights by name.

    Names are those that `list` shows. Each file's SHA-256 is written beside it, as FILE.sha256.
    """
    from panecho_embed.models import weights as library

    # A mistyped name stops the command before anything is downloaded.
    for file in [library.known(name) for name in names]:
        path = library.fetch(file.name, folder)
        click.echo(f"{file.name}: {path} ({path.stat().st_size / _MEGABYTE:.1f} MB). Licence: {file.licence}")


@weights.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...]) -> None:
    """Load weights as strictly as the models do.

    Shows their SHA-256; exit code 1 if any of them is not whole. Takes names as `list` shows them, and files of any of
    those models; without any, all that are here.
    """
    from panecho_embed.core.errors import WeightsError, WeightsNotFoundError
    from panecho_embed.models.verify import verify_weights
    from panecho_embed.models.weights import KNOWN, locate

    wanted = names or tuple(file.name for file in KNOWN if locate(file.name))
    if not wanted:
        raise WeightsNotFoundError(
            "no weights are here to be verified; fetch some with `panecho-embed weights fetch NAME`"
        )
    failed = 0
    for name in wanted:
        try:
            click.echo(f"{name}: {verify_weights(name)}")
        except WeightsError as error:
            failed += 1
            click.echo(f"{name}: FAILED: {error}", err=True)
    if failed:
        context.exit(1)
