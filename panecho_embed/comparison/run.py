"""The comparison itself: runs what is missing, reuses what is done, and says which start is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from panecho_embed.comparison.evaluate import compare_outcomes
from panecho_embed.comparison.frozen import FrozenProbe, embed_start, frozen_rows
from panecho_embed.comparison.gather import Entry
from panecho_embed.comparison.plan import Trial, folder_name, plan_trials, trial_state
from panecho_embed.comparison.report import write_comparison_report
from panecho_embed.comparison.result import ComparisonResult, Problem, write_files
from panecho_embed.errors import (
    ArgumentError,
    ManifestError,
    PanEchoEmbedError,
    StoreError,
    TrainingError,
    WeightsError,
)
from panecho_embed.finetune.data import Dataset, read_dataset
from panecho_embed.finetune.folder import RunFolder, read_failures
from panecho_embed.finetune.folds import make_fold
from panecho_embed.finetune.outcome import Outcome, read_outcome
from panecho_embed.finetune.processes import join_processes
from panecho_embed.finetune.recipe import Recipe
from panecho_embed.finetune.recipe_files import load_recipe
from panecho_embed.finetune.run import finetune
from panecho_embed.finetune.starts import load_start, weights_sha256
from panecho_embed.wording import counted

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class _Job:
    data: Path
    weights: Mapping[str, Path]
    device: str
    workers: int | None
    strict: bool
    allow_leakage: bool
    progress: bool | None
    announce: Say
    command: str


def compare(
    recipe: str | Path | Recipe,
    inits: Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    seeds: int = 3,
    fractions: Sequence[float] = (1.0,),
    reference: str | None = None,
    settings: Sequence[str] = (),
    weights: Mapping[str, str | Path] | None = None,
    frozen: FrozenProbe | None = None,
    device: str = "auto",
    workers: int | None = None,
    strict: bool = False,
    allow_leakage: bool = False,
    progress: bool | None = False,
    announce: Say = lambda message: None,
    command: str = "",
) -> ComparisonResult | None:
    """Fine-tune every start with every seed and fraction, and compare them; docs/finetuning.md says how.

    seeds: how many, from the recipe's on. fractions: of the training patients. reference: what the differences are to
    (default: the first start). weights: files by start. frozen: a probe, to add a line for every untrained start.
    strict: a start whose weights can't be had, or a run that can't be finished, ends the comparison; otherwise it is
    listed, and the others go on. Other arguments: see `finetune`.

    What is done is reused, what was begun goes on. Returns None in the processes of torchrun that do not write. Raises
    SettingsMismatchError if a run in `out` has another recipe, start, weights or data set; ArgumentError; and as
    `finetune`.
    """
    chosen = load_recipe(recipe, settings) if isinstance(recipe, str | Path) else recipe
    reference = reference or (inits[0] if inits else None)
    if reference not in inits:
        raise ArgumentError(f"reference is {reference!r}; the starts are {', '.join(inits)} (--reference)")
    files = {init: Path(file) for init, file in (weights or {}).items()}
    if strange := [init for init in files if init not in inits]:
        raise ArgumentError(
            f"weights are given for {', '.join(strange)}; the starts are {', '.join(inits)} (--weights)"
        )
    processes = join_processes(device, chosen.precision)
    chosen = replace(chosen, precision=processes.precision)
    dataset = read_dataset(data, chosen.data)
    folder = Path(out)
    trials = plan_trials(chosen, inits, folder, seeds=seeds, fractions=fractions)
    # Before hours of training, and the same answer in all processes.
    done = processes.on_main(lambda: [t for t in trials if trial_state(t, dataset.fingerprint) == "done"])
    # Under torchrun, one process speaks for all.
    say: Say = announce if processes.is_main else lambda message: None
    job = _Job(Path(data), files, device, workers, strict, allow_leakage, progress, say, command)
    todo = [trial for trial in trials if trial not in done]
    processes.on_main(lambda: _check_weights(done, files))
    _check_patients(todo, dataset, allow_leakage)
    problems = processes.on_main(lambda: _missing_starts(todo, job) + _lacking(done))
    problems += _train([trial for trial in todo if trial.init not in {p.name for p in problems}], job)
    if not processes.is_main:
        return None
    outcomes = {trial: read_outcome(trial.folder) for trial in trials if _is_done(trial, dataset)}
    if not outcomes:
        raise StoreError(
            f"{folder}: no run could be finished: " + "; ".join(f"{p.name}: {p.message}" for p in problems)
        )
    entries = _frozen(outcomes, dataset, folder, frozen, job, problems) if frozen else []
    there = reference if any(trial.init == reference for trial in outcomes) else None
    comparisons, left_out = compare_outcomes(outcomes, entries, there, draws=chosen.evaluation.draws, seed=chosen.seed)
    result = ComparisonResult(
        folder=folder,
        recipe=chosen,
        inits=tuple(inits),
        fractions=tuple(sorted({trial.fraction for trial in outcomes})),
        seeds=seeds,
        outcomes=outcomes,
        comparisons=comparisons,
        reference=there,
        problems=tuple(problems),
        n_left_out=left_out,
        trained=len([trial for trial in outcomes if trial not in done]),
        reused=len(done),
        command=command,
    )
    try:
        write_files(result)
        write_comparison_report(result)
    except OSError as error:
        raise StoreError(f"{folder}: the comparison can't be written ({error}) (-o)") from error
    return result


def _check_weights(done: Sequence[Trial], files: Mapping[str, Path]) -> None:
    """Raise SettingsMismatchError if runs of a pretrained start began from others than its weights are now."""
    now = {trial.init: weights_sha256(trial.init, trial.recipe, files.get(trial.init)) for trial in done}
    for trial in done:
        folder = RunFolder(trial.folder)
        weights = folder.info()["weights"]
        if weights["pretrained"]:
            # Where nobody knows the weights, all runs have those of the first.
            now[trial.init] = now[trial.init] or weights["sha256"]
        if (sha256 := now[trial.init]) is not None:
            folder.check_weights(sha256)


def _lacking(done: Sequence[Trial]) -> list[Problem]:
    """The runs that lacked videos when they were done."""
    return [_lacks(trial, len(failures)) for trial in done if (failures := read_failures(trial.folder))]


def _lacks(trial: Trial, count: int) -> Problem:
    return Problem(
        trial.name, f"{counted(count, 'video')} could not be used; {trial.folder / 'failures.csv'} lists them"
    )


def _check_patients(todo: Sequence[Trial], dataset: Dataset, allow_leakage: bool) -> None:
    """Raise ManifestError if a small part of the training patients leaves a target nothing to learn from."""
    for trial in {(trial.fraction, trial.seed): trial for trial in todo}.values():
        data = trial.recipe.data
        try:
            for fold in range(data.folds) if data.folds else [None]:
                make_fold(dataset, data, fold, seed=trial.seed, allow_leakage=allow_leakage)
        except ManifestError as error:
            raise ManifestError(f"fraction {trial.fraction:g}, seed {trial.seed}: {error} (--fractions)") from error


def _missing_starts(todo: Sequence[Trial], job: _Job) -> list[Problem]:
    """The starts whose weights can't be had; found out before anything is trained.

    Raises ArgumentError for a start that there is none of, or that the recipe can't take.
    """
    problems = []
    for trial in {trial.init: trial for trial in todo}.values():
        recipe, weights = trial.recipe, job.weights.get(trial.init)
        try:
            load_start(trial.init, recipe.model, recipe.clips.frames, weights=weights, seed=recipe.seed)
        except WeightsError as error:
            if job.strict:
                raise
            problems.append(Problem(trial.init, str(error)))
            job.announce(f"{trial.init} is left out: {error}")
    return problems


def _train(todo: Sequence[Trial], job: _Job) -> list[Problem]:
    """Do the runs; returns those that could not be finished, and those that lack videos."""
    problems: list[Problem] = []
    for number, trial in enumerate(todo, start=1):
        job.announce(f"run {number} of {len(todo)}: {trial.name}")
        try:
            summary = finetune(
                trial.recipe,
                job.data,
                trial.folder,
                init=trial.init,
                weights=job.weights.get(trial.init),
                device=job.device,
                workers=job.workers,
                allow_leakage=job.allow_leakage,
                progress=job.progress,
                announce=job.announce,
                command=job.command,
            )
        except TrainingError as error:
            if job.strict:
                raise
            problems.append(Problem(trial.name, str(error)))
            job.announce(f"{trial.name} is left out: {error}")
        else:
            if summary.failures:
                problems.append(_lacks(trial, len(summary.failures)))
    return problems


def _is_done(trial: Trial, dataset: Dataset) -> bool:
    return trial_state(trial, dataset.fingerprint) == "done"


def _frozen(
    outcomes: Mapping[Trial, Outcome],
    dataset: Dataset,
    out: Path,
    probe: FrozenProbe,
    job: _Job,
    problems: list[Problem],
) -> list[Entry]:
    """A line for every start and fraction; with one run where neither the weights nor the patients depend on a seed."""
    runs: dict[tuple[str, float], list[Trial]] = {}
    for trial in outcomes:
        runs.setdefault((trial.init, trial.fraction), []).append(trial)
    entries = []
    for (init, fraction), trials in runs.items():
        untrained = not outcomes[trials[0]].info["weights"]["pretrained"]
        seeded = untrained or fraction < 1
        found = []
        try:
            for trial in trials if seeded else trials[:1]:
                place = out / "frozen" / folder_name(init)
                file = place / (f"seed-{trial.seed}.h5" if untrained else "embeddings.h5")
                weights = job.weights.get(init)
                table = embed_start(init, weights, trial.recipe, job.data, file, device=job.device, workers=job.workers)
                folder = place / f"fraction-{fraction:g}" / f"seed-{trial.seed}"
                found.append(frozen_rows(table, dataset, trial.recipe, probe, folder, allow_leakage=job.allow_leakage))
        except PanEchoEmbedError as error:
            if job.strict:
                raise
            problems.append(Problem(f"{init} (frozen), fraction {fraction:g}", str(error)))
            continue
        entries.append(Entry(f"{init} (frozen)", fraction, tuple(found), random=seeded, start=init))
    return entries
