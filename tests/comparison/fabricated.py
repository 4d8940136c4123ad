"""A whole comparison of made-up runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panecho_embed.comparison.evaluate import compare_outcomes
from panecho_embed.comparison.plan import Trial, plan_trials
from panecho_embed.comparison.result import ComparisonResult, Problem
from panecho_embed.finetune.outcome import Outcome, read_outcome
from panecho_embed.tasks import Task
from tests.finetune.fabricate import EF, fabricate, small_recipe

DRAWS = 100
NOISE = {"panecho": 3.0, "random": 9.0, "imagenet": 4.0}


def fabricated_runs(
    out: Path, *, seeds: int = 2, fractions: Sequence[float] = (1.0,), tasks: Sequence[Task] = (EF,)
) -> dict[Trial, Outcome]:
    """Finished runs of three starts; the fewer patients, the worse."""
    recipe = small_recipe(*[task.name for task in tasks], draws=DRAWS)
    outcomes = {}
    for trial in plan_trials(recipe, list(NOISE), out, seeds=seeds, fractions=fractions):
        noise = NOISE[trial.init] / trial.fraction**0.3 + 0.1 * trial.seed
        fabricate(trial.folder, trial.recipe, init=trial.init, noise=noise, tasks=tasks)
        outcomes[trial] = read_outcome(trial.folder)
    return outcomes


def fabricated_result(out: Path, problems: Sequence[Problem] = (), **options: object) -> ComparisonResult:
    """The comparison of these runs, not written yet."""
    outcomes = fabricated_runs(out, **options)  # type: ignore[arg-type]
    comparisons, left_out = compare_outcomes(outcomes, (), "panecho", draws=DRAWS, seed=0)
    trials = list(outcomes)
    return ComparisonResult(
        folder=out,
        recipe=trials[0].recipe,
        inits=tuple(NOISE),
        fractions=tuple(dict.fromkeys(trial.fraction for trial in trials)),
        seeds=len({trial.seed for trial in trials}),
        outcomes=outcomes,
        comparisons=comparisons,
        reference="panecho",
        problems=tuple(problems),
        n_left_out=left_out,
        trained=len(trials),
        reused=0,
        command="panecho-embed compare echonet-dynamic --data /data -o out",
    )
