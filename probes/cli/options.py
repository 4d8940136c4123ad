"""Options that the probe commands share."""

from __future__ import annotations

import click

from panecho_embed.cli.options import FileToRead, stacked


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
    click.argument("embeddings", type=FileToRead(exists=True, dir_okay=False)), label_options, split_options
)

# How the rows of a video or study become one prediction.
pooling_options = stacked(
    click.option(
        "--pooling",
        type=click.Choice(["mean", "mean+std", "max"]),
        default="mean",
        show_default=True,
        help="How rows become one a video or study; by learned attention: `probe attentive`.",
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
