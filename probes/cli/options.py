"""Options that the probe commands share, and what they make of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.evaluate import Evaluation
    from probes.problem import Problem

Command = TypeVar("Command", bound=Callable[..., Any])


def numbers(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """The numbers of "35,40,50"; None when the option is not given."""
    if value is None:
        return None
    try:
        return tuple(float(piece) for piece in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 35,40,50") from error


def data_options(command: Command) -> Command:
    """What is learnt from what: the file, the target, the level, the splits."""
    for option in reversed(
        [
            click.argument("embeddings", type=click.Path(exists=True, dir_okay=False)),
            click.option("--target", required=True, help='Label column; several as "EF,ESV", or "all".'),
            click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="CSV of labels, joined by id."),
            click.option(
                "--level",
                type=click.Choice(["frame", "clip", "video", "study"]),
                help="What one prediction is for.  [default: video, or the file's own if that is study]",
            ),
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
            click.option(
                "--task",
                type=click.Choice(["regression", "binary", "multiclass"]),
                help="Kind of task.  [default: by the values]",
            ),
            click.option("--positive", metavar="CLASS", help="Positive class of a binary target."),
            click.option(
                "--folds",
                type=click.IntRange(min=2),
                help="Grouped K-fold over patients.  [default: the split column, or 5]",
            ),
            click.option("--allow-leakage", is_flag=True, help="Go on with patients on both sides of a split."),
        ]
    ):
        command = option(command)
    return command


def output_options(command: Command) -> Command:
    """What is computed of the predictions, and where it goes."""
    for option in reversed(
        [
            click.option(
                "--cutoffs", callback=numbers, metavar="35,40", help="AUROC of a regression below these values."
            ),
            click.option("--draws", type=click.IntRange(min=1), default=10_000, show_default=True, help="Bootstraps."),
            click.option("--seed", type=int, default=0, show_default=True, help="Of folds and bootstraps."),
            click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder of the run."),
        ]
    ):
        command = option(command)
    return command


def run_probe(make_probe: Callable[[Problem], BaseProbe], options: dict[str, Any]) -> None:
    """Load, evaluate, write, print: the body of `probe linear` and its siblings. options: of both groups above."""
    from panecho_embed.store import EmbeddingFile
    from probes.evaluate import evaluate, make_folds
    from probes.problem import load_problems
    from probes.run import RunInfo, write_run

    names = ("labels", "level", "pooling", "fusion", "task", "positive")
    problems = load_problems(
        options["embeddings"], options["target"], **{name: options[name] for name in names if options[name] is not None}
    )
    evaluations = []
    for problem in problems:
        evaluation = evaluate(
            problem,
            make_probe(problem),
            make_folds(problem, folds=options["folds"], seed=options["seed"]),
            cutoffs=(options["cutoffs"] or ()) if problem.task == "regression" else (),
            draws=options["draws"],
            seed=options["seed"],
            allow_leakage=options["allow_leakage"],
        )
        print_scores(evaluation)
        evaluations.append(evaluation)
    provenance = EmbeddingFile(options["embeddings"]).provenance
    weights = {"source": provenance.weights.source, "pretrained": provenance.weights.pretrained}
    info = RunInfo(
        source=str(options["embeddings"]),
        fingerprint=provenance.fingerprint,
        backbone=provenance.backbone,
        weights={**weights, "sha256": provenance.weights.sha256, "licence": provenance.weights.licence},
        command=command_line(click.get_current_context()),
        options=options,
    )
    folder = write_run(evaluations, info, options["out"])
    click.echo(f"written: {folder}")


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
            text = ",".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)
            words.extend([parameter.opts[-1], text])
    return shlex.join(words)


def print_scores(evaluation: Evaluation) -> None:
    """A table of metrics, intervals and the baseline."""
    problem = evaluation.problem
    click.echo(f"\n{problem.target}: {problem.task}, {problem.level} level, {_counts(evaluation)}")
    rows = [("", "value", "95 % interval", "baseline")]
    for name, score in evaluation.scores.items():
        interval = f"{score.low:.3f} to {score.high:.3f}"
        rows.append((name, f"{score.value:.3f}", interval, f"{evaluation.baseline_scores[name].value:.3f}"))
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
