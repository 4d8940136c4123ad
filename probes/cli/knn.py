"""`panecho-embed probe knn`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from probes.cli.options import CENTRES, data_options, neighbour_options, output_options, pooling_options
from probes.cli.running import run_probe

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.problem import Problem


@click.command()
@data_options
@pooling_options
@neighbour_options
@output_options
def knn(
    metric: str,
    k: tuple[int, ...] | None,
    weights: str,
    temperature: tuple[float, ...] | None,
    centre: str,
    **options: Any,
) -> None:
    """Nearest neighbours of EMBEDDINGS, exact.

    The number of neighbours is chosen on validation patients, or on inner folds; the test patients are used once.
    """
    settings = {"metric": metric, "k": k, "weights": weights, "temperature": temperature, "centre": CENTRES[centre]}

    def make(problem: Problem) -> BaseProbe:
        from probes.knn import KNNProbe

        return KNNProbe(problem.target.kind, random_state=options["seed"], **settings)  # type: ignore[arg-type]

    run_probe(make, {**options, **settings})
