"""`panecho-embed probe compare`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probes.cli.options import (
    command_line,
    label_options,
    numbers,
    pooling_options,
    print_table,
    split_options,
    statistics_options,
)

if TYPE_CHECKING:
    from panecho_embed.records import EmbeddingTable
    from probes.base import BaseProbe
    from probes.compare import Comparison
    from probes.problem import Problem


@click.command()
@click.argument("embeddings", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@label_options
@pooling_options
@split_options
@click.option(
    "--probe",
    "kind",
    type=click.Choice(["linear", "knn"]),
    default="linear",
    show_default=True,
    help="Which probe reads every candidate.",
)
@click.option("--reference", metavar="NAME", help="Differences to this candidate only.  [default: all pairs]")
@click.option("--sweep", is_flag=True, help="One frame-level file: compare samplings derived from it.")
@click.option("--backbone-weights", type=click.Path(exists=True, dir_okay=False), help="Of the clip encoder (--sweep).")
@click.option("--cutoffs", callback=numbers, metavar="35,40", help="AUROC of a regression below these values.")
@statistics_options
def compare(embeddings: tuple[str, ...], sweep: bool, **options: Any) -> None:
    """Compare EMBEDDINGS on the same patients and splits.

    Models, samplings or poolings: paired bootstrap differences, corrected for their number. A candidate is called by
    its file's name.
    """
    from probes.compare import compare_problems, write_comparison
    from probes.outputs import make_folder
    from probes.problem import load_problems
    from probes.run import RunSettings

    names = ("labels", "level", "pooling", "fusion", "task", "positive")
    candidates: dict[str, dict[str, Problem]] = {}
    for name, source in _sources(embeddings, sweep, options["backbone_weights"]):
        problems = load_problems(source, options["target"], **{key: options[key] for key in names})
        candidates[name] = {problem.target: problem for problem in problems}
    settings = RunSettings(
        folds=options["folds"],
        k_shot=options["k_shot"],
        cutoffs=options["cutoffs"] or (),
        draws=options["draws"],
        seed=options["seed"],
        allow_leakage=options["allow_leakage"],
    )
    folder = make_folder(options["out"])
    comparisons = []
    for target in next(iter(candidates.values())):
        problems_of = {name: by_target[target] for name, by_target in candidates.items() if target in by_target}
        make = _maker(options["kind"], options["seed"])
        comparison = compare_problems(problems_of, make, settings, reference=options["reference"])
        _print(comparison)
        comparisons.append(comparison)
    write_comparison(comparisons, folder, command=command_line(click.get_current_context()))
    click.echo(f"\nwritten: {folder}, open {folder / 'report.html'}")


def _sources(
    embeddings: tuple[str, ...], sweep: bool, weights: str | None
) -> Iterable[tuple[str, str | EmbeddingTable]]:
    if sweep:
        from probes.sweep import sweep_tables

        if len(embeddings) != 1:
            raise click.UsageError(f"--sweep takes one frame-level file; {len(embeddings)} were given")
        return sweep_tables(embeddings[0], weights=weights)
    stems = [Path(path).stem for path in embeddings]
    if len(set(stems)) == len(stems):
        return zip(stems, embeddings, strict=True)
    if len(set(embeddings)) < len(embeddings):
        raise click.UsageError("the same file is given twice")
    return zip(embeddings, embeddings, strict=True)


def _maker(kind: str, seed: int) -> Any:
    def make(problem: Problem) -> BaseProbe:
        from probes.knn import KNNProbe
        from probes.linear import LinearProbe

        return (LinearProbe if kind == "linear" else KNNProbe)(problem.task, random_state=seed)

    return make


def _print(comparison: Comparison) -> None:
    from panecho_embed.wording import display_name, interval, number, p_value

    click.echo(f"\n{comparison.target}: {display_name(comparison.metric)}, {comparison.n_left_out} units left out")
    rows = [["", "value", "95 % interval"]]
    for name in comparison.evaluations:
        score = comparison.score(name)
        rows.append([name, number(score.value), interval(score)])
    print_table(rows)
    click.echo()
    rows = [["difference", "value", "95 % interval", "p", "p, corrected"]]
    for pair in comparison.differences:
        d = pair.difference
        rows.append(
            [f"{pair.first} - {pair.second}", number(d.value), interval(d), p_value(d.p_value), p_value(pair.p_holm)]
        )
    print_table(rows)
