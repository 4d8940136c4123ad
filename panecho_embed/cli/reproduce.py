"""`panecho-embed reproduce`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import click

from panecho_embed.cli.extract import announce
from panecho_embed.cli.options import LocalPath, overwrite_option
from panecho_embed.cli.printable import echo_line
from panecho_embed.core.provenance import Precision


def _named(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Weights files by model, of NAME=FILE."""
    found = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or not name or not path:
            raise click.BadParameter(f"{value!r} is not NAME=FILE, such as echoprime=echo_prime_encoder.pt")
        found[name] = Path(path)
    return found


@click.command()
@click.argument("dataset", required=False, type=click.Choice(["echonet-dynamic"]))
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="EchoNet-Dynamic's folder, with FileList.csv and Videos.",
)
@click.option(
    "-o",
    "--out",
    type=LocalPath(path_type=Path),
    default=Path("reproduction"),
    show_default=True,
    help="Folder for the embedding files and reproduction.json; with --self-check for self-check.json.",
)
@click.option(
    "--backbone",
    "models",
    multiple=True,
    metavar="NAME",
    help="Model to run; repeatable.  [default: panecho and echoprime; with --self-check all whose weights are here]",
)
@click.option(
    "--weights",
    multiple=True,
    callback=_named,
    metavar="NAME=FILE",
    help="Weights file of a model; repeatable.  [default: found or downloaded]",
)
@click.option(
    "--self-check",
    is_flag=True,
    help="Check the arithmetic of this machine instead: feeding, and every engine and precision against eager fp32.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="Arithmetic of the encoders.  [default: fp16 on a GPU, as published, and fp32 on a CPU]",
)
@click.option("--device", default="auto", show_default=True, help="Device to compute on: auto, cpu, cuda, cuda:1, mps.")
@click.option("--workers", type=int, help="Number of decoding processes.  [default: the number of cores]")
@overwrite_option
def reproduce(dataset: str | None, data: Path | None, self_check: bool, **options: Any) -> None:
    """Measure published figures again, with your copy of the data and the weights.

    Of EchoNet-Dynamic: ejection fraction by ridge regression on one clip's embedding, for PanEcho and EchoPrime. Prints
    a table beside the published figures and writes one JSON file without ids or paths. Resumable: run the same command
    again to continue. Exit code 3 if a model could not be run.
    """
    if self_check:
        if dataset or data:
            raise click.UsageError("--self-check takes no data set; leave out the name and --data")
        _self_check(**options)
        return
    if dataset is None or data is None:
        raise click.UsageError("name the data set and its folder (echonet-dynamic --data DIR), or --self-check")
    _reproduce(data, **options)


def _reproduce(data: Path, out: Path, models: tuple[str, ...], **options: Any) -> None:
    from panecho_embed.checkup.reproduce import FEEDING, FILE, SIZES, reproduce, table_of
    from panecho_embed.core.wording import aligned

    found = reproduce(data, out, models=models or tuple(FEEDING), progress=None, announce=announce, **options)
    click.echo(aligned(*table_of(found)))
    rows_by_videos: dict[tuple[str, str], list[str]] = {}
    for row in found.rows:
        shown = ", ".join(f"{row.sizes[split]} {split} (published {count})" for split, count in SIZES.items())
        rows_by_videos.setdefault((shown, row.incomparable), []).append(f"{row.model} {row.sampling}")
    for (shown, incomparable), names in rows_by_videos.items():
        of = "" if len(rows_by_videos) == 1 else f" of {', '.join(names)}"
        click.echo(f"videos{of}: {shown}")
        if incomparable:
            click.echo(f"Nothing{of} was reproduced: {incomparable}.")
    for note in found.notes:
        click.echo(note)
    for name, why in found.not_run.items():
        first, *more = why.splitlines()
        echo_line(f"{name} was not run: {first}", err=True)
        for line in more:
            echo_line(f"  {line}", err=True)
    echo_line(f"written: {out / FILE}")
    if found.not_run:
        raise click.exceptions.Exit(3)


def _self_check(
    out: Path, models: tuple[str, ...], weights: dict[str, Path], device: str, overwrite: bool, **unused: Any
) -> None:
    from panecho_embed.checkup.self_check import FILE, self_check
    from panecho_embed.core.wording import aligned

    if given := [name for name, value in unused.items() if value is not None]:
        raise click.UsageError(f"--{given[0]} has no use with --self-check, which tries every precision")
    found = self_check(out, models=models, weights=weights, device=device, overwrite=overwrite)
    click.echo(aligned(["", "compared with", "found", ""], [[c.what, c.against, c.found, c.status] for c in found]))
    count = Counter(check.status for check in found)
    if not any(check.kind == "engine" for check in found):
        click.echo("No model's weights are here: engines were not checked (--weights NAME=FILE, or --backbone random)")
    echo_line(
        f"{count['agrees']} agree, {count['DIFFERS']} differ, {count['FAILED']} failed, {count['not available']} not "
        f"available; written: {out / FILE}"
    )
    if count["DIFFERS"] or count["FAILED"]:
        raise click.exceptions.Exit(1)
