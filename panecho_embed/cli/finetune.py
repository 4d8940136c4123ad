"""`panecho-embed finetune`: train a starting point on a task."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.extract import announce, print_failures
from panecho_embed.cli.options import Place, existing_file, out_option

if TYPE_CHECKING:
    from panecho_embed.finetuning.run import FinetuneSummary


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "--init",
    default="panecho",
    show_default=True,
    help="panecho, random, imagenet, echoclip, kinetics, echoprime, panecho-image, timm:NAME, or a registered one.",
)
@click.option("--data", required=True, type=Place(), help="Data set as downloaded, or a table.")
@out_option("Run folder to write")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe, any number of times."
)
@click.option(
    "--weights", type=existing_file, help="Weights file. Default: $PANECHO_EMBED_WEIGHTS, the cache, a download."
)
@click.option("--fold", type=int, help="Of a cross-validation, this fold alone.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Decoding processes of each training process.  [default: its share of the cores beside a GPU, else none]",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Write a checkpoint so often, besides after every epoch.",
)
@click.option("--strict", is_flag=True, help="Stop at a row without its file, a file without its row, a broken video.")
@click.option("--allow-leakage", is_flag=True, help="Let a patient be in training and in validation or test.")
@click.option("--overwrite", is_flag=True, help="Begin anew: discard the run that stands at the output.")
@click.pass_context
def finetune(ctx: click.Context, /, recipe: str, data: Path | str, out: Path, **options: Any) -> None:
    """Fine-tune a starting point on a data set.

    RECIPE is one that `panecho-embed recipes list` names, or a file of your own. Stopped at any moment and run again,
    it goes on where it was. On several GPUs: torchrun --nproc-per-node=8 -m panecho_embed finetune RECIPE ...
    docs/finetuning.md says what a run folder holds.
    """
    from panecho_embed.datasets import check_source
    from panecho_embed.finetuning.recipe_files import load_recipe

    # Before torch is loaded.
    chosen = load_recipe(recipe, options.pop("settings"))
    check_source(data)
    from panecho_embed.finetuning.processes import leave_processes
    from panecho_embed.finetuning.run import finetune as run

    command = shlex.join(["panecho-embed", *sys.argv[1:]])
    try:
        summary = run(chosen, data, out, progress=None, announce=announce, command=command, **options)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from the last checkpoint") from None
    finally:
        leave_processes()
    # Under torchrun, one process speaks for all.
    if os.environ.get("RANK", "0") == "0":
        _print_summary(summary)
    # torchrun knows no third way: it would call a finished run a crash, and may start it again.
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    ctx.exit(0 if several else summary.exit_code)


def _print_summary(summary: FinetuneSummary) -> None:
    """Say what the test patients say, what failed, and where the result lies."""
    print_failures([], summary.failures, str(summary.out / "failures.csv"))
    if not summary.unfinished:
        _print_scores(summary.out)
        return
    for number in summary.folds:
        click.echo(f"fold {number} alone:")
        _print_scores(summary.out / f"fold-{number}")
    missing = ", ".join(map(str, summary.unfinished))
    click.echo(f"folds still to be run: {missing}; the same command without --fold runs them")


def _print_scores(run: Path) -> None:
    """The main metrics of a run folder that is done, and where its report lies."""
    from panecho_embed.evaluation.report import short_scores
    from panecho_embed.evaluation.scores import caution_of
    from panecho_embed.finetuning.outcome import read_outcome

    outcome = read_outcome(run)
    for one in outcome.scored():
        click.echo(f"{one.target.title}: {short_scores(one)}")
        if caution := caution_of(one.few):
            click.echo(caution)
    for name, why in outcome.not_scored().items():
        click.echo(f"{name} was not evaluated: {why}")
    click.echo(f"results in {run}, report: {run / 'report.html'}")
