"""`panecho-embed probe`: one command a file; nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from probes.cli.linear import linear


@click.group()
def probe() -> None:
    """Learn whether a task can be read from embeddings."""


probe.add_command(linear)
