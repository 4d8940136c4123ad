"""Options that the probe commands share, and what they make of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from panecho_embed.cli.options import stacked

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.evaluation import Evaluation
    from probes.problem import Problem
    from probes.run import TargetResult


def numbers(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """The numbers of "35,40,50"; None when the option is not given."""
    if value is None:
        return None
    try:
        return tuple(float(piece) for piece in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 35,40,50") from error


def whole_numbers(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """The whole numbers of "1,5,10"; None when the option is not given."""
    if value is None:
        return None
    try:
        return tuple(int(piece) for piece in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 1,5,10") from error


# Which labels, and what one prediction is for.
label_options = stacked(
    click.option("--target", required=True, help='Label column; several as "EF,ESV", or "all".'),
    click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="CSV of labels, joined by id."),
    click.option(
        "--level",
        type=click.Choice(["frame", "clip", "video", "study"]),
        help="What one prediction is for.  [default: video, or the file's own if that is study]",
    ),
    click.option(
        "--task",
        type=click.Choice(["regression", "binary", "multiclass"]),
        help="Kind of task.  [default: by the values]",
    ),
    click.option("--positive", metavar="CLASS", help="Positive class of a binary target."),
)

# Who is trained on, and who tests.
split_options = stacked(
    click.option(
        "--folds",
        type=click.IntRange(min=2),
        help="Grouped K-fold over patients.  [default: the split column, or 5]",
    ),
    click.option(
        "--k-shot",
        type=click.IntRange(min=1),
        help="Train on so many patients a class only (in a regression: patients), drawn by --seed.",
    ),
    click.option("--allow-leakage", is_flag=True, help="Go on with patients on both sides of a split."),
)

data_options = stacked(
    click.argument("embeddings", type=click.Path(exists=True, dir_okay=False)), label_options, split_options
)

# How the rows of a video or study become one prediction.
pooling_options = stacked(
    click.option(
        "--pooling",
        type=click.Choice(["mean", "mean+std", "max"]),
        default="mean",
        show_default=True,
        help="How rows become one a video or study.",
    ),
    click.option(
        "--fusion",
        type=click.Choice(["early", "late"]),
        default="early",
        show_default=True,
        help="Pool embeddings (early), or average the predictions of rows (late).",
    ),
)

# How neighbours are found and weighed.
neighbour_options = stacked(
    click.option(
        "--metric",
        type=click.Choice(["cosine", "euclidean"]),
        default="cosine",
        show_default=True,
        help="What makes a neighbour near.",
    ),
    click.option("--k", callback=whole_numbers, metavar="1,5,10", help="Numbers of neighbours.  [default: 1 to 200]"),
    click.option(
        "--weights",
        type=click.Choice(["softmax", "distance", "uniform"]),
        default="softmax",
        show_default=True,
        help="Of neighbours; softmax is for cosine.",
    ),
    click.option("--temperature", type=float, default=0.07, show_default=True, help="Of the softmax."),
)

# Of the intervals, and where everything goes.
statistics_options = stacked(
    click.option("--draws", type=click.IntRange(min=1), default=10_000, show_default=True, help="Bootstraps."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of folds, draws and bootstraps."),
    click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder of the run."),
)

# What is computed of the predictions.
output_options = stacked(
    click.option("--cutoffs", callback=numbers, metavar="35,40", help="AUROC of a regression below these values."),
    click.option("--subgroups", metavar="COLUMN,...", help="Score by view or label column too."),
    click.option("--control", is_flag=True, help="Train on shuffled labels too, 20 times: what must fail."),
    click.option("--fractions", callback=numbers, metavar="0.1,1", help="Label efficiency: parts of the patients."),
    click.option("--shots", callback=whole_numbers, metavar="5,20", help="Label efficiency: patients a class."),
    click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Draws a size."),
    statistics_options,
)


def run_probe(make_probe: Callable[[Problem], BaseProbe], options: dict[str, Any]) -> None:
    """Load, evaluate, write, print: the body of `probe linear` and its siblings. options: of both groups above."""
    from probes.outputs import RunInfo, make_folder, write_run
    from probes.problem import load_problems
    from probes.run import RunSettings, run_targets

    data = ("labels", "level", "pooling", "fusion", "task", "positive")
    problems = load_problems(options["embeddings"], options["target"], **{name: options[name] for name in data})
    settings = RunSettings(
        folds=options["folds"],
        k_shot=options["k_shot"],
        cutoffs=options["cutoffs"] or (),
        subgroups=tuple(filter(None, (options["subgroups"] or "").split(","))),
        control=options["control"],
        fractions=options["fractions"] or (),
        shots=options["shots"] or (),
        repeats=options["repeats"],
        draws=options["draws"],
        seed=options["seed"],
        allow_leakage=options["allow_leakage"],
    )
    folder = make_folder(options["out"])
    results = []
    for result in run_targets(problems, make_probe, settings):
        print_scores(result)
        results.append(result)
    info = RunInfo(str(options["embeddings"]), command_line(click.get_current_context()), options)
    write_run(results, info, folder)
    click.echo(f"\nwritten: {folder}, open {folder / 'report.html'}")


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
    """A table of metrics, intervals and the baseline."""
    from panecho_embed.wording import display_name, interval, number

    evaluation, problem = result.evaluation, result.evaluation.problem
    click.echo(f"\n{problem.target}: {problem.task}, {problem.level} level, {_counts(evaluation)}")
    rows = [["", "value", "95 % interval", "baseline"]]
    for name, score in evaluation.scores.items():
        baseline = number(evaluation.baseline_scores[name].value)
        rows.append([display_name(name), number(score.value), interval(score), baseline])
    if result.control is not None:
        shuffled = [number(values.mean()) for values in result.control.values()]
        rows = [[*row, last] for row, last in zip(rows, ["shuffled labels", *shuffled], strict=True)]
    print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
        click.echo("  ".join(cells).rstrip())


def _counts(evaluation: Evaluation) -> str:
    score = next(iter(evaluation.scores.values()))
    missing = f", {evaluation.problem.n_missing} without a label left out" if evaluation.problem.n_missing else ""
    return f"{score.n} tested, of {score.n_patients} patients{missing}"
