"""`panecho-embed benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import click

from panecho_embed.cli.extract import ShardType, announce
from panecho_embed.cli.options import out_option
from panecho_embed.cli.printable import echo_line
from panecho_embed.core.provenance import Precision


def _named(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Paths by name, of NAME=PATH."""
    found: dict[str, Path] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or not name or not path:
            raise click.BadParameter(f"{value!r} is not {param.metavar}")
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = Path(path)
    return found


@click.command()
@click.argument("suite", required=False)
@out_option("Folder for embeddings, benchmark.json and report.html")
@click.option(
    "--data",
    multiple=True,
    callback=_named,
    metavar="NAME=FOLDER",
    help="A data set of the suite, and its folder as downloaded; repeatable. Tasks of other sets are left out.",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="Backbone to benchmark, instead of those of the suite; repeatable.",
)
@click.option(
    "--weights",
    multiple=True,
    callback=_named,
    metavar="NAME=FILE",
    help="Weights file of a backbone; repeatable.  [default: as for `extract`]",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="Arithmetic of the encoders.",
)
@click.option("--device", default="auto", show_default=True, help="Device to compute on: auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Number of decoding processes.  [default: as for `extract`]"
)
@click.option(
    "--shard",
    type=ShardType(),
    help="Extract the i-th of n shares of the videos only; run the command without it when all shards have ended.",
)
@click.option(
    "--merge",
    "merged",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="JSON",
    help="Make one report of several benchmark.json of the same suite, in place of a run; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier result in DIR (--merge).")
def benchmark(
    suite: str | None,
    out: Path,
    data: Mapping[str, Path],
    merged: tuple[Path, ...],
    overwrite: bool,
    precision: str,
    **options: Any,
) -> None:
    """Run all tasks of SUITE: extract, probe, compare, and write one report.

    SUITE is cardiobench, ef, or a TOML file (docs/benchmark.md). Backbones see each video of a data set once, for all
    samplings. Resumable: run the same command again to continue. Exit code 3 if a data set, weights or a task was
    missing; the report says which and why.
    """
    if merged:
        if suite or data or any(options[name] for name in ("backbones", "weights", "shard")):
            raise click.UsageError("--merge takes results only, and -o; leave out the suite and its options")
        from probes.benchmarks.run import merge_benchmarks

        found = merge_benchmarks(merged, out, overwrite=overwrite)
    else:
        if suite is None:
            raise click.UsageError("name a SUITE (cardiobench, ef, or a file.toml), or results to --merge")
        if overwrite:
            raise click.UsageError("--overwrite is for --merge; a run continues what is in its folder")
        from probes.benchmarks.run import benchmark as run

        try:
            made = run(
                suite, data, out, precision=cast(Precision, precision), progress=None, announce=announce, **options
            )
        except KeyboardInterrupt:
            raise click.ClickException("interrupted; run the same command again to continue") from None
        if made is None:
            click.echo(f"shard {options['shard']} is done; run the command without --shard when all have ended")
            return
        found = made
    _print(found.document)
    echo_line(f"written: {out}, open {out / 'report.html'}")
    if found.missing and not merged:
        raise click.exceptions.Exit(3)


def _print(document: Mapping[str, Any]) -> None:
    from panecho_embed.core.wording import aligned, number
    from panecho_embed.evaluation.metrics import display_name

    for task in document["tasks"]:
        metric = task["metric"]
        echo_line(f"\n{task['name']}: {task['n']} tested, of {task['n_patients']} patients")
        rows = []
        for name, one in task["candidates"].items():
            value, low, high = (float("nan") if x is None else x for x in one["scores"][metric])
            rows.append([name, number(value), f"{number(low)} to {number(high)}"])
        for line in aligned(["", display_name(metric, task["unit"]), "95 % interval"], rows).splitlines():
            echo_line(line)
    click.echo("")
    for one in document["missing"]:
        echo_line(f"missing: {one['what']}: {one['why']}", err=True)
