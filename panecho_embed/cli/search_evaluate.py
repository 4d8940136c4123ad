"""`panecho-embed search --evaluate COLUMN`: how well a label is found among neighbours."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.search_made import made
from panecho_embed.cli.tables import print_csv, print_table
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.progress import shown_progress

if TYPE_CHECKING:
    from panecho_embed.search import Collection, Measure, SearchLevel
    from panecho_embed.search.evaluate import Retrieval

_SEED = 0


def print_evaluation(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    """Print retrieval quality with intervals and chance; of studies, by the measure asked for, or all."""
    level: SearchLevel = options["level"] or ("video" if collection.has_videos else "study")
    results, not_evaluated = _evaluated(collection, level, options)
    chosen = results[options["similarity"] or "mean"]
    rows = [
        {"similarity": measure, "metric": name, **{k: round(v, 4) for k, v in metric.items()}}
        for measure, result in results.items()
        for name, metric in result.to_dict().items()
        if name in result.scores
    ]
    if as_json:
        others = {measure: result.to_dict() for measure, result in results.items()}
        more = ({"measures": others} if len(others) > 1 else {}) | (
            {"not_evaluated": not_evaluated} if not_evaluated else {}
        )
        from panecho_embed.evaluation.intervals import DEFAULT_DRAWS

        block = made(collection, same_patient=chosen.same_patient, found_by="exact", seed=_SEED, draws=DEFAULT_DRAWS)
        click.echo(json.dumps(chosen.to_dict() | more | {"made": block}, indent=2))
        return
    if as_csv:
        print_csv(rows)
    else:
        click.echo(
            f"{chosen.column} as a {chosen.kind} ({chosen.why}{'' if options['kind'] else '; --as changes that'}) "
            f"at {level} level: {chosen.queries} queries of {chosen.to_dict()['patients']} patients"
            + (f", {chosen.left_out} left out" if chosen.left_out else "")
            + ("; the same patient's items count" if chosen.same_patient else "; the same patient's items left out")
        )
        names = ["similarity"] if level == "study" else []
        print_table(rows, [*names, "metric", "value", "low", "high", "chance"])
    if chosen.caution:
        click.echo(chosen.caution, err=as_csv)
    notes = {measure: result.note for measure, result in results.items() if result.note}
    notes |= {measure: f"not evaluated, for {why}" for measure, why in not_evaluated.items()}
    for measure, note in notes.items():
        click.echo(f"note: {f'by {measure}, ' if level == 'study' else ''}{note}", err=as_csv)


def _evaluated(
    collection: Collection, level: SearchLevel, options: dict[str, Any]
) -> tuple[dict[str, Retrieval], dict[str, str]]:
    """The results by measure, and why others have none."""
    from panecho_embed.evaluation.intervals import DEFAULT_DRAWS
    from panecho_embed.search.evaluate import evaluate

    asked: Measure | None = options["similarity"]
    several = level == "study" and collection.has_videos and asked is None
    measures: tuple[Measure | None, ...] = ("mean", "best", "view") if several else (asked,)
    results: dict[str, Retrieval] = {}
    not_evaluated: dict[str, str] = {}
    for measure in measures:
        try:
            with shown_progress("query") as show:
                results[measure or "mean"] = evaluate(
                    collection,
                    options["evaluate"],
                    level=level,
                    similarity=measure,
                    kind=options["kind"],
                    include_same_patient=options["include_same_patient"],
                    draws=DEFAULT_DRAWS,
                    seed=_SEED,
                    progress=functools.partial(show, what=measure or "cosine"),
                )
        except ArgumentError as error:
            # The measure that was asked for must work; of the others, those that this file allows are shown beside it.
            if measure in (None, asked, "mean"):
                raise
            not_evaluated[measure] = str(error)
    return results, not_evaluated
