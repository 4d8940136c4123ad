"""`panecho-embed verify`: is what this package wrote still whole?"""

from __future__ import annotations

from pathlib import Path

import click

from panecho_embed.cli.options import file_to_check
from panecho_embed.cli.printable import echo_line


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=file_to_check)
@click.pass_context
def verify(ctx: click.Context, paths: tuple[Path, ...]) -> None:
    """Read files from end to end and name every problem.

    PATH is an embedding file, a run folder of `probe`, `finetune`, `grid`, `predict` or `compare` (with all folders
    below it), an index, a weights file or checkpoint, or a table of `atlas`. Exit code 1 if there is a problem.
    """
    from panecho_embed.checkup.whole import verify as run

    whole = True
    for one in map(run, paths):
        whole &= bool(one)
        for problem in one.problems:
            echo_line(problem if problem.startswith(str(one.path)) else f"{one.path}: {problem}")
        if one:
            echo_line(f"{one.path}: whole, {one.content}")
    ctx.exit(0 if whole else 1)
