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
    help="Starting point: panecho, random, imagenet, echoclip, kinetics, echoprime, panecho-image,"
    " timm:NAME, or a registered backbone.",
)
@click.option("--data", required=True, type=Place(), help="Data set as downloaded, or a table.")
@out_option("Run folder to write")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable."
)
@click.option(
    "--weights", type=existing_file, help="Weights file.  [default: $PANECHO_EMBED_WEIGHTS, the cache, or a download]"
)
@click.option("--fold", type=int, help="Run only this fold of a cross-validation.")
@click.option("--device", default="auto", show_default=True, help="Device to compute on: auto, cpu, cuda, mps.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Number of decoding processes per training process.  [default: its share of the cores with a GPU, else 0]",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Minutes between checkpoints; one is written after every epoch too.",
)
@click.option("--strict", is_flag=True, help="Stop at a row without a file, a file without a row, or a broken video.")
@click.option("--allow-leakage", is_flag=True, help="Accept a patient in training and in validation or test.")
@click.option("--overwrite", is_flag=True, help="Start over and discard the run in the output folder.")
@click.pass_context
def finetune(ctx: click.Context, /, recipe: str, data: Path | str, out: Path, **options: Any) -> None:
    """Fine-tune a starting point on a data set.

    RECIPE is one that `panecho-embed recipes list` names, or your own file. Resumable: run the same command again
    to continue. On several GPUs: torchrun --nproc-per-node=8 -m panecho_embed finetune RECIPE ...
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
