"""`panecho-embed compare`: which starting point is better, and how sure is that."""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.extract import announce
from panecho_embed.cli.options import Place, out_option

if TYPE_CHECKING:
    from panecho_embed.comparison.result import ComparisonResult


def _names(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _numbers(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(piece) for piece in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 0.1,1") from error


def _files(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    files = {}
    for value in values:
        name, separator, file = value.partition("=")
        if not separator or not Path(file).is_file():
            raise click.BadParameter(f"{value!r} is no START=FILE with a file that is there")
        files[name] = Path(file)
    return files


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "--inits",
    default="panecho,random,imagenet,echoclip,kinetics",
    show_default=True,
    callback=_names,
    metavar="START,...",
    help="Starting points to compare.",
)
@click.option("--data", required=True, type=Place(), help="Data set as downloaded, or a table.")
@out_option("Folder of the comparison; each run gets a folder below it")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each start.")
@click.option("--reference", metavar="START", help="What the differences are to.  [default: the first start]")
@click.option(
    "--fractions",
    default="1",
    show_default=True,
    callback=_numbers,
    metavar="0.1,1",
    help="Parts of the training patients to train on.",
)
@click.option("--frozen", is_flag=True, help="Add a linear probe on each untrained start, on the same patients.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe, any number of times."
)
@click.option(
    "--weights",
    multiple=True,
    callback=_files,
    metavar="START=FILE",
    help="Weights file of a start.  [default: where `finetune` finds them]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
@click.option("--workers", type=click.IntRange(min=0), help="Decoding processes, as in finetune and extract.")
@click.option("--strict", is_flag=True, help="Stop at a start whose weights can't be had, or a run that fails.")
@click.option("--allow-leakage", is_flag=True, help="Let a patient be in training and in validation or test.")
@click.pass_context
def compare(
    ctx: click.Context, /, recipe: str, inits: tuple[str, ...], data: Path | str, out: Path, **options: Any
) -> None:
    """Fine-tune several starting points and compare them on the same test patients.

    Runs what is missing, goes on with what was begun, reuses what is done. Ends with a table, report.html, and exit
    code 3 if a start or a run could not be had. docs/finetuning.md says how the figures are come by.
    """
    from panecho_embed.comparison.run import compare as run
    from panecho_embed.finetune.processes import leave_processes

    options["frozen"] = _linear_probe() if options["frozen"] else None
    command = shlex.join(["panecho-embed", *sys.argv[1:]])
    try:
        result = run(recipe, inits, data, out, progress=None, announce=announce, command=command, **options)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from there") from None
    finally:
        leave_processes()
    if result is not None:
        print_result(result)
        ctx.exit(result.exit_code)


def print_result(result: ComparisonResult) -> None:
    """The tables of every target, of many the means, what could not be had, and where everything lies."""
    from panecho_embed.comparison import tables
    from panecho_embed.wording import counted

    largest = max(result.fractions)
    many = len(result.comparisons) > tables.FEW
    if many:
        click.echo("\n" + tables.aligned(*tables.overview_rows(result.comparisons, largest)))
    for comparison in result.comparisons:
        if many and not comparison.over_targets:
            continue
        click.echo(f"\n{tables.verdict(comparison, largest, result.reference)}\n")
        click.echo(tables.aligned(*tables.score_rows(comparison, largest)))
        if comparison.contrasts:
            click.echo("\n" + tables.aligned(*tables.contrast_rows(comparison, largest)))
        if len(result.fractions) > 1:
            click.echo("\nby fraction of the training patients:")
            click.echo(tables.aligned(*tables.efficiency_rows(comparison, result.fractions)))
    if many:
        click.echo("\nthe other targets' intervals and differences are in the report")
    click.echo(f"\n{counted(result.trained, 'run')} trained, {result.reused} reused")
    for problem in result.problems:
        click.echo(f"not had: {problem.name}: {problem.message}")
    click.echo(f"written: {result.folder}, open {result.folder / 'report.html'}")


def _linear_probe() -> Any:
    found = list(entry_points(group="panecho_embed.frozen_probes", name="linear"))
    if not found:
        raise click.UsageError("--frozen needs the linear probe of this package; install it again (pip install .)")
    return found[0].load()
