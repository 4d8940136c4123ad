"""`panecho-embed probe linear`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from probes.cli.options import data_options, numbers, output_options, pooling_options
from probes.cli.running import run_probe

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.problem import Problem


@click.command()
@data_options
@pooling_options
@click.option("--strengths", callback=numbers, metavar="1,10", help="Grid of alpha (regression) or C, to choose from.")
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Weigh classes by how rare they are.")
@output_options
def linear(strengths: tuple[float, ...] | None, class_weight: str | None, **options: Any) -> None:
    """Ridge (numbers) or logistic regression (classes) on standardised EMBEDDINGS.

    The strength is chosen on validation patients, or on inner folds; the test patients are used once.
    """

    def make(problem: Problem) -> BaseProbe:
        from probes.linear import LinearProbe

        return LinearProbe(
            problem.target.kind,
            strengths=strengths,
            class_weight=None if problem.target.kind == "regression" else class_weight,
            random_state=options["seed"],
        )

    run_probe(make, {**options, "strengths": strengths, "class_weight": class_weight})
