"""`panecho-embed probe`: a command for every probe, `compare`, `apply`; nothing heavy is imported before one runs."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from panecho_embed.cli.compare import comparison_options
from panecho_embed.cli.options import (
    FileToRead,
    overwrite_option,
    reading_options,
    replace_option,
    stacked,
    threshold_option,
)
from probes.registry import known_probes

if TYPE_CHECKING:
    from panecho_embed.core.records import EmbeddingTable
    from probes.base import BaseProbe
    from probes.plans import RunSettings
    from probes.problem import Problem
    from probes.run import TargetResult


_Options = Callable[[Callable[..., Any]], Callable[..., Any]]

_CHOSEN = "is chosen on validation patients, or on inner folds; the test patients are used once."


def _choice(flag: str, values: Sequence[str], text: str) -> _Options:
    """An option that takes one of several words, the first by default."""
    return click.option(flag, type=click.Choice(values), default=values[0], show_default=True, help=text)


def _count(flag: str, default: int | None, text: str, least: int = 1) -> _Options:
    return click.option(flag, type=click.IntRange(min=least), default=default, show_default=True, help=text)


def _list(flag: str, example: str, text: str, kind: Callable[[str], Any] = float) -> _Options:
    """An option that takes several numbers, "35,40,50"; None when it is not given."""

    def read(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        try:
            return None if value is None else tuple(kind(piece) for piece in value.split(","))
        except ValueError as error:
            what = "numbers such as 35,40,50" if kind is float else "whole numbers such as 1,5,10"
            raise click.BadParameter(f"{value!r} is not a list of {what}") from error

    return click.option(flag, callback=read, metavar=example, help=text)


# Which labels, and what one prediction is for.
_label_options = stacked(
    click.option("--target", required=True, help='Label column; several as "EF,ESV", or "all".'),
    click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="CSV of labels, joined by id."),
    click.option(
        "--level",
        type=click.Choice(["frame", "clip", "video", "study"]),
        help="What one prediction is for.  [default: video, or study for a file at study level]",
    ),
    reading_options,
    click.option(
        "--task-table",
        type=click.Path(exists=True, dir_okay=False),
        help="Table of tasks in the form of tasks.csv: classes, units and signs by column name.  [default: PanEcho's]",
    ),
)
# Who is trained on, and who tests.
_split_options = stacked(
    _count(
        "--folds",
        None,
        "Number of cross-validation folds, grouped by patient.  [default: the split column, or 5]",
        least=2,
    ),
    _count("--k-shot", None, "Train on K randomly drawn patients per class (K patients for a regression)."),
    _count(
        "--trainings",
        None,
        "Number of trainings: draws with --k-shot, partitions with folds.  [default: 20 draws, 5 partitions]",
    ),
    _count(
        "--refits",
        None,
        "With one training set, also train on this many random subsets (80 % of its patients), so that `compare` "
        "knows what other training patients would give.",
        least=2,
    ),
    click.option("--allow-leakage", is_flag=True, help="Accept patients on both sides of a split."),
)
_data_options = stacked(
    click.argument("embeddings", type=FileToRead(exists=True, dir_okay=False)), _label_options, _split_options
)
# How the rows of a video or study become one prediction.
_pooling_options = stacked(
    _choice(
        "--pooling",
        ["mean", "mean+std", "max"],
        "How the rows of a video or study are combined; `probe attentive` learns it.",
    ),
    _choice(
        "--fusion",
        ["early", "late"],
        "Whether to pool the embeddings (early) or to average the predictions of their rows (late).",
    ),
)
# Of decisions and intervals, and where everything goes.
_statistics_options = stacked(
    _list("--cutoffs", "35,40", "Also report, for a regression, the AUROC of being below these values."),
    threshold_option,
    _count("--draws", 10_000, "Number of bootstrap samples."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed for folds, draws and bootstrap."),
    click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Run folder to write."),
    replace_option,
)
# What is computed of the predictions.
_output_options = stacked(
    click.option(
        "--subgroups", metavar="COLUMN,...", help="Also report scores by the values of these columns (view or labels)."
    ),
    click.option(
        "--control",
        is_flag=True,
        help="Also train on shuffled labels, 20 times; a sound setup then scores like the baseline.",
    ),
    _list("--fractions", "0.1,1", "Label efficiency: fractions of the training patients to train on."),
    _list("--shots", "5,20", "Label efficiency: numbers of training patients per class.", int),
    _count("--repeats", 10, "Number of random draws per training-set size (--fractions, --shots)."),
    _statistics_options,
)

_LINEAR = stacked(
    _list("--strengths", "1,10", "Grid of alpha (regression) or C, to choose from."),
    click.option(
        "--class-weight", type=click.Choice(["balanced"]), help="Weight the classes inversely to their frequency."
    ),
)
_NEIGHBOURS = stacked(
    _choice("--metric", ["cosine", "euclidean"], "Distance between embeddings."),
    _list("--k", "1,5,10", "Numbers of neighbours to choose from.  [default: 1 to 200]", int),
    _choice(
        "--weights", ["softmax", "distance", "uniform"], "Weights of the neighbours; softmax needs the cosine metric."
    ),
    _list("--temperature", "0.05,0.1", "Temperatures of the softmax to choose from.  [default: 0.01 to 0.3]"),
    _choice(
        "--centre", ["auto", "yes", "no"], "Subtract the training mean before the cosine; auto chooses on the folds."
    ),
)
_FAISS = stacked(
    _NEIGHBOURS,
    _choice(
        "--index",
        ["flat", "ivf", "hnsw", "sq8", "pq"],
        "Kind of faiss index: flat is exact; the others are faster on large files, or smaller.",
    ),
    _choice("--device", ["cpu", "gpu"], "Device of the faiss index; gpu needs a faiss built for GPUs."),
)
_ATTENTIVE = stacked(
    _count("--heads", 4, "Number of attention heads."), _count("--epochs", 50, "Maximum number of training epochs.")
)
_SET = click.option("--set", multiple=True, metavar="NAME=VALUE", help="Parameter of the probe; repeatable.")


def _probe_command(name: str, text: str, own: _Options, *, pools: bool = False) -> click.Command:
    """The command of one probe. own: options named after its parameters, or `--set`. pools: it pools rows itself."""
    pooling: _Options = stacked() if pools else _pooling_options
    given = [parameter.name or "" for parameter in click.command()(own(lambda: None)).params]

    @click.command(name, help=text)
    @_data_options
    @pooling
    @own
    @_output_options
    def command(**options: Any) -> None:
        settings = _parsed(options["set"]) if own is _SET else {key: options[key] for key in given}
        if "centre" in settings:
            settings["centre"] = {"yes": True, "no": False}.get(settings["centre"], settings["centre"])
        fixed = {"pooling": "mean", "fusion": "late"} if pools else {}
        _run_probe(lambda problem: _make_known(name, problem, options["seed"], settings), {**options, **fixed})

    return command


def _registered_command(name: str) -> click.Command:
    """The command of a probe that another package registers; its settings are given by `--set`."""
    return _probe_command(name, f"The registered probe {name} on EMBEDDINGS.", _SET)


def _make_known(name: str, problem: Problem, seed: int, settings: Mapping[str, Any] | None = None) -> BaseProbe:
    from probes.commands import make_probe

    return make_probe(name, problem, seed, settings)


def _parsed(given: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
        try:
            settings[name.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name.strip()] = value
    return settings


def _run_probe(make_probe: Callable[[Problem], BaseProbe], options: dict[str, Any]) -> None:
    """The body of every such command; of several targets those that can't be evaluated are listed, exit code 3."""
    from panecho_embed.core.errors import ArgumentError
    from panecho_embed.core.outputs import refuse_to_replace_run
    from probes.problem import load_problems

    # Before anything is computed.
    refuse_to_replace_run(Path(options["out"]), options["overwrite"], "probe run")
    refused: dict[str, str] = {}
    problems = load_problems(options["embeddings"], options["target"], **_data_of(options), refused=refused)
    _check_flags(problems, options)
    # What trains loads scikit-learn and more; a wrong target is known by now.
    from probes.outputs import RunInfo, write_run
    from probes.run import run_targets

    results = []
    several = len(problems) + len(refused) > 1
    for result in run_targets(problems, make_probe, _settings_of(options), refused=refused if several else None):
        _print_scores(result)
        results.append(result)
    if not results:
        name, why = next(iter(refused.items()))
        raise ArgumentError(f"none of {len(refused)} targets can be evaluated; {name}: {why}")
    context = click.get_current_context()
    made_by = " ".join(context.command_path.split()[1:])
    shown = {name: str(value) if name == "threshold" else value for name, value in options.items()}
    info = RunInfo(str(options["embeddings"]), made_by, _command_line(context), shown, refused)
    folder = write_run(results, info, options["out"], overwrite=options["overwrite"])
    for result in results:
        if why := result.probe.saveable():
            click.echo(f"note: the probe of {result.problem.target.name} is not saved: {why}")
    for name, why in refused.items():
        click.echo(f"\n{name} was not evaluated: {why}", err=True)
    click.echo(f"\nwritten: {folder}, open {folder / 'report.html'}")
    if refused:
        raise click.exceptions.Exit(3)


def _data_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options that say what is loaded, as `load_problems` takes them."""
    from panecho_embed.core.tasks import read_tasks
    from panecho_embed.evaluation.targets import Reading

    table = {} if not options["task_table"] else {"tasks": {t.name: t for t in read_tasks(options["task_table"])}}
    reading = Reading.parse(options["task"], options["positive"], options["order"], **table)
    return {name: options[name] for name in ("labels", "level", "pooling", "fusion")} | {"reading": reading}


def _settings_of(options: dict[str, Any]) -> RunSettings:
    """The options that say what to compute; a command without one of them does not compute it."""
    from probes.plans import RunSettings

    given = {field.name: options.get(field.name) for field in fields(RunSettings)}
    given["subgroups"] = tuple(filter(None, (options.get("subgroups") or "").split(",")))
    return RunSettings(**{name: value for name, value in given.items() if value is not None})


def _check_flags(problems: Sequence[Problem], options: dict[str, Any]) -> None:
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


def _command_line(context: click.Context) -> str:
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


def _print_scores(result: TargetResult) -> None:
    """The answer, a table of metrics, intervals and the baseline, and the curve of label efficiency."""
    from panecho_embed.core.wording import aligned, number
    from panecho_embed.evaluation.conclusions import sentence
    from panecho_embed.evaluation.metrics import display_name
    from panecho_embed.evaluation.report import metric_rows
    from panecho_embed.evaluation.scores import caution_of
    from probes.account import CLAIM, cautions_of, doubts_of, encoder_note, further_columns, recording_notes

    evaluation, problem = result.evaluation, result.problem
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
    click.echo(sentence(scored, CLAIM, doubts_of(result)))
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


class _Probes(click.Group):
    """The commands of this package, and one for every probe that is registered by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, without importing any probe."""
        return [*super().list_commands(ctx), *(name for name in known_probes() if name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name; of a registered probe one with the options that all probes share."""
        known = super().get_command(ctx, cmd_name)
        return _registered_command(cmd_name) if known is None and cmd_name in known_probes() else known


@click.group(cls=_Probes)
def probe() -> None:
    """Learn whether a task can be read from embeddings."""


for command in (
    _probe_command(
        "linear",
        f"Ridge (numbers) or logistic regression (classes) on standardised EMBEDDINGS.\n\nThe strength {_CHOSEN}",
        _LINEAR,
    ),
    _probe_command(
        "knn", f"Nearest neighbours of EMBEDDINGS, exact.\n\nThe number of neighbours {_CHOSEN}", _NEIGHBOURS
    ),
    _probe_command(
        "faiss",
        "Nearest neighbours of EMBEDDINGS on a faiss index.\n\nAs `probe knn`, for files of millions of rows.",
        _FAISS,
    ),
    _probe_command(
        "attentive",
        "Attention over the rows (clips, frames) of each video or study of EMBEDDINGS.\n\nWhat to look at is "
        f"learned with what to read. The number of epochs {_CHOSEN}",
        _ATTENTIVE,
        pools=True,
    ),
):
    probe.add_command(command)


@probe.command()
@click.argument("embeddings", nargs=-1, required=True, type=FileToRead(exists=True, dir_okay=False))
@_label_options
@_pooling_options
@_split_options
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
    help="Weights file of the clip encoder, the one that encoded the frames (--sweep).",
)
@click.option(
    "--backbone-seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed for the weights of a registered backbone, the one of the frames (--sweep).",
)
@_statistics_options
def compare(embeddings: tuple[str, ...], sweep: bool, **options: Any) -> None:
    """Compare EMBEDDINGS on the same patients, splits and draws.

    Trains the same probe on each file: models, samplings or poolings. A candidate is called by its file's name.
    Finished runs are compared by `panecho-embed compare`.
    """
    from panecho_embed.cli.compare import print_comparisons
    from panecho_embed.core.outputs import refuse_to_replace_run
    from panecho_embed.evaluation.comparison_report import write_comparison
    from probes.problem import load_problems
    from probes.registry import probe_class

    folder = Path(options["out"])
    refuse_to_replace_run(folder, options["overwrite"], "comparison")
    refused: dict[str, str] = {}
    candidates: dict[str, list[Problem]] = {}
    pools = probe_class(options["kind"]).pools
    chosen = _data_of(options) | ({"fusion": "late"} if pools else {})
    for name, source in _sources(embeddings, sweep, options):
        candidates[name] = load_problems(source, options["target"], **chosen, refused=refused)
    _check_flags([problem for problems in candidates.values() for problem in problems], options)
    # As above.
    from probes.account import comparison_account, encoder_notes
    from probes.comparison import compare_problems

    compared = compare_problems(
        candidates,
        lambda problem: _make_known(options["kind"], problem, options["seed"]),
        _settings_of(options),
        reference=options["reference"],
        margin=options["margin"],
        refused=refused,
    )
    print_comparisons(compared.comparisons, options["reference"])
    for note in encoder_notes(compared):
        click.echo(note)
    account = comparison_account(compared, options["reference"], _command_line(click.get_current_context()))
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
        from probes.comparison import sweep_tables

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


@probe.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("embeddings", type=FileToRead(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV file of predictions to write.",
)
@overwrite_option
def apply(run: Path, embeddings: Path, out: Path, overwrite: bool) -> None:
    """Predict with the probes of RUN for EMBEDDINGS that were made in the same way.

    Says how many of the patients trained or tuned the encoder, where its weights record that.
    """
    from panecho_embed.core.outputs import refuse_to_replace

    # Before scikit-learn is loaded.
    refuse_to_replace(out, overwrite, embeddings)
    import numpy as np

    from panecho_embed.core.patients import encoder_caution
    from panecho_embed.store import EmbeddingFile
    from probes.commands import apply as run_apply

    frame = run_apply(run, embeddings, out, overwrite=overwrite)
    click.echo(f"{len(frame)} predictions: {out}")
    who = np.array(frame["patient_id"], dtype=object)
    if note := encoder_caution(EmbeddingFile(embeddings).provenance.patients, who, who, "patient"):
        click.echo(note)
