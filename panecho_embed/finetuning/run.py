"""A whole fine-tuning: from a recipe and a data set to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from panecho_embed.core.cores import usable_cores
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError
from panecho_embed.core.records import Failure
from panecho_embed.evaluation.predictions import FILE, Predictions, read_predictions, write_predictions
from panecho_embed.finetuning.data import Dataset, check_fold, check_folds_apart, make_fold, read_dataset, torn_studies
from panecho_embed.finetuning.folder import Identity, RunFolder, read_failures, write_failures
from panecho_embed.finetuning.one import Job, check_given_weights, of_done_run, run_fold
from panecho_embed.finetuning.outcome import of_all_folds
from panecho_embed.finetuning.processes import Processes, join_processes
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.report import write_run

_MOST_WORKERS = 16
_PATIENCE_SECONDS = 120.0
"""How long folds on several machines wait for each other to write the folder that they share."""
_OF_ALL = ("command", "versions", "weights", "feeding", "overrides", "plane_order", "device", "processes", "precision")


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
    seconds, workers = 60 * checkpoint_minutes, _workers(workers, processes)
    job = Job(chosen, init, weights, workers, strict, overwrite, allow_leakage, seconds, progress, say, command)
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
        with RunFolder(out, _PATIENCE_SECONDS) as folder:
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


def put_together(out: Path, identity: Identity, recipe: Recipe) -> list[int]:
    """Write the tables and metrics of all test folds into `out`, if all are done; returns the folds that are not.

    Both views, or all videos, of a study are averaged over the folds too. Raises StoreError, and
    SettingsMismatchError for folds that began from different weights.
    """
    with RunFolder(out, _PATIENCE_SECONDS) as folder:
        infos = {number: RunFolder(out / f"fold-{number}").info() for number in range(recipe.data.folds)}
        done = [number for number, info in infos.items() if info.get("status") == "done"]
        missing = [number for number in infos if number not in done]
        if missing:
            folder.begin(identity, _facts(infos, done))
            return missing
        _check_weights(out, infos)
        facts = _facts(infos, done)
        folder.begin(identity, facts)
        seconds = sum(info["seconds"] for info in infos.values())
        predictions, shared = _of_all(out, infos)
        counts = facts["counts"] | {"shared_patients": shared}
        with folder.finished({"seconds": seconds, "counts": counts}) as new:
            write_predictions(predictions, new / FILE)
            failures = {one.video_id: one for number in infos for one in read_failures(out / f"fold-{number}")}
            write_failures(list(failures.values()), new)
        write_run(out)
    return []


def _check_weights(out: Path, infos: Mapping[int, Mapping[str, Any]]) -> None:
    first = infos[0]["weights"]
    for number, info in infos.items():
        theirs = info["weights"]
        if (first["pretrained"] or theirs["pretrained"]) and theirs["sha256"] != first["sha256"]:
            raise SettingsMismatchError(
                f"{out}: its folds began from different weights: sha256 {first['sha256'][:12]}... in fold-0, "
                f"{theirs['sha256'][:12]}... in fold-{number}; run that fold again (--fold {number} --overwrite)"
            )


def _of_all(out: Path, infos: Iterable[int]) -> tuple[list[Predictions], int]:
    """The predictions of all folds, and how many patients stand in more than one fold."""
    predictions = of_all_folds([read_predictions(out / f"fold-{number}" / FILE) for number in infos])
    fold_of: dict[str, set[str]] = {}
    for one in predictions:
        for patient, fold in zip(one.patient, one.fold, strict=True):
            fold_of.setdefault(patient, set()).add(fold)
    return predictions, sum(len(folds) > 1 for folds in fold_of.values())


def _facts(infos: Mapping[int, Mapping[str, Any]], done: Sequence[int]) -> dict[str, Any]:
    """Of run.json: what the folds have in common, and how many videos; of training and validation their mean."""
    if not done:
        return {"folds": []}
    first = infos[done[0]]
    counts = [infos[number]["counts"] for number in done]
    together = {}
    for key in counts[0]:
        total = sum(count[key] for count in counts)
        together[key] = total if key.startswith("test") else round(total / len(done))
    together["failed"] = max(count["failed"] for count in counts)
    return {name: first[name] for name in _OF_ALL} | {"data": first["data"], "counts": together, "folds": list(done)}
