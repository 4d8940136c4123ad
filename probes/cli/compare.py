"""`panecho-embed probe compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from panecho_embed.cli.options import FileToRead
from probes.cli.options import label_options, numbers, pooling_options, split_options, statistics_options
from probes.cli.running import check_flags, command_line, print_table, settings_of

if TYPE_CHECKING:
    from panecho_embed.records import EmbeddingTable
    from probes.base import BaseProbe
    from probes.compare import Comparison
    from probes.problem import Problem

LONG = 20  # lines of differences that are printed


@click.command()
@click.argument("embeddings", nargs=-1, required=True, type=FileToRead(exists=True, dir_okay=False))
@label_options
@pooling_options
@split_options
@click.option(
    "--probe",
    "kind",
    type=click.Choice(["linear", "knn", "attentive"]),
    default="linear",
    show_default=True,
    help="Which probe reads every candidate.",
)
@click.option("--reference", metavar="NAME", help="Differences to this candidate only.  [default: all pairs]")
@click.option(
    "--sweep",
    is_flag=True,
    help="One frame-level file, of a backbone whose pictures are frames: compare samplings derived from it.",
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
    help="Seed of a registered backbone's weights, that of the frames (--sweep).",
)
@click.option("--cutoffs", callback=numbers, metavar="35,40", help="AUROC of a regression below these values.")
@statistics_options
def compare(embeddings: tuple[str, ...], sweep: bool, **options: Any) -> None:
    """Compare EMBEDDINGS on the same patients and splits.

    Models, samplings or poolings: paired bootstrap differences, corrected for their number. A candidate is called by
    its file's name.
    """
    from probes.compare import write_comparison
    from probes.outputs import make_folder
    from probes.problem import load_problems
    from probes.wording import caution, resolution_note

    names = ("labels", "level", "pooling", "fusion", "task", "positive")
    chosen = {key: options[key] for key in names}
    refused: dict[str, str] = {}
    candidates: dict[str, dict[str, Problem]] = {}
    for name, source in _sources(embeddings, sweep, options):
        problems = load_problems(source, options["target"], **_late(chosen, options["kind"]), refused=refused)
        candidates[name] = {problem.target: problem for problem in problems}
    targets = _common_targets(candidates, refused)
    check_flags([by_target[target] for by_target in candidates.values() for target in targets], options)
    folder = make_folder(options["out"])
    comparisons = _compared(targets, candidates, refused, options)
    for comparison in comparisons:
        _print(comparison)
    first = next(iter(comparisons[0].evaluations.values()))
    count = sum(len(comparison.differences) for comparison in comparisons)
    for note in filter(None, (caution(first), resolution_note(count, options["draws"]))):
        click.echo(note)
    write_comparison(comparisons, folder, command=command_line(click.get_current_context()), not_compared=refused)
    for name, why in refused.items():
        click.echo(f"\n{name} was not compared: {why}", err=True)
    click.echo(f"\nwritten: {folder}, open {folder / 'report.html'}")
    if refused:
        raise click.exceptions.Exit(3)


def _compared(
    targets: list[str], candidates: dict[str, dict[str, Problem]], refused: dict[str, str], options: dict[str, Any]
) -> list[Comparison]:
    """Every target that can be compared; the others are refused, unless there is but one."""
    from panecho_embed.errors import ArgumentError
    from probes.compare import compare_problems, corrected_together

    comparisons = []
    make = _maker(options["kind"], options["seed"])
    for target in targets:
        problems = {name: by_target[target] for name, by_target in candidates.items()}
        try:
            compared = compare_problems(problems, make, settings_of(options), reference=options["reference"])
        except ArgumentError as error:
            if len(targets) + len(refused) == 1:
                raise
            refused[target] = str(error)
            continue
        comparisons.append(compared)
    if not comparisons:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise ArgumentError(f"no target can be compared: {reasons}")
    return corrected_together(comparisons)


def _late(chosen: dict[str, Any], kind: str) -> dict[str, Any]:
    """The attentive probe pools the rows itself."""
    return {**chosen, "fusion": "late"} if kind == "attentive" else chosen


def _common_targets(candidates: dict[str, dict[str, Problem]], refused: dict[str, str]) -> list[str]:
    """Targets that every candidate has; the others are refused, naming who lacks them."""
    every = dict.fromkeys(target for by_target in candidates.values() for target in by_target)
    for target in every:
        lacking = [name for name, by_target in candidates.items() if target not in by_target]
        if lacking:
            refused.setdefault(target, f"{', '.join(lacking)} lacks it")
    return [target for target in every if target not in refused]


def _sources(
    embeddings: tuple[str, ...], sweep: bool, options: dict[str, Any]
) -> Iterable[tuple[str, str | EmbeddingTable]]:
    if sweep:
        from probes.sweep import sweep_tables

        if len(embeddings) != 1:
            raise click.UsageError(f"--sweep takes one frame-level file; {len(embeddings)} were given")
        return sweep_tables(embeddings[0], weights=options["backbone_weights"], seed=options["backbone_seed"])
    if options["backbone_weights"] or options["backbone_seed"]:
        raise click.UsageError("--backbone-weights and --backbone-seed are of the clip encoder of a --sweep")
    stems = [Path(path).stem for path in embeddings]
    if len(set(stems)) == len(stems):
        return zip(stems, embeddings, strict=True)
    if len(set(embeddings)) < len(embeddings):
        raise click.UsageError("the same file is given twice")
    return zip(embeddings, embeddings, strict=True)


def _maker(kind: str, seed: int) -> Any:
    def make(problem: Problem) -> BaseProbe:
        import probes

        kinds: dict[str, Callable[..., BaseProbe]] = {
            "linear": probes.LinearProbe,
            "knn": probes.KNNProbe,
            "attentive": probes.AttentiveProbe,
        }
        return kinds[kind](problem.task, random_state=seed)

    return make


def _print(comparison: Comparison) -> None:
    from panecho_embed.evaluation.wording import display_name
    from panecho_embed.wording import interval, number, p_value

    first = comparison.score(next(iter(comparison.evaluations)))
    counts = f"{first.n} tested, of {first.n_patients} patients"
    left = f", {comparison.n_left_out} that not every file has left out" if comparison.n_left_out else ""
    click.echo(f"\n{comparison.target}: {display_name(comparison.metric)}, {counts}{left}")
    rows = [["", "value", "95 % interval"]]
    for name in comparison.evaluations:
        score = comparison.score(name)
        rows.append([name, number(score.value), interval(score)])
    print_table(rows)
    click.echo()
    rows = [["difference", "value", "95 % interval", "p", "p, corrected"]]
    for pair in comparison.differences[:LONG]:
        d = pair.difference
        rows.append(
            [f"{pair.first} - {pair.second}", number(d.value), interval(d), p_value(d.p_value), p_value(pair.p_holm)]
        )
    print_table(rows)
    if len(comparison.differences) > LONG:
        click.echo(f"and {len(comparison.differences) - LONG} more in differences.csv and the report")
