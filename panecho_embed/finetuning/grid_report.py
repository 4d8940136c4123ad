"""What a grid of runs leaves: the comparison's files for each fraction, runs.csv, and one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from panecho_embed.core.outputs import written_run
from panecho_embed.core.progress import Announce, silent
from panecho_embed.core.wording import interval, number, plural
from panecho_embed.evaluation.comparison import Comparison
from panecho_embed.evaluation.comparison_report import contrast_rows, fill_comparison, methods_of, score_rows
from panecho_embed.evaluation.metrics import display_name
from panecho_embed.evaluation.page import Block, Code, Facts, Figure, Figures, Folded, Section, Table, figure
from panecho_embed.evaluation.report import Account
from panecho_embed.evaluation.scores import FEWEST_PATIENTS, Scored
from panecho_embed.finetuning.frozen import FrozenProbe, linear_probe
from panecho_embed.finetuning.grid import Grid, GridJob, checked_starts, run_grid
from panecho_embed.finetuning.outcome import Outcome
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.recipe_files import load_recipe, to_toml
from panecho_embed.finetuning.report import (
    evaluation_sentences,
    picture_words,
    settings_id,
    start_facts,
    training_sentences,
)

if TYPE_CHECKING:
    import pandas as pd

    from panecho_embed.finetuning.grid import Trial


def grid(
    recipe: str | Path | Recipe,
    inits: Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    seeds: int = 3,
    fractions: Sequence[float] = (1.0,),
    reference: str | None = None,
    margin: str = "",
    settings: Sequence[str] = (),
    weights: Mapping[str, str | Path] | None = None,
    frozen: bool | FrozenProbe = False,
    device: str = "auto",
    workers: int | None = None,
    strict: bool = False,
    allow_leakage: bool = False,
    progress: bool | None = False,
    announce: Announce = silent,
    command: str = "",
) -> Grid | None:
    """Fine-tune several starting points with several seeds, compare them on the same test patients, and report.

    Resumable: finished runs are reused, interrupted ones resumed.

    Parameters
    ----------
    recipe : str, Path or Recipe
        One of `recipes()`, a TOML file, or a loaded recipe.
    inits : sequence of str
        Starting points, by the names that `load_backbone` takes.
    data : str or Path
        Data set as downloaded, or a table.
    out : str or Path
        Folder of the grid; each run has a folder below it.
    seeds : int
        Number of runs of each start, with the recipe's seed and the following ones.
    fractions : sequence of float
        Parts of the training patients to train on, above 0 to 1.
    reference : str, optional
        Start that differences are to. Default: the first.
    margin : str
        Differences below this do not matter, as in `compare`.
    settings : sequence of str
        Changes to the recipe, such as ["optimizer.lr=3e-5"].
    weights : mapping of str to path, optional
        Weights files by start. Default: where `finetune` finds them.
    frozen : bool or FrozenProbe
        Also probe each untrained start, on the same patients; True takes the linear probe.
    device : str
        "auto", "cpu", "cuda" or "mps".
    workers : int, optional
        Decoding processes of each training process.
    strict : bool
        Stop at a start whose weights are unavailable or a run that fails. By default they are listed.
    allow_leakage : bool
        Accept a patient in training and in validation or test.
    progress : bool, optional
        Show progress bars; None shows them on a terminal only.
    announce : callable
        Called with what is being done.
    command : str
        Command to record in the report.

    Returns
    -------
    Grid or None
        None in the processes of torchrun that do not write.

    Raises
    ------
    SettingsMismatchError
        If a run in `out` has another recipe, start, weights or data set.
    ArgumentError, RecipeError, ManifestError, TrainingError, StoreError
        As `finetune`.
    """
    chosen = load_recipe(recipe, settings) if isinstance(recipe, str | Path) else recipe
    reference, files = checked_starts(inits, reference, weights or {})
    job = GridJob(Path(data), Path(out), files, device, workers, strict, allow_leakage, progress, announce, command)
    probe = linear_probe() if frozen is True else frozen or None
    result = run_grid(chosen, tuple(inits), job, seeds, fractions, reference, margin, probe)
    if result is not None:
        write_grid(result)
    return result


def write_grid(grid: Grid) -> Path:
    """Write the comparison at the largest fraction, runs.csv and the report; smaller fractions get a folder each.

    Returns the report. Raises StoreError.
    """
    largest, *smaller = grid.fractions
    names = [comparison.name for comparison in grid.comparisons[largest] if comparison.standings]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
    account = Account(
        title=f"Starting points compared: {listed}",
        subtitle="The same recipe, data and seeds from every start.",
        facts=_asked(grid),
        warnings=[f"{name}: {why}" for name, why in grid.problems.items()],
        inputs={
            trial.init: {"settings_id": settings_id(outcome), "data_digest": outcome.info["data"]["digest"]}
            for trial, outcome in reversed(list(grid.outcomes.items()))
        },
        sections=[
            *_fractions(grid),
            Section("Training", _training(grid)),
            Section("Data", _data(grid)),
            Section("Starting points", _starts(grid)),
        ],
        methods=[methods(grid)],
        command=grid.command,
        repeat=[Folded("The recipe", [Code(to_toml(grid.recipe))])],
    )
    with written_run(grid.folder) as new:
        _run_table(grid).to_csv(new / "runs.csv", index=False)
        for fraction in smaller:
            place = new / f"fraction-{fraction:g}"
            place.mkdir()
            part = Account(
                f"Fraction {fraction:g}", "", facts=_asked(grid), methods=account.methods, command=grid.command
            )
            fill_comparison(place, "grid", grid.comparisons[fraction], part)
        fill_comparison(new, "grid", grid.comparisons[largest], account)
    return grid.folder / "report.html"


def methods(grid: Grid) -> str:
    """How the result was obtained, in the words of a methods section."""
    recipe, first = grid.recipe, next(iter(grid.outcomes.values()))
    every = [comparison for fraction in grid.fractions for comparison in grid.comparisons[fraction]]
    frozen = (
        " Frozen: a linear probe (ridge or logistic regression) on the mean clip embedding of the untrained start, "
        "fitted to the same training patients, its strength chosen on the same validation patients. An image encoder "
        "without a transformer of its own was read on frames."
        if any("(frozen)" in name for comparison in every for name in comparison.standings)
        else ""
    )
    fractions = (
        " Smaller training sets were drawn by patient; with the same seed each lies inside the larger ones, and all "
        "starts got the same patients. Validation and test patients stayed the same."
        if len(grid.fractions) > 1
        else ""
    )
    orders = {trial.init: outcome.info["plane_order"] for trial, outcome in grid.outcomes.items()}
    pictures = " ".join(f"{init} saw {picture_words(order)}." for init, order in orders.items())
    fed = {trial.init: outcome.info["overrides"] for trial, outcome in grid.outcomes.items()}
    pictures += "".join(f" {init} was fed otherwise: {'; '.join(lines)}." for init, lines in fed.items() if lines)
    seeds = f"{grid.seeds} {plural('seed', grid.seeds)} (from {recipe.seed} on)"
    return (
        f"Each start was trained with {seeds} by the same recipe. {pictures} {training_sentences(recipe, first.tasks)} "
        f"{evaluation_sentences(recipe, first.tasks)}{frozen}{fractions} The value of a start is the mean of the "
        f"metric over its runs. {methods_of(every)}"
    )


def _run_table(grid: Grid) -> pd.DataFrame:
    """Every run with its weights, training and primary metric of each target, one row each."""
    import pandas as pd

    rows = []
    for trial, outcome in grid.outcomes.items():
        info = outcome.info
        row = {"init": trial.init, "fraction": trial.fraction, "seed": trial.seed, "folder": str(trial.folder)}
        row |= {"weights_sha256": info["weights"]["sha256"], "pretrained": info["weights"]["pretrained"]}
        row |= {"epochs": sum(map(len, outcome.histories.values())), "seconds": outcome.seconds}
        for comparison in grid.comparisons[trial.fraction]:
            if trial.init in comparison.standings:
                row[f"{comparison.metric}:{comparison.name}"] = _value_of(trial, comparison)
        rows.append(row)
    return pd.DataFrame(rows)


def efficiency_rows(grid: Grid, target: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the primary metric of each candidate at each fraction."""
    by_fraction = {fraction: _comparison(grid, fraction, target) for fraction in sorted(grid.fractions)}
    names = dict.fromkeys(name for comparison in by_fraction.values() for name in comparison.standings)
    rows = []
    for name in names:
        cells = []
        for comparison in by_fraction.values():
            scored = comparison.standings.get(name)
            cells.append(_cell(scored) if scored else "-")
        rows.append([name, *cells])
    return ["Start", *(f"{fraction:.3g}" for fraction in by_fraction)], rows


def _cell(scored: Scored) -> str:
    if scored.primary.n_patients < FEWEST_PATIENTS:
        return "withheld"
    return f"{number(scored.primary.value)} ({interval(scored.primary)})"


def _value_of(trial: Trial, comparison: Comparison) -> float:
    """The primary metric of one run."""
    scored = comparison.standings[trial.init]
    runs = [run for run, _ in scored.predictions.replicates()]
    return float(scored.by_run[comparison.metric][runs.index(str(trial.seed))])


def _comparison(grid: Grid, fraction: float, target: str) -> Comparison:
    return next(comparison for comparison in grid.comparisons[fraction] if comparison.name == target)


def _asked(grid: Grid) -> dict[str, str]:
    first = grid.recipe.seed
    facts = {"Reference": grid.reference} if grid.reference else {}
    facts |= {"Margin": grid.margin} if grid.margin else {}
    return facts | {
        "Recipe": grid.recipe.description,
        "Starts": ", ".join(grid.inits),
        "Seeds": ", ".join(map(str, range(first, first + grid.seeds))),
        "Training patients": ", ".join(f"{100 * fraction:g} %" for fraction in sorted(grid.fractions)),
    }


def _fractions(grid: Grid) -> list[Section]:
    """Label efficiency, and the tables of the smaller fractions."""
    if len(grid.fractions) < 2:
        return []
    blocks: list[Block] = []
    for comparison in grid.comparisons[grid.fractions[0]]:
        if not comparison.standings:
            continue
        caption = f"{comparison.name}: {display_name(comparison.metric, comparison.unit)} by the fraction of patients."
        if all(one.primary.n_patients >= FEWEST_PATIENTS for one in comparison.standings.values()):
            blocks.append(Figures([_efficiency_figure(grid, comparison.name)]))
        blocks.append(Table(*efficiency_rows(grid, comparison.name), caption))
    for fraction in grid.fractions[1:]:
        tables: list[Block] = []
        for comparison in grid.comparisons[fraction]:
            tables.append(Table(*score_rows(comparison), f"{comparison.name}. Best first."))
            if comparison.contrasts:
                tables.append(Table(*contrast_rows(comparison), "Differences, paired by patient."))
        blocks.append(Folded(f"At {100 * fraction:g} % of the training patients", tables))
    return [Section("By the number of training patients", blocks)]


def _efficiency_figure(grid: Grid, target: str) -> Figure:
    from panecho_embed.evaluation.plots import Efficiency, label_efficiency

    patients = {t.fraction: float(o.info["counts"]["train_patients"]) for t, o in grid.outcomes.items()}
    by_fraction = {fraction: _comparison(grid, fraction, target) for fraction in sorted(grid.fractions)}
    curves = []
    for name in dict.fromkeys(name for comparison in by_fraction.values() for name in comparison.standings):
        there = [(f, c.standings[name].primary) for f, c in by_fraction.items() if name in c.standings]
        value, low, high = (np.array([getattr(score, key) for _, score in there]) for key in ("value", "low", "high"))
        x = np.array([patients[fraction] for fraction, _ in there])
        curves.append(Efficiency(name, x, value, low, high, like=name.removesuffix(" (frozen)")))
    first = next(iter(by_fraction.values()))
    label = f"{target}: {display_name(first.metric, first.unit)}"
    return figure(label_efficiency(curves, label), f"{label} by the patients trained on, with 95 % intervals.")


def _training(grid: Grid) -> list[Block]:
    from panecho_embed.evaluation.plots import histories

    rows = []
    for trial, outcome in grid.outcomes.items():
        epochs = [str(len(table)) for table in outcome.histories.values()]
        kept = outcome.info["best_epoch"] if "" in outcome.histories else "-"
        folder = trial.folder.relative_to(grid.folder)
        row = [trial.init, f"{trial.fraction:g}", str(trial.seed), "+".join(epochs), str(kept)]
        rows.append([*row, f"{outcome.seconds / 60:.1f}", str(folder)])
    columns = ["Start", "Fraction", "Seed", "Epochs", "Kept", "Minutes", "Folder"]
    largest = grid.fractions[0]
    in_order = sorted(grid.outcomes.items(), key=lambda item: grid.inits.index(item[0].init))
    runs = [
        (trial.init, table["epoch"].to_numpy(), table["val_loss"].to_numpy())
        for trial, outcome in in_order
        for table in outcome.histories.values()
        if trial.fraction == largest
    ]
    drawing = figure(histories(runs, "validation loss"), "Validation loss of every run at the largest fraction.")
    return [Figures([drawing]), Table(columns, rows, "Every run", folded=True)]


def _data(grid: Grid) -> list[Block]:
    first = next(iter(grid.outcomes.values()))
    rows = []
    for fraction in grid.fractions:
        counts = next(o.info["counts"] for t, o in grid.outcomes.items() if t.fraction == fraction)
        cells = [f"{counts[part]} ({counts[f'{part}_patients']})" for part in ("train", "val", "test")]
        rows.append([f"{fraction:g}", *cells])
    caption = "Videos (and patients) of each part. No patient is on two sides of a split."
    if grid.recipe.data.folds:
        caption += " Training and validation: the mean over the folds; test: all folds together."
    data = first.info["data"]
    return [
        Table(["Fraction", "Training", "Validation", "Test"], rows, caption),
        Facts({"Data": data["path"], "Data digest (ids, splits, labels)": data["digest"]}),
    ]


def _starts(grid: Grid) -> Sequence[Block]:
    of_init: dict[str, Outcome] = {}
    for trial, outcome in grid.outcomes.items():
        of_init.setdefault(trial.init, outcome)
    return [Facts(start_facts(outcome.info)) for outcome in of_init.values()]
