"""`panecho-embed search --study | --video | --file | --vector`: the nearest studies or videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.printable import echo_line
from panecho_embed.cli.search_made import made
from panecho_embed.cli.tables import PLURALS, print_table, shown_columns
from panecho_embed.core.errors import ArgumentError

if TYPE_CHECKING:
    from panecho_embed.search import Collection, Found, Query


def print_nearest(collection: Collection, *, as_json: bool, as_csv: bool, html: Path | None, **options: Any) -> None:
    """Print what is nearest to the study, video, file or vectors that the options name, or write a contact sheet."""
    from panecho_embed.search import search as run

    query, notes = _query(collection, options)
    if options["include_same_patient"] and not query.patients:
        why = f"--include-same-patient does nothing: {query.label} shows no patient of {collection.path.name}"
        if options["vector"] is not None:
            raise ArgumentError(f"{why}; omit it")
        # It took minutes to embed the file, and whom it shows came out only then.
        notes = (*notes, why)
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
        echo_line(f"note: {note}", err=True)
    if html is not None:
        from panecho_embed.search.sheet import write_sheet

        sheet = write_sheet(collection, found, html, overwrite=options["overwrite"])
        click.echo(f"{len(found)} hits with pictures in {sheet}", err=as_json or as_csv)
    if as_json:
        click.echo(json.dumps(_as_dict(collection, found, options), indent=2))
    elif as_csv:
        click.echo(found.table().to_csv(index=False), nl=False)
    elif html is None:
        how = "" if found.found_by == "exact" else f", by {found.found_by}; --exact compares all"
        echo_line(f"{query.label}: nearest of {found.candidates} {PLURALS[found.items.level]}{how}")
        print_table(
            found.records(), shown_columns(found.items.columns, ("rank", "similarity", f"{found.items.level}_id"))
        )


def _query(collection: Collection, options: dict[str, Any]) -> tuple[Query, tuple[str, ...]]:
    from panecho_embed.search import study_query, vector_query, video_query
    from panecho_embed.search.collection import UnknownIdError

    for asked, name in ((study_query, "study"), (video_query, "video")):
        if options[name] is None:
            continue
        try:
            return asked(collection, _as_here(collection, name, options[name])), ()
        except UnknownIdError as error:
            if Path(options[name]).exists():
                raise UnknownIdError(f"{error}; it is a path: a file is searched with by --file") from error
            raise
    if options["vector"] is not None:
        from panecho_embed.search.vectors import read_query

        return read_query(collection, options["vector"], options["query_study"]), ()
    from panecho_embed.datasets import LocalIds
    from panecho_embed.search.embed_new import Embedder
    from panecho_embed.search.whose import recognised_files

    known = LocalIds.beside(collection.path)
    embedder = Embedder(collection.provenance, options["weights"], known=known)
    new = embedder.embed(options["path"], study=options["query_study"])
    # A path of DICOM may tell whose it is, and the label stands in what is written.
    label = "the query" if new.videos[0].origin else str(options["path"])
    query = vector_query(collection, new.vectors, label, new.views)
    return recognised_files(collection, query, new.videos), new.notes


def _as_here(collection: Collection, kind: str, name: str) -> str:
    """The id of a study or video in the file, where those are opaque and it is asked for as the hospital calls it."""
    from panecho_embed.datasets import LocalIds, is_opaque, local_path

    if not any(map(is_opaque, collection.file.video_columns[f"{kind}_id"][:1])) or is_opaque(name):
        return name
    known = LocalIds.beside(collection.path)
    if known is None:
        raise ArgumentError(
            f"{collection.path} has opaque ids, and {name!r} is none; the local table that knows the hospital's own, "
            f"{local_path(collection.path)}, is not there (--{kind})"
        )
    return known.translated(kind, [name])[0]


def _as_dict(collection: Collection, found: Found, options: dict[str, Any]) -> dict[str, Any]:
    measure = (options["similarity"] or "mean") if found.items.level == "study" else "cosine"
    return {
        "query": found.query.label,
        "level": found.items.level,
        "similarity": measure,
        "candidates": found.candidates,
        "note": found.note,
        "hits": found.records(),
        "made": made(
            collection,
            found_by=found.found_by,
            measure=measure,
            where=options["where"],
            same_patient=options["include_same_patient"],
        ),
    }
