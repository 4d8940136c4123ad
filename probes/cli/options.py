"""Options that the probe commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from panecho_embed.cli.options import FileToRead, reading_options, replace_option, stacked, threshold_option


def _listed(kind: Callable[[str], Any], example: str) -> Callable[..., tuple[Any, ...] | None]:
    """A callback that reads the values of "35,40,50"; None when the option is not given."""

    def read(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        try:
            return None if value is None else tuple(kind(piece) for piece in value.split(","))
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a list of {example}") from error

    return read


numbers = _listed(float, "numbers such as 35,40,50")
whole_numbers = _listed(int, "whole numbers such as 1,5,10")


# Which labels, and what one prediction is for.
label_options = stacked(
    click.option("--target", required=True, help='Label column; several as "EF,ESV", or "all".'),
    click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="CSV of labels, joined by id."),
    click.option(
        "--level",
        type=click.Choice(["frame", "clip", "video", "study"]),
        help="What one prediction is for.  [default: video, or the file's own if that is study]",
    ),
    reading_options,
    click.option(
        "--task-table",
        type=click.Path(exists=True, dir_okay=False),
        help="Table of tasks in the form of tasks.csv: classes, units and signs by column name.  [default: PanEcho's]",
    ),
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
        help="Train on K randomly drawn patients per class (K patients for a regression).",
    ),
    click.option(
        "--trainings",
        type=click.IntRange(min=1),
        help="Number of trainings: draws with --k-shot, partitions with folds.  [default: 20 draws, 5 partitions]",
    ),
    click.option(
        "--refits",
        type=click.IntRange(min=2),
        help="With one training set, also train on this many random subsets (80 % of its patients), so that `compare` "
        "knows what other training patients would give.",
    ),
    click.option("--allow-leakage", is_flag=True, help="Accept patients on both sides of a split."),
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

# Of decisions and intervals, and where everything goes.
statistics_options = stacked(
    click.option("--cutoffs", callback=numbers, metavar="35,40", help="AUROC of a regression below these values."),
    threshold_option,
    click.option(
        "--draws", type=click.IntRange(min=1), default=10_000, show_default=True, help="Number of bootstrap samples."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed for folds, draws and bootstrap."),
    click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder of the run."),
    replace_option,
)

# What is computed of the predictions.
output_options = stacked(
    click.option("--subgroups", metavar="COLUMN,...", help="Also score by view or label column."),
    click.option(
        "--control",
        is_flag=True,
        help="Also train on shuffled labels, 20 times; a sound setup then scores like the baseline.",
    ),
    click.option("--fractions", callback=numbers, metavar="0.1,1", help="Label efficiency: parts of the patients."),
    click.option("--shots", callback=whole_numbers, metavar="5,20", help="Label efficiency: patients per class."),
    click.option(
        "--repeats",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Number of random draws per training-set size (--fractions, --shots).",
    ),
    statistics_options,
)
