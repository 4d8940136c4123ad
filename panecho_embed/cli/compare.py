"""`panecho-embed compare`: which of several finished runs is better, and how sure that is."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from panecho_embed.cli.options import out_option, replace_option, stacked

if TYPE_CHECKING:
    from panecho_embed.evaluation.comparison import Comparison

# Whom each candidate is compared with, and which differences matter.
comparison_options = stacked(
    click.option(
        "--reference", metavar="NAME", help="Report differences to this candidate only.  [default: all pairs]"
    ),
    click.option(
        "--margin",
        default="",
        metavar="VALUE",
        help='Equivalence margin: smaller differences do not matter, such as "0.5", or with the unit '
        'of the metric "0.5 %".',
    ),
)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="[NAME=]RUN...")
@out_option("Folder of the comparison")
@click.option("--target", default="", help='Targets to compare, such as "EF,ESV".  [default: all that every run has]')
@click.option(
    "--level",
    type=click.Choice(["study", "video", "clip", "frame"]),
    help="What one prediction is for.  [default: the highest level that all runs have]",
)
@comparison_options
@click.option(
    "--draws", type=click.IntRange(min=1), default=10_000, show_default=True, help="Number of bootstrap samples."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for the bootstrap.")
@replace_option
def compare(
    runs: tuple[str, ...],
    out: Path,
    target: str,
    level: str | None,
    reference: str | None,
    margin: str,
    draws: int,
    seed: int,
    overwrite: bool,
) -> None:
    """Compare finished runs on the same test patients.

    RUN is the folder of a `probe`, `finetune` or `predict` run, or a table of predictions (docs/statistics.md describes
    its columns). Several runs of one NAME are trainings of one model: panecho=seed-0 panecho=seed-1.
    """
    from panecho_embed.evaluation.compare_runs import compare as run

    found = run(
        [_named(one) for one in runs],
        out,
        target=target,
        level=level,
        reference=reference,
        margin=margin,
        draws=draws,
        seed=seed,
        overwrite=overwrite,
        command=shlex.join(["panecho-embed", *sys.argv[1:]]),
    )
    print_comparisons(found.comparisons, reference)
    for line in found.fed:
        click.echo(line)
    refused = found.refused
    for name, why in refused.items():
        click.echo(f"\n{name} was not compared: {why}", err=True)
    click.echo(f"\nwritten: {out}, open {out / 'report.html'}")
    if refused:
        raise click.exceptions.Exit(3)


def print_comparisons(comparisons: Sequence[Comparison], reference: str | None = None) -> None:
    """The verdicts and tables of every target; of many the overview, and the rest is in the report."""
    from panecho_embed.core.wording import aligned
    from panecho_embed.evaluation.comparison_report import (
        LONG,
        comparison_cautions,
        contrast_rows,
        overview_rows,
        score_rows,
        verdict_text,
    )
    from panecho_embed.evaluation.report import FEW_TARGETS

    many = len(comparisons) > FEW_TARGETS
    if many:
        click.echo("\n" + aligned(*overview_rows(comparisons)))
    for comparison in comparisons:
        if many and comparison.standings:
            continue
        click.echo(f"\n{verdict_text(comparison, reference)}\n")
        click.echo(aligned(*score_rows(comparison)))
        if comparison.n_left_out:
            click.echo(f"{comparison.n_left_out} test rows that not every run has were left out")
        if comparison.contrasts:
            columns, rows = contrast_rows(comparison)
            click.echo("\n" + aligned(columns, rows[:LONG]))
            if len(rows) > LONG:
                click.echo(f"and {len(rows) - LONG} more in differences.csv and the report")
    for note in comparison_cautions(comparisons) if not many else ():
        click.echo(note)
    if many:
        click.echo("\nthe other targets' intervals and differences are in the report")


def _named(run: str) -> tuple[str, str]:
    """Name and path of "NAME=PATH"; a path that is there may hold "=" itself."""
    name, separator, path = run.partition("=")
    return ("", run) if not separator or Path(run).exists() else (name, path)
