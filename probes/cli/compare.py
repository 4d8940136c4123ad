"""`panecho-embed probe compare`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.compare import comparison_options
from panecho_embed.cli.options import FileToRead
from probes.cli.kinds import make_known
from probes.cli.options import label_options, pooling_options, split_options, statistics_options
from probes.cli.running import check_flags, command_line, data_of, settings_of

if TYPE_CHECKING:
    from panecho_embed.core.records import EmbeddingTable
    from probes.problem import Problem


@click.command()
@click.argument("embeddings", nargs=-1, required=True, type=FileToRead(exists=True, dir_okay=False))
@label_options
@pooling_options
@split_options
@click.option(
    "--probe",
    "kind",
    default="linear",
    show_default=True,
    metavar="NAME",
    help="Probe that reads every candidate: linear, knn, faiss, attentive, or a registered one.",
)
@comparison_options
@click.option(
    "--sweep",
    is_flag=True,
    help="Compare samplings derived from one frame-level file, of a backbone whose pictures are frames.",
)
@click.option(
    "--backbone-weights",
    type=click.Path(exists=True, dir_okay=False),
    help="Weights of the clip encoder, those of the frames (--sweep).",
)
@click.option(
    "--backbone-seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed for the weights of a registered backbone, that of the frames (--sweep).",
)
@statistics_options
def compare(embeddings: tuple[str, ...], sweep: bool, **options: Any) -> None:
    """Compare EMBEDDINGS on the same patients, splits and draws.

    Trains the same probe on each file: models, samplings or poolings. A candidate is called by its file's name.
    Finished runs are compared by `panecho-embed compare`.
    """
    from panecho_embed.cli.compare import print_comparisons
    from panecho_embed.evaluation.comparison_report import check_folder, write_comparison
    from probes.problem import load_problems
    from probes.registry import probe_class

    folder = Path(options["out"])
    check_folder(folder, options["overwrite"])
    refused: dict[str, str] = {}
    candidates: dict[str, list[Problem]] = {}
    pools = probe_class(options["kind"]).pools
    chosen = data_of(options) | ({"fusion": "late"} if pools else {})
    for name, source in _sources(embeddings, sweep, options):
        candidates[name] = load_problems(source, options["target"], **chosen, refused=refused)
    check_flags([problem for problems in candidates.values() for problem in problems], options)
    # What trains loads scikit-learn and more; a wrong target is known by now.
    from probes.account import comparison_account, encoder_notes
    from probes.compare import compare_problems

    compared = compare_problems(
        candidates,
        lambda problem: make_known(options["kind"], problem, options["seed"]),
        settings_of(options),
        reference=options["reference"],
        margin=options["margin"],
        refused=refused,
    )
    print_comparisons(compared.comparisons, options["reference"])
    for note in encoder_notes(compared):
        click.echo(note)
    account = comparison_account(compared, options["reference"], command_line(click.get_current_context()))
    write_comparison(folder, "probe compare", compared.comparisons, account, overwrite=options["overwrite"])
    for name, why in compared.refused.items():
        click.echo(f"\n{name} was not compared: {why}", err=True)
    click.echo(f"\nwritten: {folder}, open {folder / 'report.html'}")
    if compared.refused:
        raise click.exceptions.Exit(3)


def _sources(
    embeddings: tuple[str, ...], sweep: bool, options: dict[str, Any]
) -> Iterable[tuple[str, str | EmbeddingTable]]:
    if sweep:
        from probes.sweep import sweep_tables

        if len(embeddings) != 1:
            raise click.UsageError(f"--sweep takes one frame-level file; {len(embeddings)} were given")
        return sweep_tables(
            embeddings[0],
            weights=options["backbone_weights"],
            seed=options["backbone_seed"],
            announce=lambda note: click.echo(f"note: {note}", err=True),
        )
    if options["backbone_weights"] or options["backbone_seed"]:
        raise click.UsageError("--backbone-weights and --backbone-seed are of the clip encoder of a --sweep")
    stems = [Path(path).stem for path in embeddings]
    if len(set(stems)) == len(stems):
        return zip(stems, embeddings, strict=True)
    if len(set(embeddings)) < len(embeddings):
        raise click.UsageError("the same file is given twice")
    return zip(embeddings, embeddings, strict=True)
