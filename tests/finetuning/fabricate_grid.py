"""A whole grid of made-up runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from panecho_embed.core.tasks import Task
from panecho_embed.evaluation.candidates import Candidate
from panecho_embed.finetuning.grid import Grid, Trial, compare_outcomes, plan_trials
from panecho_embed.finetuning.outcome import Outcome, read_outcome
from tests.finetuning.fabricate import EF, fabricate, small_recipe

DRAWS = 100
NOISE = {"panecho": 3.0, "random": 9.0, "imagenet": 4.0}


def fabricated_runs(
    out: Path,
    *,
    seeds: int = 2,
    fractions: Sequence[float] = (1.0,),
    tasks: Sequence[Task] = (EF,),
    noise: Mapping[str, float] = NOISE,
) -> dict[Trial, Outcome]:
    """Finished runs of some starts; the fewer patients, the worse."""
    recipe = small_recipe(*[task.name for task in tasks], draws=DRAWS)
    outcomes = {}
    for trial in plan_trials(recipe, list(noise), out, seeds=seeds, fractions=fractions):
        sd = noise[trial.init] / trial.fraction**0.3 + 0.1 * trial.seed
        fabricate(trial.folder, trial.recipe, init=trial.init, noise=sd, tasks=tasks)
        outcomes[trial] = read_outcome(trial.folder)
    return outcomes


def fabricated_grid(
    out: Path,
    problems: Mapping[str, str] | None = None,
    frozen: Mapping[float, Sequence[Candidate]] | None = None,
    margin: str = "",
    reference: str = "panecho",
    **options: object,
) -> Grid:
    """The comparison of these runs, not written yet."""
    outcomes = fabricated_runs(out, **options)  # type: ignore[arg-type]
    trials = list(outcomes)
    return Grid(
        folder=out,
        recipe=trials[0].recipe,
        inits=tuple(dict.fromkeys(trial.init for trial in trials)),
        seeds=len({trial.seed for trial in trials}),
        outcomes=outcomes,
        comparisons=compare_outcomes(outcomes, frozen or {}, reference, margin=margin),
        reference=reference,
        problems=problems or {},
        trained=len(trials),
        reused=0,
        command="panecho-embed grid echonet-dynamic --data /data -o out",
        margin=margin,
    )
