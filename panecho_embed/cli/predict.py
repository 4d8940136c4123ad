"""`panecho-embed predict`: the reporting tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from panecho_embed.cli.extract import announce, print_failures
from panecho_embed.cli.options import (
    Place,
    clip_options,
    clips_taken,
    encoding_options,
    existing_file,
    input_options,
    model_options,
    out_option,
    reading_options,
    threshold_option,
)
from panecho_embed.cli.printable import echo_line

if TYPE_CHECKING:
    from panecho_embed.prediction.run import PredictSummary

_OWN = ("backbone", "weights", "seed", "device", "tasks", "task_table", "sheets", "threshold", "overwrite")


@click.command()
@click.argument("source", metavar="INPUT", type=Place())
@out_option("Folder to write")
@click.option(
    "--tasks", help="Tasks to predict, separated by commas.  [default: all tasks that the weights have heads for]"
)
@click.option(
    "--backbone",
    type=click.Choice(["panecho", "random"]),
    default="panecho",
    show_default=True,
    help="Model to predict with; random is for trying things out, and its predictions mean nothing.",
)
@model_options
@click.option(
    "--task-table",
    type=existing_file,
    help="Table of the weights' own tasks, in the form of tasks.csv.  [default: tasks.csv beside --weights, else "
    "PanEcho's]",
)
@reading_options
@threshold_option
@click.option(
    "--sheets/--no-sheets", default=True, show_default=True, help="Write one page per study, with its videos."
)
@clip_options
@encoding_options
@input_options
@click.option("--overwrite", is_flag=True, help="Start over and discard the embeddings in the folder.")
@click.pass_context
def predict(ctx: click.Context, /, source: Path | str, out: Path, **options: Any) -> None:
    """Predict reporting tasks per clip, video and study.

    INPUT is what `extract` takes, or an embedding file of clips that the same weights made: then only the heads run.
    Writes studies.csv, videos.csv, clips.csv, predictions.json, report.html, a page a study, and
    metrics.json where the input has labels of the tasks' names. For research only.
    """
    from panecho_embed.datasets import check_source
    from panecho_embed.evaluation.targets import Reading
    from panecho_embed.prediction.files import check_folder

    # Before torch is loaded.
    check_source(source)
    check_folder(out, options["overwrite"])
    from panecho_embed.prediction.run import predict as run

    own = {name: options.pop(name) for name in _OWN}
    own["tasks"] = "all" if own["tasks"] is None else [name.strip() for name in own["tasks"].split(",")]
    own["reading"] = Reading.parse(options.pop("task"), options.pop("positive"), options.pop("order"))
    plan = clips_taken(options) or None
    # What was not asked for is left to `extract`, so that an embedding file can refuse what is not about it.
    asked = {n: v for n, v in options.items() if ctx.get_parameter_source(n) is not ParameterSource.DEFAULT}
    # The salt may be in the environment.
    asked["id_salt"] = options["id_salt"]
    try:
        summary = run(source, out, clips=plan, progress=None, announce=announce, **own, **asked)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; what was done is kept, the same command goes on from there") from None
    _print_summary(summary)
    ctx.exit(summary.exit_code)


def _print_summary(summary: PredictSummary) -> None:
    from panecho_embed.core.wording import aligned, counted
    from panecho_embed.prediction.agreement import agreement_tables
    from panecho_embed.prediction.files import DISCLAIMER, RANDOM

    for note in summary.notes:
        echo_line(f"note: {note}")
    print_failures(summary.skipped, summary.failed, str(summary.out / "predictions.json"))
    predictions = summary.predictions
    tasks = len(dict.fromkeys(output.task for output in predictions.outputs))
    click.echo(
        f"{counted(tasks, 'task')} of {counted(len(predictions.studies), 'study')}, "
        f"{counted(len(predictions.videos), 'video')}, {counted(len(predictions.clips), 'clip')} "
        f"after {summary.seconds:.1f} s"
    )
    for one in summary.agreements:
        if one.problem:
            click.echo(f"note: not compared with labels: {one.problem}")
    for columns, rows in agreement_tables(summary.agreements):
        click.echo(aligned(columns, rows))
    click.echo(f"{summary.out / 'report.html'}; tables beside it")
    if summary.random_weights:
        click.secho(RANDOM, fg="yellow")
    click.echo(DISCLAIMER)
