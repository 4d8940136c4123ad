"""`panecho-embed probe NAME`: the commands that train and test one probe, all made by `probe_command`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.options import stacked
from probes.cli.options import data_options, numbers, output_options, pooling_options, whole_numbers
from probes.cli.running import run_probe

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.problem import Problem

Options = Callable[[Callable[..., Any]], Callable[..., Any]]

_CHOSEN = "is chosen on validation patients, or on inner folds; the test patients are used once."


def _choice(flag: str, values: Sequence[str], text: str) -> Options:
    """An option that takes one of several words, the first by default."""
    return click.option(flag, type=click.Choice(values), default=values[0], show_default=True, help=text)


def _count(flag: str, default: int, text: str) -> Options:
    return click.option(flag, type=click.IntRange(min=1), default=default, show_default=True, help=text)


_LINEAR = stacked(
    click.option(
        "--strengths", callback=numbers, metavar="1,10", help="Grid of alpha (regression) or C, to choose from."
    ),
    click.option("--class-weight", type=click.Choice(["balanced"]), help="Weigh classes by how rare they are."),
)
_NEIGHBOURS = stacked(
    _choice("--metric", ["cosine", "euclidean"], "Distance between embeddings."),
    click.option(
        "--k",
        callback=whole_numbers,
        metavar="1,5,10",
        help="Numbers of neighbours to choose from.  [default: 1 to 200]",
    ),
    _choice(
        "--weights",
        ["softmax", "distance", "uniform"],
        "Weights of the neighbours; softmax needs the cosine metric.",
    ),
    click.option(
        "--temperature",
        callback=numbers,
        metavar="0.05,0.1",
        help="Temperatures of the softmax to choose from.  [default: 0.01 to 0.3]",
    ),
    _choice(
        "--centre", ["auto", "yes", "no"], "Subtract the training mean before the cosine; auto chooses on the folds."
    ),
)
_FAISS = stacked(
    _NEIGHBOURS,
    _choice(
        "--index",
        ["flat", "ivf", "hnsw", "sq8", "pq"],
        "flat is exact; the others are faster on large files, or smaller.",
    ),
    _choice("--device", ["cpu", "gpu"], "gpu needs a faiss that was built for it."),
)
_ATTENTIVE = stacked(
    _count("--heads", 4, "Number of attention heads."), _count("--epochs", 50, "Largest number of training epochs.")
)
_SET = click.option("--set", multiple=True, metavar="NAME=VALUE", help="Parameter of the probe; repeatable.")


def probe_command(name: str, text: str, own: Options, *, pools: bool = False) -> click.Command:
    """The command of one probe.

    name: as `probes.registry` knows it. text: the help. own: its options, named after its parameters, or `--set`.
    pools: whether the probe pools the rows of a video or study itself, so that there is nothing to choose.
    """
    pooling: Options = stacked() if pools else pooling_options
    given = [parameter.name or "" for parameter in click.command()(own(lambda: None)).params]

    @click.command(name, help=text)
    @data_options
    @pooling
    @own
    @output_options
    def command(**options: Any) -> None:
        settings = _parsed(options["set"]) if own is _SET else {key: options[key] for key in given}
        if "centre" in settings:
            settings["centre"] = {"yes": True, "no": False}.get(settings["centre"], settings["centre"])
        fixed = {"pooling": "mean", "fusion": "late"} if pools else {}
        run_probe(lambda problem: make_known(name, problem, options["seed"], settings), {**options, **fixed})

    return command


def own_commands() -> list[click.Command]:
    """The commands of this package's probes."""
    return [
        probe_command(
            "linear",
            f"Ridge (numbers) or logistic regression (classes) on standardised EMBEDDINGS.\n\nThe strength {_CHOSEN}",
            _LINEAR,
        ),
        probe_command(
            "knn", f"Nearest neighbours of EMBEDDINGS, exact.\n\nThe number of neighbours {_CHOSEN}", _NEIGHBOURS
        ),
        probe_command(
            "faiss",
            "Nearest neighbours of EMBEDDINGS on a faiss index.\n\nAs `probe knn`, for files of millions of rows.",
            _FAISS,
        ),
        probe_command(
            "attentive",
            "Attention over the rows (clips, frames) of each video or study of EMBEDDINGS.\n\nWhat to look at is "
            f"learned with what to read. The number of epochs {_CHOSEN}",
            _ATTENTIVE,
            pools=True,
        ),
    ]


def registered_command(name: str) -> click.Command:
    """The command of a probe that another package registers; its settings are given by `--set`."""
    return probe_command(name, f"The registered probe {name} on EMBEDDINGS.", _SET)


def make_known(name: str, problem: Problem, seed: int, settings: Mapping[str, Any] | None = None) -> BaseProbe:
    """A probe by its name, with the run's seed where it has one. Raises ArgumentError for a name or setting unknown."""
    from panecho_embed.core.errors import ArgumentError
    from probes.base import accepts
    from probes.registry import probe_class

    kind, task = probe_class(name), problem.target.kind
    own = {"task": task, **(settings or {})}
    if task == "regression" and "class_weight" in own:
        own["class_weight"] = None
    own |= {"random_state": seed} if accepts(kind.__init__, "random_state") else {}
    try:
        return kind(**own)
    except TypeError as error:
        raise ArgumentError(f"the probe {name} does not take {settings}: {error} (--set)") from error


def _parsed(given: tuple[str, ...]) -> dict[str, Any]:
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
