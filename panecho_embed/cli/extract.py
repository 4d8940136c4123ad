"""`panecho-embed extract`: the main job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from panecho_embed.cli.options import (
    Place,
    clip_options,
    clips_taken,
    encoding_options,
    input_options,
    model_options,
    out_option,
    overwrite_option,
    plan_option,
)
from panecho_embed.cli.printable import echo_line
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.provenance import StoredType
from panecho_embed.core.records import Engine, Failure
from panecho_embed.core.remote import file_name
from panecho_embed.core.shards import Shard

if TYPE_CHECKING:
    from panecho_embed.extraction.profile import Profile
    from panecho_embed.extraction.summary import ExtractSummary

_LISTED = 10


class ShardType(click.ParamType[Shard]):
    """3/8 -> Shard(3, 8)."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        """See click.ParamType."""
        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("source", metavar="INPUT", type=Place())
@out_option("Embedding file to write (HDF5); with --plan a folder for such files", Place())
@click.option(
    "--backbone",
    default="panecho",
    show_default=True,
    help="Backbone: panecho, panecho-image, imagenet, echoclip, echoprime, kinetics, random, "
    "timm:NAME, torchvision:NAME (video models), or a registered one.",
)
@model_options
@click.option(
    "--level",
    type=click.Choice(["clip", "frame"]),
    default="clip",
    show_default=True,
    help="Level of the stored rows: one per clip or one per frame.",
)
@clip_options
@plan_option
@click.option(
    "--dtype",
    type=click.Choice(get_args(StoredType)),
    default="float32",
    show_default=True,
    help="Data type of the stored embeddings.",
)
@encoding_options
@click.option(
    "--profile", "profiled", is_flag=True, help="Print where the time was spent, and draw it into OUT.profile.png."
)
@input_options
@click.option(
    "--shard",
    type=ShardType(),
    help="Embed the i-th of n shares of the videos, for a job array; `merge` merges the shares.",
)
@click.option(
    "--engine",
    type=click.Choice(get_args(Engine)),
    default="local",
    show_default=True,
    help="Where to run: local (this machine) or ray (a Ray cluster; needs pip install 'panecho-embed[ray]').",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="Address of the Ray cluster's head, or auto.  [default: $RAY_ADDRESS; else a cluster on this machine only]",
)
@overwrite_option
@click.pass_context
def extract(
    ctx: click.Context, /, source: Path | str, out: Path | str, profiled: bool, plans: Any, **options: Any
) -> None:
    """Turn echo videos into an embedding file, or into one file per clip plan (--plan).

    INPUT is a folder (DICOM is recognised by content), one video, a table with a column `path`, or a public data set as
    downloaded (docs/datasets.md). INPUT and OUT may be URLs, s3://bucket/echos or gs:// (extras [s3], [gcs]).
    Resumable: run the same command again to continue.
    """
    from panecho_embed.extraction.profile import Profile
    from panecho_embed.extraction.run import extract as run

    profile = Profile()
    if profiled and options["engine"] != "local":
        raise ArgumentError("--profile measures the local engine; leave it out with --engine ray")
    plan = clips_taken(options) or None
    if len(dict(plans)) < len(plans):
        raise ArgumentError("two plans are the same (--plan)")
    try:
        summary = run(
            source,
            out,
            clips=plan,
            plans=dict(plans) or None,
            progress=None,
            profile=profile,
            announce=announce,
            **options,
        )
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; what was done is kept, the same command goes on from there") from None
    print_summary(summary)
    if profiled:
        here = Path(file_name(out)) if isinstance(out, str) else out
        _print_profile(profile, here.with_name(f"{here.name}.profile.png"))
    ctx.exit(summary.exit_code)


def announce(message: str) -> None:
    """Say something that is no result, on standard error."""
    click.echo(message, err=True)


def _print_profile(profile: Profile, picture: Path) -> None:
    from panecho_embed.extraction.profile import draw_timeline

    click.echo(profile.table())
    draw_timeline(profile, picture)
    click.echo(f"timeline in {picture}")


def print_summary(summary: ExtractSummary) -> None:
    """Say what was done, what failed, and where the result lies."""
    for note in summary.notes:
        echo_line(f"note: {note}")
    if summary.files:
        _print_files(summary)
        return
    echo_line(
        f"{summary.done} of {summary.videos} videos done"
        + (f", {summary.reused} of them before" if summary.reused else "")
    )
    if summary.shard is None:
        print_failures(summary.skipped, summary.failed, f"panecho-embed info {summary.out} --failures")
        echo_line(f"{summary.rows} rows in {summary.out} after {summary.seconds:.1f} s")
        return
    merge = f"panecho-embed merge {summary.out}"
    print_failures(summary.skipped, summary.failed, f"{merge}, then info --failures")
    echo_line(f"{summary.rows} rows of shard {summary.shard} after {summary.seconds:.1f} s")
    echo_line(f"when all {summary.shard.count} shards have ended: {merge}")


def _print_files(summary: ExtractSummary) -> None:
    """A line per plan; what failed under every plan once, what failed under some with the plan's name."""
    everywhere = set.intersection(*(set(_lacking(one)) for one in summary.files.values()))
    common = {id(f): f for one in summary.files.values() for f in _lacking(one) if f in everywhere}
    of_all = {(f.video_id, f.message): f for f in common.values()}.values()
    skipped = [f for f in of_all if f.stage == "skipped"]
    merge = "" if summary.shard is None else "after merge: "
    print_failures(skipped, [f for f in of_all if f.stage != "skipped"], f"{merge}panecho-embed info FILE --failures")
    for name, one in summary.files.items():
        done = f"{one.done} of {one.videos} videos done" + (f", {one.reused} of them before" if one.reused else "")
        echo_line(f"{name}: {done}, {one.rows} rows in {one.out}")
        own = [failure for failure in _lacking(one) if failure not in everywhere]
        for failure in own[:_LISTED]:
            echo_line(f"  {failure.video_id}: {failure.message} [{failure.stage}]")
        if len(own) > _LISTED:
            echo_line(f"  and {len(own) - _LISTED} more: {merge}panecho-embed info {one.out} --failures")
        if one.shard is not None:
            echo_line(f"  when all {one.shard.count} shards have ended: panecho-embed merge {one.out}")
    echo_line(f"{summary.seconds:.1f} s in all")


def _lacking(summary: ExtractSummary) -> list[Failure]:
    return [*summary.skipped, *summary.failed]


def print_failures(skipped: Sequence[Failure], failed: Sequence[Failure], where_all: str) -> None:
    """List the first inputs that gave no rows, and say where all of them stand."""
    for title, failures in (("skipped, no cine loop", skipped), ("failed", failed)):
        if failures:
            echo_line(f"{len(failures)} {title}:")
        for failure in failures[:_LISTED]:
            echo_line(f"  {failure.video_id}: {failure.message}" + (f" [{failure.stage}]" if title == "failed" else ""))
        if len(failures) > _LISTED:
            echo_line(f"  and {len(failures) - _LISTED} more: {where_all}")
