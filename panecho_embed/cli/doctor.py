"""`panecho-embed doctor`: can this machine run extract, how fast, and what is missing."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from panecho_embed.cli.options import Place

if TYPE_CHECKING:
    from panecho_embed.checkup.findings import Check, Checkup

_MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_INDENT = 22


@click.command()
@click.option(
    "-o",
    "--out",
    type=Place(),
    default=Path(),
    help="Folder, or file, that would be written.  [default: the current folder]",
)
@click.option(
    "--videos",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Number of videos to forecast time and disk space for.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=3600),
    default=10.0,
    show_default=True,
    help="Duration of the trial of encoding and decoding, in seconds; 0 skips it.",
)
@click.option("--device", default="auto", show_default=True, help="Device to compute on: auto, cpu, cuda, cuda:1, mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, out: Path | str, videos: int, seconds: float, device: str, as_json: bool) -> None:
    """Say whether this machine can run extract, how fast, and what is missing.

    Looks at device, precisions, engines, decoders, weights and free space, tries out for ten seconds how fast frames
    are encoded and decoded, and forecasts what many videos would take. Every warning and problem comes with what mends
    it. Uses no network. Exit code 1 if a problem makes extract impossible.
    """
    from panecho_embed.checkup.run import doctor as examine

    printer = _Printer()
    found = examine(
        out, videos=videos, seconds=seconds, device=device, told=(lambda check: None) if as_json else printer.show
    )
    click.echo(json.dumps(found.to_dict(), indent=2, default=str) if as_json else _verdict(found))
    ctx.exit(found.exit_code)


class _Printer:
    """Prints findings as they come, each topic's name once."""

    def __init__(self) -> None:
        self._topic = ""
        self._width = min(shutil.get_terminal_size((100, 24)).columns, 120)

    def show(self, check: Check) -> None:
        """One finding, and what mends it below it."""
        topic = check.topic if check.topic != self._topic else ""
        self._topic = check.topic
        mark = click.style(f"{_MARKS[check.status]:<9}", fg=_COLOURS[check.status])
        click.echo(f"{topic:<{_INDENT - 9}}{mark}{self._wrapped(check.text)}")
        if check.mend:
            click.echo(f"{'':<{_INDENT}}{self._wrapped(f'-> {check.mend}')}")

    def _wrapped(self, text: str) -> str:
        lines = textwrap.wrap(text, max(self._width - _INDENT, 30), break_long_words=False, break_on_hyphens=False)
        return f"\n{'':<{_INDENT}}".join(lines)


def _verdict(found: Checkup) -> str:
    warnings = sum(check.status == "warning" for check in found.checks)
    can = "can't" if found.problems else "can"
    return f"\nextract {can} run here; problems: {len(found.problems)}, warnings: {warnings}"
