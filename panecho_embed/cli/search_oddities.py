"""`panecho-embed search --duplicates SIM | --outliers N`: what is stored twice, and what is like nothing else."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.printable import echo_line
from panecho_embed.cli.search_made import made
from panecho_embed.cli.tables import PLURALS, print_csv, print_table, shown_columns
from panecho_embed.core.progress import shown_progress

if TYPE_CHECKING:
    from panecho_embed.search import Collection
    from panecho_embed.search.collection import Items

_SHOWN_GROUPS = 20


def print_duplicates(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    """Print groups of items that are alike, those across patients and splits marked."""
    from panecho_embed.search.find import record
    from panecho_embed.search.oddities import duplicates

    items = _items(collection, options)
    with shown_progress(items.level) as show:
        groups = duplicates(items, options["duplicates"], progress=functools.partial(show, what="duplicates"))
    listed: list[dict[str, Any]] = [
        {
            "lowest_similarity": round(group.lowest, 6),
            "patients": group.patients,
            "splits": group.splits,
            "items": [record(items, int(i)) for i in group.positions],
        }
        for group in groups
    ]
    rows = [{"group": n, **item} for n, group in enumerate(listed, start=1) for item in group["items"]]
    if as_json:
        document = {"level": items.level, "threshold": options["duplicates"], "groups": listed}
        document["made"] = made(collection, measure="cosine", where=options["where"])
        click.echo(json.dumps(document, indent=2))
    elif as_csv:
        print_csv(rows, ["group", *items.columns])
    else:
        some = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
        click.echo(f"{some} of {PLURALS[items.level]} with a similarity of {options['duplicates']:g} or more")
        for n, group in enumerate(listed[:_SHOWN_GROUPS], start=1):
            across = f", {group['patients']} PATIENTS" if group["patients"] > 1 else ""
            across += f", {group['splits']} SPLITS" if group["splits"] > 1 else ""
            ids = [str(item[f"{items.level}_id"]) for item in group["items"]] if items.level != "clip" else []
            ids = ids or [f"{item['video_id']}#{item['first_frame']}" for item in group["items"]]
            more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
            echo_line(f"{n}: {len(ids)} items, lowest {group['lowest_similarity']:.4f}{across}: "
                      f"{', '.join(ids[:10])}{more}")  # fmt: skip
        if len(listed) > _SHOWN_GROUPS:
            click.echo(f"and {len(listed) - _SHOWN_GROUPS} groups more (--csv or --json lists all)")


def print_outliers(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    """Print the items that are farthest from all others, farthest first."""
    from panecho_embed.search.oddities import outliers

    items = _items(collection, options)
    same = options["include_same_patient"]
    with shown_progress(items.level) as show:
        rows = outliers(
            items,
            options["outliers"],
            include_same_patient=same,
            progress=functools.partial(show, what="outliers"),
        )
    if as_json:
        block = made(collection, measure="cosine", where=options["where"], same_patient=same)
        click.echo(json.dumps({"level": items.level, "outliers": rows, "made": block}, indent=2))
    elif as_csv:
        print_csv(rows)
    else:
        print_table(rows, shown_columns(items.columns, ("rank", "distance", f"{items.level}_id")))


def _items(collection: Collection, options: dict[str, Any]) -> Items:
    from panecho_embed.search.find import picked

    items = collection.items(options["level"] or ("video" if collection.has_videos else "study"))
    return picked(collection, items, options["where"]) if options["where"] else items
