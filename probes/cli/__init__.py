"""`panecho-embed probe`: one command a file; nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from probes.cli.apply import apply
from probes.cli.attentive import attentive
from probes.cli.compare import compare
from probes.cli.faiss import faiss
from probes.cli.knn import knn
from probes.cli.linear import linear


@click.group()
def probe() -> None:
    """Learn whether a task can be read from embeddings."""


for command in (linear, knn, faiss, attentive, compare, apply):
    probe.add_command(command)
