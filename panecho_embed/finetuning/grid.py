"""A grid of runs: starting points x seeds x fractions of the training patients. Resumes, reuses, and compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from panecho_embed.core.errors import (
    ArgumentError,
    ManifestError,
    PanEchoEmbedError,
    SettingsMismatchError,
    StoreError,
    TrainingError,
    WeightsError,
)
from panecho_embed.core.outputs import refuse_to_replace_run
from panecho_embed.core.progress import Announce, silent
from panecho_embed.core.wording import counted, file_stem
from panecho_embed.evaluation.candidates import Candidate
from panecho_embed.evaluation.comparison import Comparison, check_margin, compare_candidates, corrected
from panecho_embed.evaluation.predictions import Predictions, concatenated
from panecho_embed.evaluation.splits import check_fractions
from panecho_embed.finetuning.data import Dataset, make_fold, read_dataset
from panecho_embed.finetuning.folder import Identity, RunFolder, check_release, read_failures
from panecho_embed.finetuning.frozen import FrozenProbe, embed_start, frozen_predictions
from panecho_embed.finetuning.outcome import Outcome, can_be_scored, read_outcome
from panecho_embed.finetuning.processes import Processes, join_processes
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.run import finetune
from panecho_embed.finetuning.starts import RANDOM, load_start, weights_sha256, with_own_clips

_State = Literal["done", "begun", "missing"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: a start, a fraction of the training patients, a seed. recipe: with these two in it."""

    init: str
    fraction: float
    seed: int
    folder: Path
    recipe: Recipe

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.init}, fraction {self.fraction:g}, seed {self.seed}"


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """How a grid ended.

    inits: in the order asked for. outcomes: the runs that are done. comparisons: by fraction, one a target, their means
    first; p-values are corrected over all of them. reference: what the differences are to, None where it has no run.
    problems: what was unavailable or failed (a start's weights, a run, a frozen probe), with the reason. trained,
    reused: how many runs this call did, and found done.
    """

    folder: Path
    recipe: Recipe
    inits: tuple[str, ...]
    seeds: int
    outcomes: Mapping[Trial, Outcome]
    comparisons: Mapping[float, tuple[Comparison, ...]]
    reference: str | None
    problems: Mapping[str, str]
    trained: int
    reused: int
    command: str
    margin: str = ""

    @property
    def fractions(self) -> tuple[float, ...]:
        """Those that have finished runs, the largest first."""
        return tuple(self.comparisons)

    @property
    def exit_code(self) -> int:
        """0 if every run is done, else 3."""
        return 3 if self.problems else 0


@dataclass(frozen=True, slots=True)
class GridJob:
    """Data, folder and machine of a grid, and the starts and runs that failed so far, with the reason."""

    data: Path
    out: Path
    weights: Mapping[str, Path]
    device: str
    workers: int | None
    strict: bool
    allow_leakage: bool
    progress: bool | None
    announce: Announce
    command: str
    problems: dict[str, str] = field(default_factory=dict)


def run_grid(
    recipe: Recipe,
    inits: tuple[str, ...],
    job: GridJob,
    seeds: int,
    fractions: Sequence[float],
    reference: str,
    margin: str,
    frozen: FrozenProbe | None,
) -> Grid | None:
    """Fine-tune every start with every seed and fraction, and compare them, without a report.

    What is asked for, what is returned, and errors: as `grid` of `grid_report`. None where another process speaks.
    """
    processes = join_processes(job.device, recipe.precision)
    recipe = replace(recipe, precision=processes.precision)
    if not processes.is_main:
        # Under torchrun, one process speaks for all.
        job = replace(job, announce=silent)
    dataset = read_dataset(job.data, recipe.data)
    check_margin(margin, dataset.targets.targets)
    refuse_to_replace_run(job.out, True, "grid of fine-tuning runs")
    trials = plan_trials(recipe, inits, job.out, seeds=seeds, fractions=fractions, weights=job.weights)
    done = _train(trials, dataset, job, processes)
    if not processes.is_main:
        return None
    outcomes = {t: read_outcome(t.folder) for t in trials if trial_state(t, dataset.digest) == "done"}
    if not outcomes:
        reasons = "; ".join(f"{name}: {why}" for name, why in job.problems.items())
        raise StoreError(f"{job.out}: no run could be finished: {reasons}")
    untrained = _frozen(outcomes, dataset, frozen, job) if frozen else {}
    return Grid(
        folder=job.out,
        recipe=recipe,
        inits=inits,
        seeds=seeds,
        outcomes=outcomes,
        comparisons=compare_outcomes(outcomes, untrained, reference, margin=margin),
        reference=reference if any(trial.init == reference for trial in outcomes) else None,
        problems=job.problems,
        trained=len([trial for trial in outcomes if trial not in done]),
        reused=len(done),
        command=job.command,
        margin=margin,
    )


def compare_outcomes(
    outcomes: Mapping[Trial, Outcome],
    frozen: Mapping[float, Sequence[Candidate]],
    reference: str | None,
    *,
    margin: str = "",
) -> dict[float, tuple[Comparison, ...]]:
    """Comparisons by fraction, the largest first; p-values are corrected over all of them.

    frozen: candidates of frozen probes, by fraction. A fraction with one candidate is not compared.
    """
    recipe = next(iter(outcomes)).recipe
    found: dict[float, list[Comparison]] = {}
    for fraction in sorted({trial.fraction for trial in outcomes}, reverse=True):
        of_fraction = {t: o for t, o in outcomes.items() if t.fraction == fraction}
        candidates = [*_candidates(of_fraction), *frozen.get(fraction, ())]
        there = reference if any(one.name == reference for one in candidates) else None
        if len(candidates) > 1:
            draws, seed = recipe.evaluation.draws, recipe.seed
            found[fraction] = compare_candidates(candidates, reference=there, margin=margin, draws=draws, seed=seed)
        else:
            found[fraction] = _alone(candidates[0], recipe)
    every = corrected([one for comparisons in found.values() for one in comparisons])
    counts = iter(every)
    return {fraction: tuple(next(counts) for _ in comparisons) for fraction, comparisons in found.items()}


def plan_trials(
    recipe: Recipe,
    inits: Sequence[str],
    out: Path,
    *,
    seeds: int,
    fractions: Sequence[float],
    weights: Mapping[str, Path] | None = None,
) -> tuple[Trial, ...]:
    """Every run of a grid, in the order in which to do them: seed by seed, so that all starts have one early.

    seeds: how many, from the recipe's on. weights: files of starts, which may record their clips.
    Raises ArgumentError for twins and values out of range.
    """
    if not inits or len(set(inits)) < len(inits):
        raise ArgumentError(f"starts are {', '.join(inits) or 'none'}; name each once (--inits panecho,random)")
    if seeds < 1:
        raise ArgumentError(f"seeds is {seeds}; it must be 1 or more (--seeds)")
    check_fractions(fractions)
    folders = {init: file_stem(init, "-") for init in inits}
    if len(set(folders.values())) < len(folders):
        raise ArgumentError(f"the starts {', '.join(inits)} would share a folder; compare them in two grids")
    recipes = {init: _recipe_of(init, inits, recipe, (weights or {}).get(init)) for init in inits}
    return tuple(
        Trial(
            init,
            fraction,
            seed,
            out / "runs" / folders[init] / f"fraction-{fraction:g}" / f"seed-{seed}",
            replace(recipes[init], seed=seed, data=replace(recipe.data, fraction=fraction)),
        )
        for seed in range(recipe.seed, recipe.seed + seeds)
        for fraction in sorted(fractions, reverse=True)
        for init in inits
    )


def trial_state(trial: Trial, digest: str) -> _State:
    """Whether a run is done, begun or not there yet; digest: of the data.

    Raises SettingsMismatchError if what is in its folder was made with another recipe, start or data set,
    EarlierReleaseError if by a release whose runs are others.
    """
    folder = RunFolder(trial.folder)
    info = folder.info()
    # Without its recipe, a run was killed before it began.
    if not info or not (trial.folder / "recipe.toml").is_file():
        return "missing"
    check_release(info, trial.folder)
    if "status" not in info:
        raise StoreError(f"{trial.folder}: no run can be read there (no status); move it away, or take another -o")
    if differ := folder.differences(Identity(trial.recipe, trial.init, digest), info):
        raise SettingsMismatchError(
            f"{trial.folder} was made with other settings than asked for now: {'; '.join(differ)}; take another -o"
        )
    return "done" if info["status"] == "done" else "begun"


def _recipe_of(init: str, inits: Sequence[str], recipe: Recipe, weights: Path | None) -> Recipe:
    """A start's own clips where the recipe leaves them to it; a width is for random weights only."""
    # A start whose weights are unavailable is reported when its runs are due.
    with suppress(WeightsError):
        recipe = with_own_clips(recipe, init, weights)
    if init == RANDOM or RANDOM not in inits:
        return recipe
    return replace(recipe, model=replace(recipe.model, width=1.0))


def _candidates(outcomes: Mapping[Trial, Outcome]) -> list[Candidate]:
    """One for each start, its seeds as trainings, with the targets that can be scored."""
    found = []
    for init in dict.fromkeys(trial.init for trial in outcomes):
        runs = [outcome for trial, outcome in outcomes.items() if trial.init == init]
        tables = [
            {name: one for name, one in outcome.at(outcome.level).items() if can_be_scored(one)} for outcome in runs
        ]
        found.append(Candidate(init, _together(tables), "finetune"))
    return found


def _together(tables: Sequence[Mapping[str, Predictions]]) -> dict[str, Predictions]:
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: concatenated([table[name] for table in tables]) for name in names}


def _alone(candidate: Candidate, recipe: Recipe) -> list[Comparison]:
    """What can be said of one candidate: its scores."""
    from panecho_embed.evaluation.scores import score

    found = []
    for name, predictions in candidate.predictions.items():
        scored = score(predictions, draws=recipe.evaluation.draws, seed=recipe.seed)
        found.append(Comparison(name, scored.metric, scored.target.unit, {candidate.name: scored}, {}, ()))
    return found


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


def _lacking(done: Iterable[Trial]) -> dict[str, str]:
    """The runs that lacked videos when they were done."""
    return {trial.name: _lacks(trial, len(failures)) for trial in done if (failures := read_failures(trial.folder))}


def _lacks(trial: Trial, count: int) -> str:
    return f"{counted(count, 'video')} could not be used; {trial.folder / 'failures.csv'} lists them"


def _check_patients(todo: Sequence[Trial], dataset: Dataset, allow_leakage: bool) -> None:
    """Raise ManifestError if a small part of the training patients leaves a target nothing to learn from."""
    for trial in {(trial.fraction, trial.seed): trial for trial in todo}.values():
        data = trial.recipe.data
        try:
            for fold in range(data.folds) if data.folds else [None]:
                make_fold(dataset, data, fold, seed=trial.seed, allow_leakage=allow_leakage)
        except ManifestError as error:
            raise ManifestError(f"fraction {trial.fraction:g}, seed {trial.seed}: {error} (--fractions)") from error


def _missing_starts(todo: Sequence[Trial], job: GridJob) -> dict[str, str]:
    """The starts whose weights are unavailable; found out before anything is trained.

    Raises ArgumentError for a start that there is none of, or that the recipe can't take.
    """
    problems = {}
    for trial in {trial.init: trial for trial in todo}.values():
        recipe, weights = trial.recipe, job.weights.get(trial.init)
        try:
            load_start(trial.init, recipe.model, recipe.clips.frames, weights=weights, seed=recipe.seed)
        except WeightsError as error:
            if job.strict:
                raise
            problems[trial.init] = str(error)
            job.announce(f"{trial.init} is left out: {error}")
    return problems


def _train(trials: Sequence[Trial], dataset: Dataset, job: GridJob, processes: Processes) -> list[Trial]:
    """Do the runs that are not done; those that fail, and those that lack videos, become problems.

    Returns the trials that were done before.
    """
    # Before hours of training, and the same answer in all processes.
    done = processes.on_main(lambda: [t for t in trials if trial_state(t, dataset.digest) == "done"])
    todo = [trial for trial in trials if trial not in done]
    processes.on_main(lambda: _check_weights(done, job.weights))
    _check_patients(todo, dataset, job.allow_leakage)
    job.problems.update(processes.on_main(lambda: {**_missing_starts(todo, job), **_lacking(done)}))
    todo = [trial for trial in todo if trial.init not in job.problems]
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
            job.problems[trial.name] = str(error)
            job.announce(f"{trial.name} is left out: {error}")
        else:
            if summary.failures:
                job.problems[trial.name] = _lacks(trial, len(summary.failures))
    return done


def checked_starts(
    inits: Sequence[str], reference: str | None, weights: Mapping[str, str | Path]
) -> tuple[str, dict[str, Path]]:
    """The reference, and the weights files by start. Raises ArgumentError if either is of a start not asked for."""
    reference = reference or next(iter(inits), None)
    if reference is None or reference not in inits:
        raise ArgumentError(f"reference is {reference!r}; the starts are {', '.join(inits)} (--reference)")
    if strange := [init for init in weights if init not in inits]:
        raise ArgumentError(
            f"weights are given for {', '.join(strange)}; the starts are {', '.join(inits)} (--weights)"
        )
    return reference, {init: Path(file) for init, file in weights.items()}


def _frozen(
    outcomes: Mapping[Trial, Outcome], dataset: Dataset, probe: FrozenProbe, job: GridJob
) -> dict[float, list[Candidate]]:
    """A candidate for every start and fraction; with one run where neither weights nor patients depend on a seed."""
    runs: dict[tuple[str, float], list[Trial]] = {}
    for trial in outcomes:
        runs.setdefault((trial.init, trial.fraction), []).append(trial)
    candidates: dict[float, list[Candidate]] = {}
    for (init, fraction), trials in runs.items():
        untrained = not outcomes[trials[0]].info["weights"]["pretrained"]
        seeded = untrained or fraction < 1
        tables = []
        try:
            for trial in trials if seeded else trials[:1]:
                place = job.out / "frozen" / file_stem(init, "-")
                file = place / (f"seed-{trial.seed}.h5" if untrained else "embeddings.h5")
                weights = job.weights.get(init)
                table = embed_start(init, weights, trial.recipe, job.data, file, device=job.device, workers=job.workers)
                folder = place / f"fraction-{fraction:g}" / f"seed-{trial.seed}"
                found = frozen_predictions(
                    table, dataset, trial.recipe, probe, folder, seeded=seeded, allow_leakage=job.allow_leakage
                )
                level = trial.recipe.evaluation.level
                tables.append({one.target.name: one for one in found if one.level == level})
        except PanEchoEmbedError as error:
            if job.strict:
                raise
            job.problems[f"{init} (frozen), fraction {fraction:g}"] = str(error)
            continue
        candidates.setdefault(fraction, []).append(Candidate(f"{init} (frozen)", _together(tables), "frozen probe"))
    return candidates
