"""A whole fine-tuning: from a recipe and a data set to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from panecho_embed.cores import usable_cores
from panecho_embed.errors import ArgumentError
from panecho_embed.finetune.crossval import PATIENCE_SECONDS, put_together
from panecho_embed.finetune.data import Dataset, read_dataset, torn_studies
from panecho_embed.finetune.folder import Identity, RunFolder
from panecho_embed.finetune.folds import check_fold, check_folds_apart, make_fold
from panecho_embed.finetune.one import Job, check_given_weights, of_done_run, run_fold
from panecho_embed.finetune.processes import Processes, join_processes
from panecho_embed.finetune.recipe import Recipe
from panecho_embed.finetune.recipe_files import load_recipe
from panecho_embed.records import Failure

_MOST_WORKERS = 16


@dataclass(frozen=True, slots=True)
class FinetuneSummary:
    """How a run ended.

    reused: nothing was left to do. failures: videos without a file, or that can't be decoded. folds: of a
    cross-validation, those that were asked for. unfinished: those that are still to be run; until then it has no
    metrics of the whole.
    """

    out: Path
    reused: bool
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    folds: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if every video was used, 3 if some could not be."""
        return 3 if self.failures else 0


def finetune(
    recipe: str | Path | Recipe,
    data: str | Path,
    out: str | Path,
    *,
    init: str = "panecho",
    settings: Sequence[str] = (),
    weights: str | Path | None = None,
    fold: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    strict: bool = False,
    allow_leakage: bool = False,
    overwrite: bool = False,
    checkpoint_minutes: float = 10.0,
    progress: bool | None = False,
    announce: Callable[[str], object] = lambda message: None,
    command: str = "",
) -> FinetuneSummary:
    """Fine-tune a starting point on a data set, into the run folder `out`; docs/finetuning.md says what it then holds.

    recipe: a packaged one's name, a file, or a `Recipe`; settings change it, as ["optimizer.lr=3e-5"]. data: a data set
    as downloaded, or a table. init: any name that `load_backbone` takes. weights: a file in place of the one found or
    fetched. fold: of a cross-validation, this one alone. device: "auto", "cpu", "cuda", "mps". workers: decoding
    processes of each training process (default: its share of the cores beside an accelerator, else none). strict: rows
    without files, files without rows and videos that can't be decoded are errors. allow_leakage: let a patient be in
    two splits. overwrite: begin anew. checkpoint_minutes: what a kill can cost, at most. progress: True or False; None
    shows a bar on a terminal alone. announce: is told what runs, and every epoch. command: to be written down.

    Stopped at any moment and called again, it goes on where it was; called again when done, it returns at once. Under
    torchrun, all its processes train together. Raises SettingsMismatchError if `out` holds a run of other settings,
    RecipeError, ArgumentError, ManifestError, WeightsError, TrainingError, StoreError.
    """
    chosen = load_recipe(recipe, settings) if isinstance(recipe, str | Path) else recipe
    if fold is not None:
        check_fold(fold, chosen.data.folds)
    processes = join_processes(device, chosen.precision)
    # What "auto" came to is part of the run: another precision is another run.
    chosen = replace(chosen, precision=processes.precision)
    say = announce if processes.is_main else lambda message: None
    dataset = read_dataset(data, chosen.data, strict=strict)
    for note in (*dataset.notes, *(torn_studies(dataset) if chosen.evaluation.level == "study" else ())):
        say(f"note: {note}")
    job = Job(
        recipe=chosen,
        init=init,
        weights=weights,
        workers=_workers(workers, processes),
        strict=strict,
        overwrite=overwrite,
        allow_leakage=allow_leakage,
        checkpoint_seconds=60 * checkpoint_minutes,
        progress=progress,
        announce=say,
        command=command,
    )
    if chosen.data.folds:
        summary = _cross_validate(dataset, Path(out), job, fold, processes)
    else:
        reused, failures = run_fold(dataset, None, Path(out), job, processes)
        summary = FinetuneSummary(Path(out), reused, failures, dataset.notes)
    # Nobody closes its connections while another one is still sending.
    processes.wait()
    return summary


def _cross_validate(dataset: Dataset, out: Path, job: Job, fold: int | None, processes: Processes) -> FinetuneSummary:
    """Run the folds that are not done, or one of them, and put their test predictions together when all are."""
    identity = Identity(job.recipe, job.init, dataset.fingerprint)
    numbers = list(range(job.recipe.data.folds)) if fold is None else [fold]
    if not job.allow_leakage:
        check_folds_apart(dataset)
    # What is wrong with the last fold is told before the first one is trained.
    for number in numbers:
        make_fold(dataset, job.recipe.data, number, seed=job.recipe.seed, allow_leakage=job.allow_leakage)

    def claim() -> bool:
        with RunFolder(out, PATIENCE_SECONDS) as folder:
            done = folder.claim(identity, overwrite=job.overwrite and fold is None) == "done"
            if not job.overwrite:
                check_given_weights(folder, job)
            if not done or job.overwrite:
                folder.begin(identity, {"data": {"path": str(dataset.path), "fingerprint": dataset.fingerprint}})
        return done and not job.overwrite

    if processes.on_main(claim):
        job.announce(f"{out} is done already")
        return FinetuneSummary(
            out, True, processes.on_main(lambda: of_done_run(out, job.recipe.data.folds)), dataset.notes
        )
    results = {number: run_fold(dataset, number, out / f"fold-{number}", job, processes) for number in numbers}
    unfinished = processes.on_main(lambda: put_together(out, identity, job.recipe))
    failures = {failure.video_id: failure for _, found in results.values() for failure in found}
    reused = all(done for done, _ in results.values())
    return FinetuneSummary(out, reused, tuple(failures.values()), dataset.notes, tuple(numbers), tuple(unfinished))


def _workers(workers: int | None, processes: Processes) -> int:
    if workers is None:
        if processes.device.type == "cpu":
            # Decoding would only take the cores that the model computes on.
            return 0
        cores = usable_cores()
        return min(_MOST_WORKERS, max(1, cores // processes.count))
    if workers < 0:
        raise ArgumentError(f"workers is {workers}; it must be 0 (decode in this process) or more (--workers)")
    return workers
