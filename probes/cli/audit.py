"""`panecho-embed audit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.options import FileToRead, overwrite_option, reading_options
from panecho_embed.cli.printable import echo_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probes.leakage import Finding
    from probes.shortcuts import Shortcuts


@click.command()
@click.argument("embeddings", type=FileToRead(exists=True, dir_okay=False, path_type=Path))
@click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="CSV of labels, joined by id.")
@click.option(
    "--near",
    type=float,
    default=0.995,
    show_default=True,
    help="Cosine similarity above which two videos count as near-identical.",
)
@click.option("--target", help='Label column to find shortcuts for; several as "EF,ESV".')
@click.option(
    "--shortcut",
    "columns",
    multiple=True,
    metavar="COLUMN",
    help="Label column to check as a shortcut, such as a hospital written as a number; repeatable.  [default: the "
    "columns of text]",
)
@reading_options
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the findings to this JSON file."
)
@overwrite_option
def audit(
    embeddings: Path,
    labels: str | None,
    near: float,
    target: str | None,
    columns: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
    **reading: Any,
) -> None:
    """Look for leakage and shortcuts in EMBEDDINGS before training on them.

    Patients and studies in two splits, the same or nearly the same video in two splits or under two ids, labels that
    another column gives away. Facts of the recording (frame rate, size, scanner, view, ...) and labels of text (such as
    a hospital) that can be read from the embedding, and with --target how well each of them predicts the target without
    an image. Exit code 1 when anything leaks from training to test, else 3 if shortcuts to a target could not be looked
    for.
    """
    from panecho_embed.core.outputs import refuse_to_replace, write_json
    from panecho_embed.core.wording import plural
    from panecho_embed.evaluation.targets import Reading

    if out is not None:
        refuse_to_replace(out, overwrite, embeddings, labels)
    read_as = Reading.parse(reading["task"], reading["positive"], reading["order"])
    if target is None and any(reading.values()):
        raise click.UsageError("--task, --positive and --order say how the targets are read; name one with --target")
    # What looks for leakage loads scipy.
    from probes.commands import audit as run

    found = run(embeddings, target or "", labels=labels, near=near, columns=columns, reading=read_as)
    findings, shortcuts = found.findings, found.shortcuts
    _print_findings(findings)
    if shortcuts is not None:
        _print_shortcuts(shortcuts, has_target=target is not None)
    refused = dict(shortcuts.not_looked_for) if shortcuts is not None else {}
    for name, why in refused.items():
        echo_line(f"shortcuts to {name} not looked for: {why}", err=True)
    leaks = sum(finding.severity == "leak" for finding in findings)
    warnings = len(findings) - leaks
    kinds, noun = plural("kind", leaks), plural("warning", warnings)
    click.echo(f"{embeddings}: {leaks} {kinds} of leak, {warnings} {noun}")
    if out is not None:
        document = {
            "source": str(embeddings),
            "findings": [asdict(finding) for finding in findings],
            "shortcuts": asdict(shortcuts) if shortcuts is not None else None,
        }
        write_json(out, document)
    if found.no_shortcuts:
        echo_line(f"shortcuts not looked for: {found.no_shortcuts}", err=True)
    if leaks:
        raise click.exceptions.Exit(1)
    if refused:
        raise click.exceptions.Exit(3)


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        echo_line(f"{finding.severity}: {finding.message}")
        for example in finding.examples if finding.kind not in ("label_given_away", "shortcut") else ():
            echo_line(f"    {example}")


def _print_shortcuts(shortcuts: Shortcuts, *, has_target: bool) -> None:
    """A table: a line for each fact, read from the embedding, and each target read from it."""
    from panecho_embed.core.wording import aligned, counted

    if not shortcuts.facts:
        click.echo("Shortcuts: nothing to look for, the recordings differ in nothing that the file knows")
        return
    targets = list(dict.fromkeys(name for fact in shortcuts.facts for name in fact.predicts))
    columns = ["", "read from the embedding", *(f"predicts {name}, without an image" for name in targets)]
    rows = []
    for fact in shortcuts.facts:
        read = str(fact.given_away) if fact.given_away else f"not read: {fact.why_not}"
        rows.append([fact.name, read, *(str(fact.predicts.get(name, "")) for name in targets)])
    if shortcuts.recording_only:
        rows.append(["all recording facts", "", *(str(shortcuts.recording_only.get(name, "")) for name in targets)])
    click.echo(
        f"\nShortcuts: linear probes on {counted(shortcuts.n, shortcuts.level)} of "
        f"{counted(shortcuts.n_patients, 'patient')}, 5 folds by patient (95 % intervals over patients)"
    )
    for line in aligned(columns, rows).splitlines():
        echo_line(line)
    if not has_target:
        click.echo("Name the target with --target to see how well each of these predicts it without an image.")
    click.echo("")
