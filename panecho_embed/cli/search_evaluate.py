"""`panecho-embed search --evaluate COLUMN`: how well a label is found among neighbours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.tables import print_csv, print_table
from panecho_embed.errors import ArgumentError

if TYPE_CHECKING:
    from panecho_embed.search import Collection, Measure, SearchLevel
    from panecho_embed.search.evaluate import Retrieval


def print_evaluation(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    """Print retrieval quality with intervals and chance; of studies, by every measure that the file allows."""
    from panecho_embed.search.evaluate import evaluate

    level: SearchLevel = options["level"] or ("video" if collection.has_videos else "study")
    measures: tuple[Measure, ...] = (
        ("mean", "best", "view") if level == "study" and collection.has_videos else ("mean",)
    )
    results: dict[str, Retrieval] = {}
    for measure in measures:
        try:
            results[measure] = evaluate(
                collection,
                options["evaluate"],
                level=level,
                similarity=measure,
                include_same_patient=options["include_same_patient"],
            )
        except ArgumentError:
            # The measure that was asked for must work; of the others, those that this file allows are shown beside it.
            if measure == options["similarity"]:
                raise
    chosen = results[options["similarity"]] if level == "study" else results["mean"]
    rows = [
        {"similarity": measure, "metric": name, **{k: round(v, 4) for k, v in metric.items()}}
        for measure, result in results.items()
        for name, metric in result.to_dict().items()
        if name in result.scores
    ]
    if as_json:
        others = {measure: result.to_dict() for measure, result in results.items()}
        click.echo(json.dumps(chosen.to_dict() | ({"measures": others} if len(others) > 1 else {}), indent=2))
        return
    if as_csv:
        print_csv(rows)
        return
    result = chosen.to_dict()
    click.echo(
        f"{chosen.column} at {level} level: {chosen.queries} queries of {result['patients']} patients"
        + (f", {chosen.left_out} left out" if chosen.left_out else "")
        + ("; the same patient's items count" if chosen.same_patient else "; the same patient's items left out")
    )
    names = ["similarity"] if level == "study" else []
    print_table(rows, [*names, "metric", "value", "low", "high", "chance"])
