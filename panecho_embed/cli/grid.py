"""`panecho-embed grid`: fine-tune several starting points with several seeds, and compare them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.compare import comparison_options, print_comparisons
from panecho_embed.cli.extract import announce
from panecho_embed.cli.options import Place, names, out_option

if TYPE_CHECKING:
    from panecho_embed.finetuning.grid import Grid


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
    callback=names,
    metavar="START,...",
    help="Starting points to compare.",
)
@click.option("--data", required=True, type=Place(), help="Data set as downloaded, or a table.")
@out_option("Folder of the grid; each run gets a folder below it")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Number of runs per starting point."
)
@comparison_options
@click.option(
    "--fractions",
    default="1",
    show_default=True,
    callback=_numbers,
    metavar="0.1,1",
    help="Fractions of the training patients to train on.",
)
@click.option(
    "--frozen", is_flag=True, help="Also train a linear probe on each untrained starting point, on the same patients."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable."
)
@click.option(
    "--weights",
    multiple=True,
    callback=_files,
    metavar="START=FILE",
    help="Weights file of a starting point; repeatable.  [default: found as by `finetune`]",
)
@click.option("--device", default="auto", show_default=True, help="Device to compute on: auto, cpu, cuda, mps.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Number of decoding processes, as in `finetune` and `extract`."
)
@click.option(
    "--strict", is_flag=True, help="Stop at a starting point whose weights are unavailable, or at a run that fails."
)
@click.option("--allow-leakage", is_flag=True, help="Accept a patient in training and in validation or test.")
@click.pass_context
def grid(
    ctx: click.Context, /, recipe: str, inits: tuple[str, ...], data: Path | str, out: Path, **options: Any
) -> None:
    """Fine-tune several starting points and compare them on the same test patients.

    Trains what is missing, resumes interrupted runs, reuses finished ones. Differences are to the first start unless
    --reference names another. Exit code 3 if a starting point was unavailable or a run failed. docs/finetuning.md
    explains the figures; finished runs of any kind are compared by `panecho-embed compare`.
    """
    from panecho_embed.datasets import check_source
    from panecho_embed.finetuning.recipe_files import load_recipe

    # Before torch is loaded.
    chosen = load_recipe(recipe, options.pop("settings"))
    check_source(data)
    from panecho_embed.finetuning.grid_report import grid as run
    from panecho_embed.finetuning.processes import leave_processes

    command = shlex.join(["panecho-embed", *sys.argv[1:]])
    try:
        result = run(chosen, inits, data, out, progress=None, announce=announce, command=command, **options)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; run the same command again to resume") from None
    finally:
        leave_processes()
    if result is not None:
        _print_grid(result)
        ctx.exit(result.exit_code)


def _print_grid(grid: Grid) -> None:
    """The tables at the largest fraction, label efficiency, what was unavailable, and where everything is."""
    from panecho_embed.core.wording import aligned, counted
    from panecho_embed.finetuning.grid_report import efficiency_rows

    largest = grid.fractions[0]
    print_comparisons(grid.comparisons[largest], grid.reference)
    for comparison in grid.comparisons[largest] if len(grid.fractions) > 1 else ():
        if comparison.standings:
            click.echo(f"\n{comparison.name} by fraction of the training patients:")
            click.echo(aligned(*efficiency_rows(grid, comparison.name)))
    click.echo(f"\n{counted(grid.trained, 'run')} trained, {grid.reused} reused")
    for name, why in grid.problems.items():
        click.echo(f"unavailable: {name}: {why}")
    click.echo(f"written: {grid.folder}, open {grid.folder / 'report.html'}")
