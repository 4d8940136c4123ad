"""`panecho-embed phantom`: synthetic studies to try everything out on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

# Named here too, so that --help needs no image library.
_LAYOUTS = ("echonet-dynamic", "echonet-pediatric", "echonet-lvh", "mimic-iv-echo", "dicom", "folders")


def _size(_context: click.Context, _option: click.Parameter, value: str | None) -> int | tuple[int, int] | None:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise click.BadParameter(f"{value!r} is neither a side (112) nor height x width (600x800)")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


@click.command()
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(_LAYOUTS),
    default="echonet-dynamic",
    show_default=True,
    help="Data set or format to imitate.",
)
@click.option("--patients", type=int, default=60, show_default=True, help="Number of patients, one study each.")
@click.option(
    "--videos-per-study",
    type=int,
    help="Videos per study (mimic-iv-echo, dicom and folders only).  [default: one per view: A4C, A2C, PLAX, PSAX]",
)
@click.option("--frames", "num_frames", type=int, default=64, show_default=True, help="Number of frames per video.")
@click.option("--fps", type=float, help="Frames per second.  [default: 30, 40 or 50, varying by patient]")
@click.option(
    "--size", metavar="N|HxW", callback=_size, help="Frame size in pixels.  [default: 600x800 for DICOM, else 112]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the patients.")
def phantom(out: Path, layout: str, patients: int, **options: Any) -> None:
    """Write synthetic echo studies with a known ejection fraction into the folder OUT.

    The videos show beating hearts with speckle in a sector and contain no patient's data. The same options give the
    same files, byte for byte.
    """
    from panecho_embed.cli.next_step import next_step, offline_backbone
    from panecho_embed.core.progress import shown_progress
    from panecho_embed.core.wording import counted
    from panecho_embed.phantoms import extract_input, write_studies

    with shown_progress("video", leave=True) as show:
        videos = write_studies(out, layout, patients, progress=show, **options)
    click.echo(f"{counted(len(videos), 'video')} of {counted(patients, 'synthetic patient')} ({layout}) in {out}")
    if layout == "dicom":
        click.echo(f"labels, for --labels of `probe` and `audit`: {out / 'labels.csv'}")
    if layout == "mimic-iv-echo":
        tables = out.with_name(f"{out.name}-tables")
        click.echo(f"labels: {next_step('mimic', out, '--hosp', out / 'hosp', '-o', tables)}")
    source, file = extract_input(out, layout), out.with_name(f"{out.name}.h5")
    # What works without the network: random weights where PanEcho's are not on this computer.
    backbone = offline_backbone()
    chosen = () if backbone == "panecho" else ("--backbone", backbone)
    click.echo(f"next: {next_step('extract', source, '-o', file, *chosen)}")
    if chosen:
        click.echo(
            "note: --backbone random shows how the tools work; leave it out to use PanEcho, whose weights it fetches"
        )
