"""`panecho-embed reclip`: other clips from a frame-level file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from panecho_embed.cli.extract import announce, print_summary
from panecho_embed.cli.options import (
    clip_options,
    clips_taken,
    existing_file,
    model_options,
    out_option,
    overwrite_option,
)


@click.command()
@click.argument("source", metavar="FRAMES.h5", type=existing_file)
@out_option("Embedding file to write")
@model_options
@clip_options
@overwrite_option
@click.pass_context
def reclip(ctx: click.Context, /, source: Path, out: Path, **options: Any) -> None:
    """Make clip embeddings from a frame-level file, without the videos.

    Only for backbones whose pictures are frames, such as imagenet or timm:NAME. PanEcho builds its clips from other
    pictures: use `panecho-embed extract --plan` instead.
    """
    from panecho_embed.core.outputs import refuse_to_replace

    # Before torch is loaded.
    refuse_to_replace(out, options["overwrite"], source)
    from panecho_embed.extraction.reclipping import reclip as run

    summary = run(source, out, clips=clips_taken(options), progress=None, announce=announce, **options)
    print_summary(summary)
    ctx.exit(summary.exit_code)
