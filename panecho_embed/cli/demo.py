"""`panecho-embed demo`: from nothing to an answer, by the commands that a user would type."""

from __future__ import annotations

import importlib.util
import shlex
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from panecho_embed.retrieval.collection import Collection
    from panecho_embed.retrieval.demo_page import NextCommand

# More than a second, which holds a whole heartbeat; 15 frames per second are what its moving pictures show.
_PHANTOMS = ["--layout", "echonet-dynamic", "--frames", 18, "--fps", 15]
# Mean and spread over the frames hold the motion.
_PROBE = ["--target", "EF", "--pooling", "mean+std", "--folds", 5]


@click.command()
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder to write."
)
@click.option(
    "--patients", type=click.IntRange(min=10), default=60, show_default=True, help="Number of synthetic patients."
)
@click.pass_context
def demo(ctx: click.Context, out: Path, patients: int) -> None:
    """Make synthetic studies, embed them, predict their ejection fraction, and write one page of all of it.

    Uses PanEcho's weights if they are on this computer. The demo never downloads: without them it uses random weights
    and says so. The last line printed is the path of the page.
    """
    from panecho_embed.cli.next_step import offline_backbone

    began = time.monotonic()
    group = ctx.find_root().command
    backbone = offline_backbone()
    studies = out / f"{patients}-patients"
    embeddings, run = out / f"{patients}-patients-{backbone}.h5", out / f"{patients}-patients-{backbone}-probe"
    click.echo(f"Four steps, about {max(20, patients)} s on two CPU cores; nothing is downloaded.")
    if backbone == "random":
        click.secho(
            "PanEcho's weights are not on this computer: the demo uses RANDOM WEIGHTS, which show how the tools work,\n"
            "not how well the model does. `panecho-embed weights fetch panecho` downloads the weights.",
            fg="yellow",
        )
    steps = [
        ["phantom", studies, "--patients", patients, *_PHANTOMS],
        ["extract", studies, "-o", embeddings, "--backbone", backbone, "--level", "frame", "--image-size", 112],
        ["probe", "linear", embeddings, *_PROBE, "-o", run, "--overwrite"],
    ]
    out.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(steps, start=1):
        words = [str(word) for word in step]
        click.secho(f"\n[{number}/4, {time.monotonic() - began:.0f} s] panecho-embed {shlex.join(words)}", bold=True)
        if code := group.main(words, prog_name="panecho-embed", standalone_mode=False):
            ctx.exit(code)
    click.secho(f"\n[4/4, {time.monotonic() - began:.0f} s] page", bold=True)
    page = _write_page(out, embeddings, run, began)
    click.echo(f"Done in {time.monotonic() - began:.0f} s. Open this page in a browser; it works offline:")
    click.echo(page)


def _write_page(out: Path, embeddings: Path, run: Path, began: float) -> Path:
    from panecho_embed.core.progress import shown_progress
    from panecho_embed.retrieval import Collection
    from panecho_embed.retrieval.demo_page import write_demo_page

    collection = Collection(embeddings)
    commands = _next_commands(collection, out, embeddings, run)
    click.echo("next:")
    for one in commands:
        click.echo(f"  {one.command}")
    with shown_progress("video") as show:
        return write_demo_page(
            collection,
            run,
            out / "demo.html",
            target="EF",
            seconds=time.monotonic() - began,
            commands=commands,
            progress=show,
        )


def _next_commands(collection: Collection, out: Path, embeddings: Path, run: Path) -> list[NextCommand]:
    """Three commands that work as printed: offline, and with what is installed."""
    from panecho_embed.cli.next_step import next_step
    from panecho_embed.retrieval.demo_page import NextCommand

    command = partial(next_step, anywhere=True)
    study = str(collection.studies.ids[0])
    similar = out / "similar.html"
    commands = [
        NextCommand(
            command("probe", "knn", embeddings, *_PROBE, "-o", run.with_name(f"{run.name}-knn"), "--overwrite"),
            "Predict the same number by nearest neighbours instead of a linear probe.",
        ),
        NextCommand(
            command("search", embeddings, "--study", study, "-k", 5, "--html", similar, "--overwrite"),
            "Find the studies most similar to one of them, with moving pictures.",
        ),
    ]
    if all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")):
        commands.append(NextCommand(command("serve", embeddings), "Look at all studies in the browser."))
    else:
        commands.append(NextCommand(command("info", embeddings), "See what the embedding file holds."))
    return commands
