"""`panecho-embed demo`: from nothing to an answer, by the commands that a user would type."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder.")
@click.option("--patients", type=click.IntRange(min=8), default=80, show_default=True, help="Phantom patients.")
@click.pass_context
def demo(ctx: click.Context, out: Path, patients: int) -> None:
    """Make phantom studies, embed them, probe their ejection fraction, and draw the result.

    Uses PanEcho's weights if they are on this computer. It never downloads: without them it takes random weights, by
    its own choice, and says so.
    """
    from panecho_embed.models.weights import locate

    group = ctx.find_root().command
    weights = locate("panecho")
    backbone = "random" if weights is None else "panecho"
    studies = out / f"{patients}-patients"
    embeddings, run = out / f"{patients}-patients-{backbone}.h5", out / f"{patients}-patients-{backbone}-probe"
    if weights is None:
        click.secho(
            "PanEcho's weights are not on this computer, and the demo works offline: it uses RANDOM WEIGHTS.\n"
            "What follows shows the way, not the model. `panecho-embed weights fetch panecho` brings the real ones.",
            fg="yellow",
        )
    # A second or more at 30 frames per second holds a whole heartbeat; mean and spread over its frames hold the motion.
    asked = ["--target", "EF", "--pooling", "mean+std", "--folds", 5]
    steps = [
        ["phantom", studies, "--layout", "echonet-dynamic", "--patients", patients, "--frames", 36, "--fps", 30],
        ["extract", studies, "-o", embeddings, "--backbone", backbone, "--level", "frame", "--image-size", 112],
        ["info", embeddings],
        ["probe", "linear", embeddings, *asked, "-o", run, "--overwrite"],
    ]
    out.mkdir(parents=True, exist_ok=True)
    for step in steps:
        words = [str(word) for word in step]
        click.secho(f"\n$ panecho-embed {shlex.join(words)}", bold=True)
        if code := group.main(words, prog_name="panecho-embed", standalone_mode=False):
            ctx.exit(code)
    click.secho("\nThe result as a picture:", bold=True)
    for picture in sorted((run / "plots").glob("*.svg")):
        click.echo(f"  {picture}")
    if weights is None:
        click.secho("Remember: RANDOM WEIGHTS. These figures say nothing about PanEcho.", fg="yellow")
