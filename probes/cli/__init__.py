"""`panecho-embed probe`: one command a file; nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from probes.cli.apply import apply
from probes.cli.attentive import attentive
from probes.cli.compare import compare
from probes.cli.faiss import faiss
from probes.cli.knn import knn
from probes.cli.linear import linear
from probes.cli.registered import registered_command, registered_names


class Probes(click.Group):
    """The commands of this package, and one for every probe that is registered by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, without importing any probe."""
        return [*super().list_commands(ctx), *(name for name in registered_names() if name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name; of a registered probe one with the options that all probes share."""
        known = super().get_command(ctx, cmd_name)
        if known is not None or cmd_name not in registered_names():
            return known
        return registered_command(cmd_name)


@click.group(cls=Probes)
def probe() -> None:
    """Learn whether a task can be read from embeddings."""


for command in (linear, knn, faiss, attentive, compare, apply):
    probe.add_command(command)
