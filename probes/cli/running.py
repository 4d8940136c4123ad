"""What every probe command does with its options: load, evaluate, write, print."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.problem import Problem
    from probes.run import RunSettings, TargetResult


def run_probe(make_probe: Callable[[Problem], BaseProbe], options: dict[str, Any]) -> None:
    """The body of `probe linear` and its siblings. options: those of `data_options` and `output_options`.

    Of several targets those that can't be evaluated are listed, and the exit code is 3.
    """
    from panecho_embed.errors import ArgumentError
    from probes.outputs import RunInfo, make_folder, write_run
    from probes.problem import load_problems
    from probes.run import run_targets

    data = ("labels", "level", "pooling", "fusion", "task", "positive")
    refused: dict[str, str] = {}
    chosen = {name: options[name] for name in data}
    problems = load_problems(options["embeddings"], options["target"], **chosen, refused=refused)
    check_flags(problems, options)
    folder = make_folder(options["out"])
    results = []
    several = len(problems) + len(refused) > 1
    for result in run_targets(problems, make_probe, settings_of(options), refused=refused if several else None):
        print_scores(result)
        results.append(result)
    if not results:
        name, why = next(iter(refused.items()))
        raise ArgumentError(f"none of {len(refused)} targets can be evaluated; {name}: {why}")
    info = RunInfo(str(options["embeddings"]), command_line(click.get_current_context()), options, refused)
    write_run(results, info, folder)
    for name, why in refused.items():
        click.echo(f"\n{name} was not evaluated: {why}", err=True)
    click.echo(f"\nwritten: {folder}, open {folder / 'report.html'}")
    if refused:
        raise click.exceptions.Exit(3)


def settings_of(options: dict[str, Any]) -> RunSettings:
    """The options that say what to compute; a command without one of them does not compute it."""
    from probes.run import RunSettings

    return RunSettings(
        folds=options["folds"],
        k_shot=options["k_shot"],
        cutoffs=options["cutoffs"] or (),
        subgroups=tuple(filter(None, (options.get("subgroups") or "").split(","))),
        control=options.get("control", False),
        fractions=options.get("fractions") or (),
        shots=options.get("shots") or (),
        repeats=options.get("repeats", 0),
        draws=options["draws"],
        seed=options["seed"],
        allow_leakage=options["allow_leakage"],
    )


def check_flags(problems: Sequence[Problem], options: dict[str, Any]) -> None:
    """Raise ArgumentError for a flag that does nothing, as it is for another kind of task."""
    from panecho_embed.errors import ArgumentError

    for flag, tasks in (
        ("cutoffs", ("regression",)),
        ("class_weight", ("binary", "multiclass")),
        ("positive", ("binary",)),
    ):
        if options.get(flag) and not any(problem.task in tasks for problem in problems):
            given = ", ".join(f"{problem.target} is {problem.task}" for problem in problems[:3])
            name = "--" + flag.replace("_", "-")
            raise ArgumentError(f"{name} is for a {' or '.join(tasks)} target; {given}")


def command_line(context: click.Context) -> str:
    """The command that repeats this run: the options that were given, none of the defaults."""
    words = context.command_path.split()
    words[0] = "panecho-embed"
    for parameter in context.command.params:
        name, value = parameter.name, context.params.get(parameter.name or "")
        if name is None or context.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        if isinstance(parameter, click.Argument):
            words.extend(map(str, value if isinstance(value, tuple) else (value,)))
        elif isinstance(value, bool):
            words.append(parameter.opts[-1])
        else:
            text = ",".join(f"{number:.12g}" for number in value) if isinstance(value, tuple) else str(value)
            words.extend([parameter.opts[-1], text])
    return shlex.join(words)


def print_scores(result: TargetResult) -> None:
    """A table of metrics, intervals and the baseline, and the curve of label efficiency."""
    from panecho_embed.evaluation.wording import display_name
    from panecho_embed.wording import interval, number
    from probes.wording import caution

    evaluation, problem = result.evaluation, result.evaluation.problem
    score = next(iter(evaluation.scores.values()))
    missing = f", {problem.n_missing} without a label left out" if problem.n_missing else ""
    counts = f"{score.n} tested, of {score.n_patients} patients{missing}"
    unit = "; errors in the label's own unit" if problem.task == "regression" else ""
    click.echo(f"\n{problem.target}: {problem.task}, {problem.level} level, {counts}{unit}")
    rows = [["", "value", "95 % interval", "baseline"]]
    for name, score in evaluation.scores.items():
        baseline = number(evaluation.baseline_scores[name].value)
        rows.append([display_name(name), number(score.value), interval(score), baseline])
    if result.control is not None:
        shuffled = [number(values.mean()) for values in result.control.values()]
        rows = [[*row, last] for row, last in zip(rows, ["shuffled labels", *shuffled], strict=True)]
    print_table(rows)
    if note := caution(evaluation):
        click.echo(note)
    if result.no_control:
        click.echo(result.no_control)
    if result.efficiency is not None:
        curve = result.efficiency
        click.echo()
        rows = [[curve.unit, "patients", display_name(curve.metric), "95 % of draws"]]
        for row in curve.band().to_dict("records"):
            spread = f"{number(row['low'])} to {number(row['high'])}"
            rows.append([f"{row[curve.unit]:g}", f"{row['n_patients']:.0f}", number(row["mean"]), spread])
        print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
        click.echo("  ".join(cells).rstrip())
