"""What every probe command does with its options: load, evaluate, write, print."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.plans import RunSettings
    from probes.problem import Problem
    from probes.run import TargetResult


def run_probe(make_probe: Callable[[Problem], BaseProbe], options: dict[str, Any]) -> None:
    """The body of `probe linear` and its siblings. options: those of `data_options` and `output_options`.

    Of several targets those that can't be evaluated are listed, and the exit code is 3.
    """
    from panecho_embed.core.errors import ArgumentError
    from panecho_embed.core.outputs import refuse_to_replace_run
    from probes.problem import load_problems

    # Before anything is computed.
    refuse_to_replace_run(Path(options["out"]), options["overwrite"], ("metrics.json",))
    refused: dict[str, str] = {}
    problems = load_problems(options["embeddings"], options["target"], **data_of(options), refused=refused)
    check_flags(problems, options)
    # What trains loads scikit-learn and more; a wrong target is known by now.
    from probes.outputs import RunInfo, write_run
    from probes.run import run_targets

    results = []
    several = len(problems) + len(refused) > 1
    for result in run_targets(problems, make_probe, settings_of(options), refused=refused if several else None):
        print_scores(result)
        results.append(result)
    if not results:
        name, why = next(iter(refused.items()))
        raise ArgumentError(f"none of {len(refused)} targets can be evaluated; {name}: {why}")
    context = click.get_current_context()
    made_by = " ".join(context.command_path.split()[1:])
    shown = {name: str(value) if name == "threshold" else value for name, value in options.items()}
    info = RunInfo(str(options["embeddings"]), made_by, command_line(context), shown, refused)
    folder = write_run(results, info, options["out"], overwrite=options["overwrite"])
    for result in results:
        if why := result.probe.saveable():
            click.echo(f"note: the probe of {result.evaluation.problem.target.name} is not saved: {why}")
    for name, why in refused.items():
        click.echo(f"\n{name} was not evaluated: {why}", err=True)
    click.echo(f"\nwritten: {folder}, open {folder / 'report.html'}")
    if refused:
        raise click.exceptions.Exit(3)


def data_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options that say what is loaded, as `load_problems` takes them."""
    from panecho_embed.core.tasks import read_tasks
    from panecho_embed.evaluation.targets import Reading

    table = {} if not options["task_table"] else {"tasks": {t.name: t for t in read_tasks(options["task_table"])}}
    reading = Reading.parse(options["task"], options["positive"], options["order"], **table)
    return {name: options[name] for name in ("labels", "level", "pooling", "fusion")} | {"reading": reading}


def settings_of(options: dict[str, Any]) -> RunSettings:
    """The options that say what to compute; a command without one of them does not compute it."""
    from probes.plans import RunSettings

    return RunSettings(
        folds=options["folds"],
        k_shot=options["k_shot"],
        trainings=options["trainings"],
        refits=options["refits"] or 0,
        threshold=options["threshold"],
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
    from panecho_embed.core.errors import ArgumentError

    for flag, tasks in (
        ("cutoffs", ("regression",)),
        ("class_weight", ("binary", "multiclass", "ordinal")),
        ("positive", ("binary",)),
    ):
        if options.get(flag) and not any(problem.target.kind in tasks for problem in problems):
            given = ", ".join(f"{problem.target.name} is {problem.target.kind}" for problem in problems[:3])
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
            parts = value if isinstance(value, tuple) else (value,)
            texts = [f"{part:.12g}" if isinstance(part, float) else str(part) for part in parts]
            for text in texts if parameter.multiple else [",".join(texts)]:
                words.extend([parameter.opts[-1], text])
    return shlex.join(words)


def print_scores(result: TargetResult) -> None:
    """The answer, a table of metrics, intervals and the baseline, and the curve of label efficiency."""
    from panecho_embed.core.wording import aligned, number
    from panecho_embed.evaluation.metrics import display_name
    from panecho_embed.evaluation.report import answer, metric_rows
    from panecho_embed.evaluation.scores import caution_of
    from probes.account import cautions_of, encoder_note, further_columns, recording_notes

    evaluation, problem = result.evaluation, result.evaluation.problem
    scored = evaluation.scored
    missing = f", {problem.n_missing} without a label left out" if problem.n_missing else ""
    several = f", {len(evaluation.plans)} trainings" if len(evaluation.plans) > 1 else ""
    counts = f"{scored.primary.n} tested, of {scored.primary.n_patients} patients{missing}{several}"
    click.echo(f"\n{problem.target.title}: {problem.target.kind}, {problem.level} level, {counts}")
    cells = {name.lower(): column for name, column in further_columns(result).items()}
    if result.control:
        cells["shuffled labels"] = {name: number(values.mean()) for name, values in result.control.items()}
    columns, rows = metric_rows(scored, cells)
    click.echo(aligned(columns, rows))
    notes = [encoder_note(evaluation), caution_of(scored.few), *cautions_of(evaluation), result.no_control]
    for note in filter(None, notes):
        click.echo(note)
    click.echo(answer(scored))
    for note in recording_notes(result):
        click.echo(note)
    if result.efficiency is not None:
        curve = result.efficiency
        click.echo()
        columns, rows = [curve.unit, "patients", display_name(curve.metric), "95 % of draws"], []
        for row in curve.band().to_dict("records"):
            spread = f"{number(row['low'])} to {number(row['high'])}"
            rows.append([f"{row[curve.unit]:g}", f"{row['n_patients']:.0f}", number(row["mean"]), spread])
        click.echo(aligned(columns, rows))
