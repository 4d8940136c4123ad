"""`panecho-embed search`: the nearest studies, how good that is, duplicates and outliers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from panecho_embed.cli.options import existing_file
from panecho_embed.errors import ArgumentError

if TYPE_CHECKING:
    from panecho_embed.search import Collection, Found, Measure, Query, SearchLevel
    from panecho_embed.search.collection import Items
    from panecho_embed.search.evaluate import Retrieval

_MODES = ("study", "video", "path", "vector", "evaluate", "duplicates", "outliers")
_FLAGS = ("--study", "--video", "--file", "--vector", "--evaluate", "--duplicates", "--outliers")
_HITS = {"k", "level", "similarity", "where", "include_same_patient", "use_index", "as_json", "as_csv", "html"}
_HEEDED = {
    "--file": {*_HITS, "weights"},
    "--evaluate": {"level", "similarity", "include_same_patient", "as_json", "as_csv"},
    "--duplicates": {"level", "where", "as_json", "as_csv"},
    "--outliers": {"level", "where", "include_same_patient", "as_json", "as_csv"},
}
_SHOWN_LABELS = 5
_SHOWN_GROUPS = 20


@click.command()
@click.argument("emb", metavar="EMB.h5", type=existing_file)
@click.option("--study", metavar="ID", help="Ask with a study of the file.")
@click.option("--video", metavar="ID", help="Ask with a video of the file.")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="Ask with a new DICOM, AVI, MP4 or a folder of them, embedded as the file's own videos were.",
)
@click.option("--vector", type=existing_file, help="Ask with vectors: .npy, or an embedding file of the same making.")
@click.option("--evaluate", metavar="COLUMN", help="Leave-one-out retrieval quality for a column.")
@click.option("--duplicates", type=float, metavar="SIM", help="Groups of items with at least this similarity.")
@click.option("--outliers", type=int, metavar="N", help="The N items that are like no others.")
@click.option("-k", type=int, default=10, show_default=True, help="How many to find.")
@click.option(
    "--level",
    type=click.Choice(["clip", "video", "study"]),
    help="What to find.  [default: study for a study or a folder, else video]",
)
@click.option(
    "--similarity",
    type=click.Choice(["mean", "best", "view"]),
    default="mean",
    show_default=True,
    help="Of studies: cosine of means; best match of every video, both ways; mean of the views that both have.",
)
@click.option("--where", metavar="FILTER", help="Only items that match: \"view == 'A4C' and EF < 40\".")
@click.option("--include-same-patient", is_flag=True, help="Keep the patient's other videos and studies in.")
@click.option("--index/--exact", "use_index", default=None, help="Use, or not, the index beside the file.")
@click.option("--weights", type=existing_file, help="For --file: weights file. Default: where extract looks.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV, every column.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a contact sheet with pictures.")
def search(emb: Path, as_json: bool, as_csv: bool, **options: Any) -> None:
    """Find the studies or videos of an embedding file that look like a given one.

    Also: how well labels are found that way (--evaluate), what is stored twice (--duplicates), and what is like nothing
    else (--outliers).
    """
    given = [flag for name, flag in zip(_MODES, _FLAGS, strict=True) if options[name] is not None]
    if len(given) != 1:
        raise ArgumentError(f"{' and '.join(given) or 'nothing'} is given; give one of {', '.join(_FLAGS)}")
    if as_json and as_csv:
        raise ArgumentError("--json and --csv are both given; give one")
    _refuse_unheeded(given[0])
    from panecho_embed.search.index import open_collection

    run: Callable[..., None] = {
        "--evaluate": _evaluate, "--duplicates": _duplicates, "--outliers": _outliers
    }.get(given[0], _search)  # fmt: skip
    asks = run is _search
    collection, index = open_collection(emb, options.pop("use_index") if asks else False)
    for note in collection.notes:
        click.echo(f"note: {note}", err=True)
    run(collection, as_json=as_json, as_csv=as_csv, **options, **({"index": index} if asks else {}))


def _refuse_unheeded(mode: str) -> None:
    context = click.get_current_context()
    heeded = {*_HEEDED.get(mode, _HITS), *_MODES, "emb"}
    for option in context.command.params:
        name = str(option.name)
        if name not in heeded and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ArgumentError(f"{'/'.join([*option.opts, *option.secondary_opts])} does nothing with {mode}; omit it")


def _search(collection: Collection, *, as_json: bool, as_csv: bool, html: Path | None, **options: Any) -> None:
    from panecho_embed.search import search as run

    query, notes = _query(collection, options)
    found = run(
        collection,
        query,
        options["k"],
        level=options["level"],
        similarity=options["similarity"],
        where=options["where"],
        include_same_patient=options["include_same_patient"],
        index=options["index"],
    )
    for note in filter(None, (*notes, found.note)):
        click.echo(f"note: {note}", err=True)
    if html is not None:
        from panecho_embed.search.sheet import write_sheet

        click.echo(f"{len(found)} hits with pictures in {write_sheet(collection, found, html)}")
    elif as_json:
        click.echo(json.dumps(_as_dict(found, options["similarity"]), indent=2))
    elif as_csv:
        click.echo(found.table().to_csv(index=False), nl=False)
    else:
        click.echo(f"{query.label}: nearest of {found.candidates}")
        _print_table(found.records(), _shown(found.items.columns, ("rank", "similarity", f"{found.items.level}_id")))


def _query(collection: Collection, options: dict[str, Any]) -> tuple[Query, tuple[str, ...]]:
    from panecho_embed.search import study_query, vector_query, video_query
    from panecho_embed.search.collection import UnknownIdError

    for asked, name in ((study_query, "study"), (video_query, "video")):
        if options[name] is None:
            continue
        try:
            return asked(collection, options[name]), ()
        except UnknownIdError as error:
            if Path(options[name]).exists():
                raise UnknownIdError(f"{error}; it is a path: a file is searched with by --file") from error
            raise
    if options["vector"] is not None:
        from panecho_embed.search.vectors import read_query

        return read_query(collection, options["vector"]), ()
    from panecho_embed.search.embed_new import Embedder

    new = Embedder(collection.provenance, options["weights"]).embed(options["path"])
    return vector_query(collection, new.vectors, str(options["path"]), new.views), new.notes


def _as_dict(found: Found, similarity: str) -> dict[str, Any]:
    return {
        "query": found.query.label,
        "level": found.items.level,
        "similarity": similarity if found.items.level == "study" else "cosine",
        "candidates": found.candidates,
        "note": found.note,
        "hits": found.records(),
    }


def _evaluate(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
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
        _print_csv(rows)
        return
    result = chosen.to_dict()
    click.echo(
        f"{chosen.column} at {level} level: {chosen.queries} queries of {result['patients']} patients"
        + (f", {chosen.left_out} left out" if chosen.left_out else "")
        + ("; the same patient's items count" if chosen.same_patient else "; the same patient's items left out")
    )
    names = ["similarity"] if level == "study" else []
    _print_table(rows, [*names, "metric", "value", "low", "high", "chance"])


def _duplicates(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    from panecho_embed.search.find import record
    from panecho_embed.search.oddities import duplicates

    items = _items(collection, options)
    groups = duplicates(items, options["duplicates"])
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
        click.echo(json.dumps({"level": items.level, "threshold": options["duplicates"], "groups": listed}, indent=2))
    elif as_csv:
        _print_csv(rows, ["group", *items.columns])
    else:
        click.echo(f"{len(groups)} groups of {items.level} items with a similarity of {options['duplicates']} or more")
        for n, group in enumerate(listed[:_SHOWN_GROUPS], start=1):
            across = f", {group['patients']} PATIENTS" if group["patients"] > 1 else ""
            across += f", {group['splits']} SPLITS" if group["splits"] > 1 else ""
            ids = [str(item[f"{items.level}_id"]) for item in group["items"]] if items.level != "clip" else []
            ids = ids or [f"{item['video_id']}#{item['first_frame']}" for item in group["items"]]
            more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
            click.echo(f"{n}: {len(ids)} items, lowest {group['lowest_similarity']:.4f}{across}: "
                       f"{', '.join(ids[:10])}{more}")  # fmt: skip
        if len(listed) > _SHOWN_GROUPS:
            click.echo(f"and {len(listed) - _SHOWN_GROUPS} groups more (--csv or --json lists all)")


def _items(collection: Collection, options: dict[str, Any]) -> Items:
    from panecho_embed.search.find import picked

    items = collection.items(options["level"] or ("video" if collection.has_videos else "study"))
    return picked(collection, items, options["where"]) if options["where"] else items


def _outliers(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    from panecho_embed.search.oddities import outliers

    items = _items(collection, options)
    rows = outliers(items, options["outliers"], include_same_patient=options["include_same_patient"])
    if as_json:
        click.echo(json.dumps({"level": items.level, "outliers": rows}, indent=2))
    elif as_csv:
        _print_csv(rows)
    else:
        _print_table(rows, _shown(items.columns, ("rank", "distance", f"{items.level}_id")))


def _shown(columns: Any, first: tuple[str, ...]) -> list[str]:
    """The columns of a table on a terminal: ids and the first labels."""
    ids = ["video_id", "study_id", "patient_id", "view"]
    hidden = {*ids, "split", "num_frames", "fps", "first_frame", *first}
    labels = [name for name in columns if name not in hidden][:_SHOWN_LABELS]
    known = [name for name in (*ids, "first_frame") if name in columns and name not in first]
    return [*(name for name in first if name in columns or name in ("rank", "similarity", "distance")), *known, *labels]


def _print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    if not rows:
        click.echo("nothing found")
        return
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in columns]
    for line in [list(columns), *cells]:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _print_csv(rows: Sequence[dict[str, Any]], columns: list[str] | None = None) -> None:
    import pandas as pd

    click.echo(pd.DataFrame(rows, columns=columns).to_csv(index=False), nl=False)
