"""`panecho-embed probe NAME`, of a probe that another package registers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import click

from probes.cli.options import data_options, output_options, pooling_options
from probes.cli.running import run_probe

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.problem import Problem

GROUP = "panecho_embed.probes"


def registered_names() -> list[str]:
    """Names of the probes that are registered by entry point, without importing them."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def registered_command(name: str) -> click.Command:
    """The command of a registered probe: the options that all probes share, and its own settings by `--set`."""

    @click.command(name, help=f"The registered probe {name} on EMBEDDINGS.")
    @data_options
    @pooling_options
    @click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="Parameter of the probe; repeatable.")
    @output_options
    def command(given: tuple[str, ...], **options: Any) -> None:
        settings = _settings(given)

        def make(problem: Problem) -> BaseProbe:
            return make_known(name, problem, options["seed"], settings)

        run_probe(make, {**options, "set": list(given)})

    return command


def make_known(name: str, problem: Problem, seed: int, settings: Mapping[str, Any] | None = None) -> BaseProbe:
    """A probe by its name, with the run's seed where it has one. Raises ArgumentError for a name or setting unknown."""
    from panecho_embed.errors import ArgumentError
    from probes.base import accepts
    from probes.registry import probe_class

    kind = probe_class(name)
    own = {"task": problem.target.kind, **(settings or {})}
    own |= {"random_state": seed} if accepts(kind.__init__, "random_state") else {}
    try:
        return kind(**own)
    except TypeError as error:
        raise ArgumentError(f"the probe {name} does not take {settings}: {error} (--set)") from error


def _settings(given: tuple[str, ...]) -> dict[str, Any]:
    import ast

    settings: dict[str, Any] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
        try:
            settings[name.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name.strip()] = value
    return settings
