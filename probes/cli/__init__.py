"""`panecho-embed probe`: nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from probes.cli.apply import apply
from probes.cli.compare import compare
from probes.cli.kinds import own_commands, registered_command
from probes.registry import known_probes


class Probes(click.Group):
    """The commands of this package, and one for every probe that is registered by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, without importing any probe."""
        return [*super().list_commands(ctx), *(name for name in known_probes() if name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name; of a registered probe one with the options that all probes share."""
        known = super().get_command(ctx, cmd_name)
        return registered_command(cmd_name) if known is None and cmd_name in known_probes() else known


@click.group(cls=Probes)
def probe() -> None:
    """Learn whether a task can be read from embeddings."""


for command in (*own_commands(), compare, apply):
    probe.add_command(command)
