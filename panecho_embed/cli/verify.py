"""`panecho-embed verify`: is an embedding file whole?"""

from __future__ import annotations

from pathlib import Path

import click

from panecho_embed.cli.options import file_to_check
from panecho_embed.cli.printable import echo_line


@click.command()
@click.argument("paths", metavar="EMB.h5...", nargs=-1, required=True, type=file_to_check)
@click.pass_context
def verify(ctx: click.Context, paths: tuple[Path, ...]) -> None:
    """Read embedding files from end to end and name every problem.

    Exit code 1 if there is one.
    """
    from panecho_embed.store import EmbeddingFile
    from panecho_embed.store import verify as run

    bad = 0
    for path in paths:
        problems = run(path)
        bad += bool(problems)
        for problem in problems:
            echo_line(problem if problem.startswith(str(path)) else f"{path}: {problem}")
        if not problems:
            file = EmbeddingFile(path)
            echo_line(f"{path}: whole, {len(file)} {file.level} rows, fingerprint {file.fingerprint[:12]}")
    ctx.exit(1 if bad else 0)
