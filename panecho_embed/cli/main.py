"""The command `panecho-embed`: finds its commands by name, and turns the library's errors into messages."""

from __future__ import annotations

import importlib
import json
import platform
from importlib.metadata import PackageNotFoundError, entry_points
from importlib.metadata import version as metadata_version
from typing import Any

import click

from panecho_embed._version import __version__
from panecho_embed.cli.printable import printable_streams
from panecho_embed.core.errors import ArgumentError, PanEchoEmbedError
from panecho_embed.core.wording import nearest

_GROUP = "panecho_embed.commands"
_DEPENDENCIES = (
    *("torch", "torchvision", "timm", "h5py", "numpy", "pandas", "scikit-learn", "scipy", "faiss-cpu"),
    *("opencv-python-headless", "av", "pydicom"),
)

# In the order in which one needs them.
_COMMANDS = {
    "demo": "panecho_embed.cli.demo:demo",
    "phantom": "panecho_embed.cli.phantom:phantom",
    "manifest": "panecho_embed.cli.manifest:manifest",
    "mimic": "panecho_embed.cli.mimic:mimic",
    "extract": "panecho_embed.cli.extract:extract",
    "merge": "panecho_embed.cli.merge:merge",
    "reclip": "panecho_embed.cli.reclip:reclip",
    "pool": "panecho_embed.cli.pool:pool",
    "info": "panecho_embed.cli.info:info",
    "export": "panecho_embed.cli.export:export",
    "verify": "panecho_embed.cli.verify:verify",
    "predict": "panecho_embed.cli.predict:predict",
    "search": "panecho_embed.cli.search:search",
    "index": "panecho_embed.cli.index:index",
    "serve": "panecho_embed.cli.serve:serve",
    "atlas": "panecho_embed.cli.atlas:atlas",
    # Stands on both rooms; it is named by its place, as nothing here imports probes.
    "benchmark": "probes.cli.benchmark:benchmark",
    "finetune": "panecho_embed.cli.finetune:finetune",
    "grid": "panecho_embed.cli.grid:grid",
    "compare": "panecho_embed.cli.compare:compare",
    "recipes": "panecho_embed.cli.recipes:recipes",
    "weights": "panecho_embed.cli.weights:weights",
    "reproduce": "panecho_embed.cli.reproduce:reproduce",
    "doctor": "panecho_embed.cli.doctor:doctor",
}


class _UsageMessage(click.ClickException):
    """A bad argument that only the library could judge; exit code 2, as for every wrong usage."""

    exit_code = 2


class _CommandGroup(click.Group):
    """Loads a command when it is used; others' commands join by the entry-point group panecho_embed.commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order of a first project; those that joined read embeddings, so after what makes them."""
        own = list(_COMMANDS)
        joined = sorted({point.name for point in entry_points(group=_GROUP)} - _COMMANDS.keys())
        at = own.index("predict")
        return [*own[:at], *joined, *own[at:]]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name in _COMMANDS:
            module, _, attribute = _COMMANDS[cmd_name].partition(":")
            found: click.Command = getattr(importlib.import_module(module), attribute)
            return found
        for point in entry_points(group=_GROUP, name=cmd_name):
            joined: click.Command = point.load()
            return joined
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names; for a mistyped one, name the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = nearest(args[0], self.list_commands(ctx))
            raise click.UsageError(error.message.rstrip(".") + hint, ctx) from error

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; whatever of names and texts from files can't be printed, is shown as escapes."""
        with printable_streams():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that the library raises on purpose becomes its message, without a traceback."""
        try:
            return super().invoke(ctx)
        except ArgumentError as error:
            raise _UsageMessage(str(error)) from error
        except PanEchoEmbedError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=_CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    no_args_is_help=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.option("--version", "version", is_flag=True, help="Show the version and exit.")
@click.option("--json", "as_json", is_flag=True, help="With --version: versions of the main dependencies too, as JSON.")
@click.pass_context
def main(ctx: click.Context, version: bool, as_json: bool) -> None:
    """Echocardiogram videos to embeddings, and embeddings to answers.

    Exit codes: 0 all done; 1 an error; 2 wrong usage; 3 finished, but some inputs failed (they are listed).
    """
    if as_json and not version:
        raise click.UsageError("--json belongs to --version here; give it after the command")
    if version:
        click.echo(json.dumps(_versions(), indent=2) if as_json else f"panecho-embed, version {__version__}")
        ctx.exit()


def _versions() -> dict[str, str | None]:
    """Versions by distribution, None for what is not installed; nothing is imported for it."""
    found: dict[str, str | None] = {"panecho-embed": __version__, "python": platform.python_version()}
    for name in _DEPENDENCIES:
        try:
            found[name] = metadata_version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
