"""`panecho-embed search`: the nearest studies, how good that is, duplicates and outliers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from panecho_embed.cli.options import existing_file
from panecho_embed.cli.search_evaluate import print_evaluation
from panecho_embed.cli.search_find import print_nearest
from panecho_embed.cli.search_made import warning
from panecho_embed.cli.search_oddities import print_duplicates, print_outliers
from panecho_embed.core.errors import ArgumentError

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
_PRINTS: dict[str, Callable[..., None]] = {
    "--evaluate": print_evaluation,
    "--duplicates": print_duplicates,
    "--outliers": print_outliers,
}


@click.command()
@click.argument("emb", metavar="EMB.h5", type=existing_file)
@click.option("--study", metavar="ID", help="Ask with a study of the file.")
@click.option("--video", metavar="ID", help="Ask with a video of the file.")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, path_type=Path),
    help="Ask with a new DICOM, AVI, MP4 or a folder of them, embedded as the file's own videos were.",
)
@click.option("--vector", type=existing_file, help="Ask with vectors: .npy, or an embedding file of the same making.")
@click.option("--query-study", metavar="ID", help="Of several studies in --file or --vector, the one to ask with.")
@click.option("--evaluate", metavar="COLUMN", help="Leave-one-out retrieval quality for a column.")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["class", "number"]),
    help="What the column of --evaluate holds.  [default: classes where it holds texts or at most ten whole numbers]",
)
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
    help="Of studies: cosine of means; best match of every video, both ways; mean of the views that both have.  "
    "[default: mean; with --evaluate all]",
)
@click.option("--where", metavar="FILTER", help="Only items that match: \"view == 'A4C' and EF < 40\".")
@click.option("--include-same-patient", is_flag=True, help="Keep the patient's other videos and studies in.")
@click.option("--index/--exact", "use_index", default=None, help="Use, or not, the index beside the file.")
@click.option("--weights", type=existing_file, help="For --file: weights file. Default: where extract looks.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV, every column.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a contact sheet with pictures.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at --html.")
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
    from panecho_embed.search.index import open_collection

    asks = given[0] not in _PRINTS
    collection, index = open_collection(emb, options.pop("use_index") if asks else False)
    for note in filter(None, (warning(collection), *collection.notes)):
        click.echo(f"note: {note}", err=True)
    run: Callable[..., None] = _PRINTS.get(given[0], print_nearest)
    run(collection, as_json=as_json, as_csv=as_csv, **options, **({"index": index} if asks else {}))


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
