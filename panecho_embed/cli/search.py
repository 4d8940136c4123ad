"""`panecho-embed search`: the nearest studies, how good that is, duplicates and outliers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from panecho_embed.cli.options import existing_file
from panecho_embed.cli.printable import echo_line
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.progress import shown_progress

_PLURALS = {"clip": "clips", "video": "videos", "study": "studies"}

_SHOWN_LABELS = 5
_MODES = ("study", "video", "path", "vector", "evaluate", "duplicates", "outliers")
_FLAGS = ("--study", "--video", "--file", "--vector", "--evaluate", "--duplicates", "--outliers")
_HITS = {
    "k",
    "level",
    "similarity",
    "where",
    "include_same_patient",
    "use_index",
    "as_json",
    "as_csv",
    "html",
    "overwrite",
}
_HEEDED = {
    "--file": {*_HITS, "weights", "query_study"},
    "--vector": {*_HITS, "query_study"},
    "--evaluate": {"level", "similarity", "kind", "include_same_patient", "as_json", "as_csv"},
    "--duplicates": {"level", "where", "as_json", "as_csv"},
    "--outliers": {"level", "where", "include_same_patient", "as_json", "as_csv"},
}


@click.command()
@click.argument("emb", metavar="EMB.h5", type=existing_file)
@click.option("--study", metavar="ID", help="Search with a study of the file.")
@click.option("--video", metavar="ID", help="Search with a video of the file.")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, path_type=Path),
    help="Search with a new DICOM, AVI or MP4 file, or a folder of them; it is embedded as the file's own videos were.",
)
@click.option(
    "--vector",
    type=existing_file,
    help="Search with vectors from a .npy file, or from an embedding file made in the same way.",
)
@click.option("--query-study", metavar="ID", help="Study to search with, if --file or --vector holds several.")
@click.option(
    "--evaluate",
    metavar="COLUMN",
    help="Report how well this label column is found by similarity (leave-one-out retrieval).",
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["class", "number"]),
    help="How to read the column of --evaluate.  [default: class for texts or at most ten whole numbers, else number]",
)
@click.option("--duplicates", type=float, metavar="SIM", help="List groups of items with at least this similarity.")
@click.option("--outliers", type=int, metavar="N", help="List the N items that are least similar to all others.")
@click.option("-k", type=int, default=10, show_default=True, help="Number of results.")
@click.option(
    "--level",
    type=click.Choice(["clip", "video", "study"]),
    help="What to find.  [default: study for a study or a folder, else video]",
)
@click.option(
    "--similarity",
    type=click.Choice(["mean", "best", "view"]),
    help="How to compare studies. mean: cosine of the mean embeddings; best: best match of every "
    "video, in both directions; view: mean over the views that both have.  [default: mean; "
    "with --evaluate all]",
)
@click.option("--where", metavar="FILTER", help="Only return items that match, such as \"view == 'A4C' and EF < 40\".")
@click.option("--include-same-patient", is_flag=True, help="Also return other videos and studies of the same patient.")
@click.option(
    "--index/--exact",
    "use_index",
    default=None,
    help="Require or ignore the index beside the file.  [default: used if it exists]",
)
@click.option("--weights", type=existing_file, help="Weights file for --file.  [default: found as by `extract`]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV, with every column.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a contact sheet with pictures.")
@click.option("--overwrite", is_flag=True, help="Overwrite the file of --html.")
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
    _refuse_output(emb, options)
    from panecho_embed.retrieval.index import open_collection

    prints: dict[str, Callable[..., None]] = {
        "--evaluate": _print_evaluation,
        "--duplicates": _print_duplicates,
        "--outliers": _print_outliers,
    }
    asks = given[0] not in prints
    collection, index = open_collection(emb, options.pop("use_index") if asks else False)
    for note in filter(None, (warning(collection), *collection.notes)):
        click.echo(f"note: {note}", err=True)
    more = {"index": index} if asks else {}
    run: Callable[..., None] = prints.get(given[0], _print_nearest)
    run(collection, as_json=as_json, as_csv=as_csv, **options, **more)


def _refuse_output(emb: Path, options: dict[str, Any]) -> None:
    """Before anything is loaded: a sheet that could not be written at the end."""
    from panecho_embed.core.outputs import refuse_to_replace

    if options["html"] is not None:
        read = (emb, options["path"], options["vector"])
        refuse_to_replace(options["html"], options["overwrite"], *read, flag="--html")
    elif options["overwrite"]:
        raise ArgumentError("--overwrite is about --html, which is not given; omit it")


def _refuse_unheeded(mode: str) -> None:
    context = click.get_current_context()
    heeded = {*_HEEDED.get(mode, _HITS), *_MODES, "emb"}
    for option in context.command.params:
        name = str(option.name)
        if name not in heeded and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ArgumentError(f"{'/'.join([*option.opts, *option.secondary_opts])} does nothing with {mode}; omit it")


if TYPE_CHECKING:
    from panecho_embed.retrieval import Collection, Measure, SearchLevel
    from panecho_embed.retrieval.evaluate import Retrieval

_SEED = 0


def _print_evaluation(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
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
        from panecho_embed.evaluation.inference import DEFAULT_DRAWS

        block = _made(collection, same_patient=chosen.same_patient, found_by="exact", seed=_SEED, draws=DEFAULT_DRAWS)
        click.echo(json.dumps(chosen.to_dict() | more | {"made": block}, indent=2))
        return
    if as_csv:
        _print_csv(rows)
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
    from panecho_embed.evaluation.inference import DEFAULT_DRAWS
    from panecho_embed.retrieval.evaluate import evaluate

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


if TYPE_CHECKING:
    from panecho_embed.retrieval import Collection, Found


def _print_nearest(collection: Collection, *, as_json: bool, as_csv: bool, html: Path | None, **options: Any) -> None:
    """Print what is nearest to the study, video, file or vectors that the options name, or write a contact sheet."""
    from panecho_embed.retrieval.asking import neighbours, query_of

    asked = {name: options[name] for name in ("study", "video", "vector", "query_study", "weights")}
    query, notes = query_of(collection, file=options["path"], **asked)
    if options["include_same_patient"] and not query.patients:
        why = f"--include-same-patient does nothing: {query.label} shows no patient of {collection.path.name}"
        if options["vector"] is not None:
            raise ArgumentError(f"{why}; omit it")
        # It took minutes to embed the file, and whom it shows came out only then.
        notes = (*notes, why)
    asked_for = ("k", "level", "similarity", "where", "include_same_patient", "index")
    hits = neighbours(collection, query, notes, *(options[name] for name in asked_for))
    found = hits.found
    for note in hits.notes:
        echo_line(f"note: {note}", err=True)
    if html is not None:
        from panecho_embed.retrieval.sheet import write_sheet

        sheet = write_sheet(collection, found, html, overwrite=options["overwrite"])
        click.echo(f"{len(found)} hits with pictures in {sheet}", err=as_json or as_csv)
    if as_json:
        click.echo(json.dumps(_as_dict(collection, found, options), indent=2))
    elif as_csv:
        click.echo(found.table().to_csv(index=False), nl=False)
    elif html is None:
        how = "" if found.found_by == "exact" else f", by {found.found_by}; --exact compares all"
        echo_line(f"{query.label}: nearest of {found.candidates} {_PLURALS[found.items.level]}{how}")
        print_table(
            found.records(), _shown_columns(found.items.columns, ("rank", "similarity", f"{found.items.level}_id"))
        )


def _as_dict(collection: Collection, found: Found, options: dict[str, Any]) -> dict[str, Any]:
    measure = (options["similarity"] or "mean") if found.items.level == "study" else "cosine"
    return {
        "query": found.query.label,
        "level": found.items.level,
        "similarity": measure,
        "candidates": found.candidates,
        "note": found.note,
        "hits": found.records(),
        "made": _made(
            collection,
            found_by=found.found_by,
            measure=measure,
            where=options["where"],
            same_patient=options["include_same_patient"],
        ),
    }


if TYPE_CHECKING:
    from panecho_embed.retrieval import Collection
    from panecho_embed.retrieval.collection import Items

_SHOWN_GROUPS = 20


def _print_duplicates(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    """Print groups of items that are alike, those across patients and splits marked."""
    from panecho_embed.retrieval.curation import duplicates
    from panecho_embed.retrieval.find import record

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
        document["made"] = _made(collection, measure="cosine", where=options["where"])
        click.echo(json.dumps(document, indent=2))
    elif as_csv:
        _print_csv(rows, ["group", *items.columns])
    else:
        some = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
        click.echo(f"{some} of {_PLURALS[items.level]} with a similarity of {options['duplicates']:g} or more")
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


def _print_outliers(collection: Collection, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    """Print the items that are farthest from all others, farthest first."""
    from panecho_embed.retrieval.curation import outliers

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
        block = _made(collection, measure="cosine", where=options["where"], same_patient=same)
        click.echo(json.dumps({"level": items.level, "outliers": rows, "made": block}, indent=2))
    elif as_csv:
        _print_csv(rows)
    else:
        print_table(rows, _shown_columns(items.columns, ("rank", "distance", f"{items.level}_id")))


def _items(collection: Collection, options: dict[str, Any]) -> Items:
    from panecho_embed.retrieval.find import picked

    items = collection.items(options["level"] or ("video" if collection.has_videos else "study"))
    return picked(collection, items, options["where"]) if options["where"] else items


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print some columns of rows in line, numbers to the right."""
    if not rows:
        click.echo("nothing found")
        return
    places = {name: max(_places(row[name]) for row in rows) for name in columns}
    cells = [[_cell(row[name], places[name]) for name in columns] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in columns]
    for line in [list(columns), *cells]:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        echo_line("  ".join(padded).rstrip())


def _places(value: Any) -> int:
    """Decimals that a number needs, four at most: 55.2 is no 55.2000."""
    return len(f"{value:.4f}".rstrip("0").partition(".")[2]) if isinstance(value, float) else 0


def _cell(value: Any, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}" if isinstance(value, int | float) else str(value)


def _print_csv(rows: Sequence[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Print rows as CSV. columns: the header, where there may be no row to take it from."""
    import pandas as pd

    click.echo(pd.DataFrame(rows, columns=columns).to_csv(index=False), nl=False)


def _shown_columns(columns: Any, first: tuple[str, ...]) -> list[str]:
    """The columns of a table on a terminal: ids and the first labels."""
    ids = ["video_id", "study_id", "patient_id", "view"]
    hidden = {*ids, "split", "num_frames", "fps", "first_frame", *first}
    labels = [name for name in columns if name not in hidden][:_SHOWN_LABELS]
    known = [name for name in (*ids, "first_frame") if name in columns and name not in first]
    return [*(name for name in first if name in columns or name in ("rank", "similarity", "distance")), *known, *labels]


if TYPE_CHECKING:
    from panecho_embed.retrieval import Collection


def _made(collection: Collection, **settings: Any) -> dict[str, Any]:
    """What the embeddings were made with, and how they were compared; the block `_made` of every JSON."""
    provenance = collection.provenance
    return {
        "file": str(collection.path),
        "backbone": provenance.backbone,
        "weights": provenance.weights.source,
        "pretrained": provenance.weights.pretrained,
        "settings_id": provenance.settings_id,
        **settings,
    }


def warning(collection: Collection) -> str | None:
    """What a person must know before reading any result; None where the weights are trained."""
    weights = collection.provenance.weights
    if weights.pretrained:
        return None
    return f"RANDOM WEIGHTS, NOT PRETRAINED ({weights.source}): results say nothing about a trained model"
