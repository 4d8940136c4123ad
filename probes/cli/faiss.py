"""`panecho-embed probe faiss`."""

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
@click.option(
    "--index",
    type=click.Choice(["flat", "ivf", "hnsw", "sq8", "pq"]),
    default="flat",
    show_default=True,
    help="flat is exact; the others are faster on large files, or smaller.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="gpu needs a faiss that was built for it.",
)
@output_options
def faiss(
    metric: str,
    k: tuple[int, ...] | None,
    weights: str,
    temperature: tuple[float, ...] | None,
    centre: str,
    index: str,
    device: str,
    **options: Any,
) -> None:
    """Nearest neighbours of EMBEDDINGS on a faiss index.

    As `probe knn`, for files of millions of rows.
    """
    settings = {"metric": metric, "k": k, "weights": weights, "temperature": temperature, "centre": CENTRES[centre]}
    settings |= {"index": index, "device": device}

    def make(problem: Problem) -> BaseProbe:
        from probes.faiss_knn import FaissKNNProbe

        return FaissKNNProbe(problem.target.kind, random_state=options["seed"], **settings)  # type: ignore[arg-type]

    run_probe(make, {**options, **settings})
