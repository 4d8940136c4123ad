"""`panecho-embed mimic`: MIMIC-IV-ECHO made ready for `extract` and `probe`."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.options import existing_file, out_option
from panecho_embed.cli.printable import echo_line

if TYPE_CHECKING:
    from panecho_embed.datasets.mimic_prepare import Prepared

# Named here too, so that --help needs no pandas.
_RULES = ("measured", "reported", "teichholz")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_LISTED = 5


def _two_columns(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    file, comma, view = (part.strip() for part in value.partition(","))
    if not (file and comma and view):
        raise click.BadParameter(f"{value!r} is not FILE,VIEW: the names of two columns")
    return file, view


@click.command()
@click.argument("source", metavar="SET", type=_FOLDER)
@out_option("Folder for the tables")
@click.option(
    "--lvef",
    type=click.Choice(_RULES),
    default="measured",
    show_default=True,
    help="Rule for the label lvef. measured: biplane, else 3-D, else the middle of the reported bounds; reported: the "
    "reported value, a lower bound where there are two; teichholz: from the diameters.",
)
@click.option(
    "--window",
    "window_days",
    type=float,
    default=2.0,
    show_default=True,
    metavar="DAYS",
    help="Largest time between a measurement and its study.",
)
@click.option("--hosp", type=_FOLDER, help="MIMIC-IV's hosp folder, for outcomes, age and sex.")
@click.option("--views", type=existing_file, help="Views of the videos: ECHOVIEW's table, or MIMICEchoQA.json.")
@click.option(
    "--view-columns",
    callback=_two_columns,
    metavar="FILE,VIEW",
    help="Columns of the table of --views that hold the file and the view.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for the split of patients, 70/15/15 %.")
@click.option(
    "--dry-run", is_flag=True, help="Read the headers and report the number of videos, hours and GB; write nothing."
)
@click.option("--overwrite", is_flag=True, help="Replace the tables of an earlier run; headers read before are reused.")
def mimic(source: Path, out: Path, **options: Any) -> None:
    """Prepare MIMIC-IV-ECHO: choose videos by header, and make a table of labels.

    SET is the data set as downloaded, and may be read-only. Writes videos.csv, the cine loops in B-mode, for `extract`;
    labels.csv, measurements and outcomes per study, for `probe --labels`; columns.csv, what each label is; and
    studies.csv, which measurements each study was given. Resumable: run the same command again to continue.
    """
    from tqdm import tqdm

    from panecho_embed.datasets.mimic_prepare import prepare_mimic

    bars: dict[str, Any] = {}

    def show(what: str, new: int, total: int) -> None:
        if what not in bars:
            is_bytes = what == "measurements"
            bars[what] = tqdm(
                total=total, unit="B" if is_bytes else "file", unit_scale=is_bytes, desc=what, disable=None
            )
        bars[what].update(new)

    try:
        found = prepare_mimic(source, out, progress=show, **options)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; headers read so far are kept, the same command continues") from None
    finally:
        for bar in bars.values():
            bar.close()
    _print_videos(found)
    if found.labels is not None and found.columns is not None:
        _print_labels(found, options["lvef"], out)


def _print_videos(found: Prepared) -> None:
    for note in found.notes:
        echo_line(f"note: {note}")
    selection = found.selection
    click.echo(f"{found.present:,} of {found.objects:,} objects of {found.root} are downloaded")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in _ranked(selection.counts))
    reused = f", {selection.reused:,} of them before" if selection.reused else ""
    click.echo(f"{len(selection.headers):,} headers read{reused}: {kinds}")
    if selection.unreadable:
        echo_line(f"{len(selection.unreadable):,} objects can't be read, and are left out:")
        for line in selection.unreadable[:_LISTED]:
            echo_line(f"  {line}")
    studies = {video.study_id for video in found.chosen}
    patients = {video.patient_id: video.split for video in found.chosen}
    splits = ", ".join(f"{list(patients.values()).count(name):,} {name}" for name in ("train", "val", "test"))
    click.echo(
        f"to embed: {len(found.chosen):,} videos in B-mode, {_time(selection.hours)}, "
        f"{selection.size_bytes / 1e9:,.3f} GB, of {len(studies):,} studies and {len(patients):,} patients ({splits})"
    )
    if selection.without_rate:
        click.echo(f"{selection.without_rate:,} of them state no frame rate, and are not part of the hours")
    if found.views:
        echo_line("views: " + ", ".join(f"{view} {count:,}" for view, count in _ranked(found.views)))


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _print_labels(found: Prepared, rule: str, out: Path) -> None:
    assert found.labels is not None
    assert found.columns is not None
    filled = found.columns[found.columns["studies"] > 0]
    lvef = int(found.labels["lvef"].notna().sum())
    click.echo(
        f"labels of {len(found.labels):,} studies: {len(filled)} columns with values; lvef ({rule}) of {lvef:,} studies"
    )
    where = {name: shlex.quote(str(out / f"{name}.csv")) for name in ("videos", "labels", "columns")}
    file = shlex.quote(str(out.with_name(f"{out.name}.h5")))
    probe = shlex.quote(str(out.with_name(f"{out.name}-lvef")))
    click.echo(f"what each label is: {where['columns']}")
    click.echo(f"next: panecho-embed extract {where['videos']} -o {file}")
    click.echo(
        f"then: panecho-embed probe linear {file} --labels {where['labels']} --target lvef --level study -o {probe}"
    )
