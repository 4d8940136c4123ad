"""`panecho-embed probe attentive`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from probes.cli.options import data_options, output_options
from probes.cli.running import run_probe

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.problem import Problem


@click.command()
@data_options
@click.option("--heads", type=click.IntRange(min=1), default=4, show_default=True, help="Of attention.")
@click.option("--epochs", type=click.IntRange(min=1), default=50, show_default=True, help="At most.")
@output_options
def attentive(heads: int, epochs: int, **options: Any) -> None:
    """Attention over the rows (clips, frames) of each video or study of EMBEDDINGS.

    What to look at is learned with what to read. The number of epochs is chosen on validation patients, or on inner
    folds; the test patients are used once.
    """

    def make(problem: Problem) -> BaseProbe:
        from probes.attentive import AttentiveProbe

        return AttentiveProbe(problem.target.kind, heads=heads, epochs=epochs, random_state=options["seed"])

    run_probe(make, {**options, "heads": heads, "epochs": epochs, "pooling": "mean", "fusion": "late"})
