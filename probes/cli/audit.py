"""`panecho-embed audit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from panecho_embed.cli.options import FileToRead, overwrite_option
from panecho_embed.cli.printable import echo_line


@click.command()
@click.argument("embeddings", type=FileToRead(exists=True, dir_okay=False, path_type=Path))
@click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="CSV of labels, joined by id.")
@click.option(
    "--near", type=float, default=0.995, show_default=True, help="Cosine from which videos are near-identical."
)
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the findings as JSON too.")
@overwrite_option
def audit(embeddings: Path, labels: str | None, near: float, out: Path | None, overwrite: bool) -> None:
    """Look for leakage in EMBEDDINGS before training on them.

    Patients and studies in two splits, the same or nearly the same video in two splits or under two ids, labels that
    another column gives away. Exit code 1 when anything leaks from training to test.
    """
    from panecho_embed.core.outputs import refuse_to_replace, written_whole
    from panecho_embed.core.wording import plural
    from panecho_embed.evaluation.scores import write_json
    from probes.audit import audit as run

    if out is not None:
        refuse_to_replace(out, overwrite, embeddings, labels)
    findings = run(embeddings, labels=labels, near=near)
    for finding in findings:
        echo_line(f"{finding.severity}: {finding.message}")
        for example in finding.examples if finding.kind != "label_given_away" else ():
            echo_line(f"    {example}")
    leaks = sum(finding.severity == "leak" for finding in findings)
    warnings = len(findings) - leaks
    kinds, noun = plural("kind", leaks), plural("warning", warnings)
    click.echo(f"{embeddings}: {leaks} {kinds} of leak, {warnings} {noun}")
    if out is not None:
        document = {"source": str(embeddings), "findings": [asdict(finding) for finding in findings]}
        with written_whole(out) as temporary:
            write_json(temporary, document)
    if leaks:
        raise click.exceptions.Exit(1)
