"""`panecho-embed merge`: the shards of a job array become one file."""

from __future__ import annotations

from pathlib import Path

import click

from panecho_embed.cli.extract import print_summary
from panecho_embed.cli.options import LocalPath


@click.command()
@click.argument("out", metavar="OUT.h5", type=LocalPath(path_type=Path))
@click.pass_context
def merge(ctx: click.Context, out: Path) -> None:
    """Put together what `extract --shard` has written beside OUT.h5.

    Needs neither the videos nor the weights. While a shard has not done its share, it is named and nothing is put
    together; run it again.
    """
    from panecho_embed.extraction.merging import merge as run

    summary = run(out)
    print_summary(summary)
    ctx.exit(summary.exit_code)
