"""A whole fine-tuning, from a recipe and a data set to a run folder: one training and its test, or all folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.core.cores import usable_cores
from panecho_embed.core.digests import file_sha256, listed_sums, recorded_in_sums
from panecho_embed.core.errors import ArgumentError, PanEchoEmbedError, SettingsMismatchError, StoreError
from panecho_embed.core.progress import Announce, progress_bar, silent
from panecho_embed.core.provenance import package_versions
from panecho_embed.core.records import Failure
from panecho_embed.core.tasks import write_tasks
from panecho_embed.evaluation.predictions import (
    FILE,
    Predictions,
    read_predictions,
    write_predictions,
)
from panecho_embed.evaluation.splits import SPLITS
from panecho_embed.finetuning.data import Dataset, Fold, check_folds_apart, make_fold, read_dataset
from panecho_embed.finetuning.evaluate import Predicted
from panecho_embed.finetuning.folder import Identity, RunFolder, Status, read_failures, write_failures
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.outcome import of_all_folds, predictions_of
from panecho_embed.finetuning.processes import Processes, join_processes
from panecho_embed.finetuning.recipe import EvaluationLevel, Recipe
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.report import write_run
from panecho_embed.finetuning.saved import write_model
from panecho_embed.finetuning.starts import Start, load_start, weights_sha256, with_own_clips
from panecho_embed.finetuning.train import Progress, Trainer, Training

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
    announce: Announce = silent,
    command: str = "",
) -> FinetuneSummary:
    """Fine-tune a starting point on a data set; docs/finetuning.md says what the run folder holds.

    Resumable: called again after an interruption, it continues from the last checkpoint; called again when done, it
    returns at once. Under torchrun, all its processes train together.

    Parameters
    ----------
    recipe : str, Path or Recipe
        One of `recipes()`, a TOML file, or a loaded recipe.
    data : str or Path
        Data set as downloaded, or a table.
    out : str or Path
        Run folder.
    init : str
        Starting point, by a name that `load_backbone` takes.
    settings : sequence of str
        Changes to the recipe, such as ["optimizer.lr=3e-5"].
    weights : str or Path, optional
        Weights file of the starting point. Default: found or fetched.
    fold : int, optional
        Run only this fold of a cross-validation.
    device : str
        "auto", "cpu", "cuda" or "mps".
    workers : int, optional
        Decoding processes of each training process. Default: its share of the cores beside an accelerator, else none.
    strict : bool
        Rows without a file, files without a row and videos that can't be decoded are errors.
    allow_leakage : bool
        Accept a patient in training and in validation or test.
    overwrite : bool
        Start over and replace the run in `out`.
    checkpoint_minutes : float
        Write a checkpoint at least this often, besides after every epoch.
    progress : bool, optional
        Show progress bars; None shows them on a terminal only.
    announce : callable
        Called with what is being done, and after every epoch.
    command : str
        Command to record in the report.

    Returns
    -------
    FinetuneSummary
        The folder, and videos that could not be used.

    Raises
    ------
    SettingsMismatchError
        If `out` holds a run of other settings.
    RecipeError, ArgumentError, ManifestError, WeightsError, TrainingError, StoreError
        For what is wrong with the recipe, the data, the weights or the output.
    """
    chosen = load_recipe(recipe, settings) if isinstance(recipe, str | Path) else recipe
    chosen = with_own_clips(chosen, init, weights)
    if fold is not None:
        _check_fold(fold, chosen.data.folds)
    processes = join_processes(device, chosen.precision)
    # What "auto" came to is part of the run: another precision is another run.
    chosen = replace(chosen, precision=processes.precision)
    say = announce if processes.is_main else silent
    dataset = read_dataset(data, chosen.data, strict=strict)
    for note in (*dataset.notes, *(_torn_studies(dataset) if chosen.evaluation.level == "study" else ())):
        say(f"note: {note}")
    seconds, workers = 60 * checkpoint_minutes, _workers(workers, processes)
    job = _Job(chosen, init, weights, workers, strict, overwrite, allow_leakage, seconds, progress, say, command)
    if chosen.data.folds:
        summary = _cross_validate(dataset, Path(out), job, fold, processes)
    else:
        reused, failures = _run_fold(dataset, None, Path(out), job, processes)
        summary = FinetuneSummary(Path(out), reused, failures, dataset.notes)
    # Nobody closes its connections while another one is still sending.
    processes.wait()
    return summary


def _cross_validate(dataset: Dataset, out: Path, job: _Job, fold: int | None, processes: Processes) -> FinetuneSummary:
    """Run the folds that are not done, or one of them, and put their test predictions together when all are."""
    identity = Identity(job.recipe, job.init, dataset.digest)
    numbers = list(range(job.recipe.data.folds)) if fold is None else [fold]
    if not job.allow_leakage:
        check_folds_apart(dataset)
    # What is wrong with the last fold is reported before the first one is trained.
    for number in numbers:
        make_fold(dataset, job.recipe.data, number, seed=job.recipe.seed, allow_leakage=job.allow_leakage)

    def claim() -> bool:
        with RunFolder(out, _PATIENCE_SECONDS) as folder:
            done = folder.claim(identity, overwrite=job.overwrite and fold is None) == "done"
            if not job.overwrite:
                _check_given_weights(folder, job)
            if not done or job.overwrite:
                folder.begin(identity, {"data": {"path": str(dataset.path), "digest": dataset.digest}})
        return done and not job.overwrite

    if processes.on_main(claim):
        job.announce(f"{out} is done already")
        return FinetuneSummary(
            out, True, processes.on_main(lambda: _of_done_run(out, job.recipe.data.folds)), dataset.notes
        )
    results = {number: _run_fold(dataset, number, out / f"fold-{number}", job, processes) for number in numbers}
    unfinished = processes.on_main(lambda: _put_together(out, identity, job.recipe))
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


def _put_together(out: Path, identity: Identity, recipe: Recipe) -> list[int]:
    """Write the tables and metrics of all test folds into `out`, if all are done; returns the folds that are not.

    Both views, or all videos, of a study are averaged over the folds too. Raises StoreError, and
    SettingsMismatchError for folds that began from different weights.
    """
    with RunFolder(out, _PATIENCE_SECONDS) as folder:
        infos = {number: RunFolder(out / f"fold-{number}").info() for number in range(recipe.data.folds)}
        done = [number for number, info in infos.items() if info.get("status") == "done"]
        missing = [number for number in infos if number not in done]
        if missing:
            folder.begin(identity, _common_facts(infos, done))
            return missing
        _check_weights(out, infos)
        facts = _common_facts(infos, done)
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
    """The predictions of all folds, and how many patients are in more than one fold."""
    predictions = of_all_folds([read_predictions(out / f"fold-{number}" / FILE) for number in infos])
    fold_of: dict[str, set[str]] = {}
    for one in predictions:
        for patient, fold in zip(one.patient, one.fold, strict=True):
            fold_of.setdefault(patient, set()).add(fold)
    return predictions, sum(len(folds) > 1 for folds in fold_of.values())


def _common_facts(infos: Mapping[int, Mapping[str, Any]], done: Sequence[int]) -> dict[str, Any]:
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


@dataclass(frozen=True, slots=True)
class _Job:
    """What is asked of every fold; see `finetune`."""

    recipe: Recipe
    init: str
    weights: str | Path | None
    workers: int
    strict: bool
    overwrite: bool
    allow_leakage: bool
    checkpoint_seconds: float
    progress: bool | None
    announce: Announce
    command: str


def _run_fold(
    dataset: Dataset, number: int | None, out: Path, job: _Job, processes: Processes
) -> tuple[bool, tuple[Failure, ...]]:
    """Train, test and write a run folder; returns whether that was done before, and the videos that could not be used.

    number: of the fold; None for the split column's train, val and test.
    """
    recipe = job.recipe
    fold = make_fold(dataset, recipe.data, number, seed=recipe.seed, allow_leakage=job.allow_leakage)
    identity = Identity(recipe, job.init, dataset.digest, number)
    folder = RunFolder(out)
    with ExitStack() as stack:

        def claim() -> Status:
            stack.enter_context(folder)
            return folder.claim(identity, overwrite=job.overwrite)

        if processes.on_main(claim) == "done":
            processes.on_main(lambda: _check_given_weights(folder, job))
            job.announce(f"{out} is done already")
            return True, processes.on_main(lambda: _of_done_run(out))
        start = _start(job)
        processes.on_main(lambda: folder.check_weights(start.weights.sha256))
        model = _model(start, fold, recipe)
        # Before the folder is begun: settings that do not fit the model or the labels leave nothing behind.
        trainer = _trainer(model, start, fold, folder, job, processes)
        job.announce(_introduction(start, fold, processes))
        for override in _overrides(start, recipe):
            job.announce(f"override: {override}")
        processes.on_main(lambda: folder.begin(identity, _facts(start, fold, job, processes)))
        try:
            failures = _train_and_test(trainer, start, fold, folder, job, processes)
        except PanEchoEmbedError as error:
            # Perhaps of this process only, so the others are not waited for.
            if processes.is_main:
                folder.fail(str(error))
            raise
    return False, failures


def _check_given_weights(folder: RunFolder, job: _Job) -> None:
    """Raise SettingsMismatchError if the run began from other weights than those given, or found here, now."""
    sha256 = weights_sha256(job.init, job.recipe, job.weights)
    if sha256 is not None:
        folder.check_weights(sha256)


def _of_done_run(out: Path, folds: int = 0) -> tuple[Failure, ...]:
    """The failures of a run that is done; its report is written if a kill came before that.

    folds: of a cross-validation. Raises StoreError, also for a file of the run that is lost.
    """
    models = [f"fold-{number}/model.pt" for number in range(folds)] or ["model.pt"]
    for name in (FILE, *models):
        if not (out / name).is_file():
            raise StoreError(f"{out / name} is missing; begin anew with --overwrite")
        if recorded_in_sums(out / name) != file_sha256(out / name):
            raise StoreError(f"{out / name} is damaged, or was changed after the run; begin anew with --overwrite")
    if not all((out / name).is_file() and name in listed_sums(out) for name in ("metrics.json", "report.html")):
        write_run(out)
    return read_failures(out)


def _model(start: Start, fold: Fold, recipe: Recipe) -> FineTuneModel:
    settings = recipe.model
    scales = fold.deviations() if settings.head_init == "deviation" else None
    return FineTuneModel(start, fold.targets.tasks, head_dropout=settings.head_dropout, scales=scales, seed=recipe.seed)


def _start(job: _Job) -> Start:
    recipe = job.recipe
    start = load_start(job.init, recipe.model, recipe.clips.frames, weights=job.weights, seed=recipe.seed)
    seen = start.feeding.overridden(mask_sector=recipe.data.mask_sector, crop_region=recipe.data.crop_region)
    return replace(start, feeding=seen)


def _trainer(
    model: FineTuneModel, start: Start, fold: Fold, folder: RunFolder, job: _Job, processes: Processes
) -> Trainer:
    training = Training(
        fold,
        job.recipe,
        start.feeding,
        processes,
        folder.path,
        workers=job.workers,
        checkpoint_seconds=job.checkpoint_seconds,
        strict=job.strict,
        progress=job.progress,
        announce=job.announce,
    )
    return Trainer(model, training)


def _train_and_test(
    trainer: Trainer, start: Start, fold: Fold, folder: RunFolder, job: _Job, processes: Processes
) -> tuple[Failure, ...]:
    progress = trainer.run()
    predicted = {name: _predict(trainer, fold, name, job, processes) for name in ("val", "test")}
    known = {failure.video_id: failure for failure in fold.dataset.failures} | progress.failures
    failures = tuple(known.values())

    def write() -> None:
        with folder.finished(_outcome(progress, failures, fold)) as new:
            _write(trainer.model, start, fold, new, job.recipe, predicted, failures)
        write_run(folder.path)

    processes.on_main(write)
    return failures


def _predict(trainer: Trainer, fold: Fold, part: str, job: _Job, processes: Processes) -> Predicted:
    index = fold.part(part)
    show = job.progress if processes.is_main else False
    total = len(index[processes.index :: processes.count])
    with progress_bar("video", show, total=total, desc=f"predict {part}") as bar:
        return trainer.predict(index, job.recipe.clips.test, bar.update)


def _write(
    model: FineTuneModel,
    start: Start,
    fold: Fold,
    folder: Path,
    recipe: Recipe,
    predicted: dict[str, Predicted],
    failures: tuple[Failure, ...],
) -> None:
    tasks = fold.targets.tasks
    predictions = predictions_of(fold, predicted, recipe)
    thresholds = _thresholds_of(predictions, recipe.evaluation.level)
    rule = recipe.evaluation.threshold
    patients = start.patients.extended(
        fold.dataset.digest,
        train=fold.patients("train"),
        val=fold.patients("val"),
        start=start.weights.source if start.weights.pretrained else "",
    )
    path = folder / "model.pt"
    write_model(model, start, tasks, recipe.clips, path, thresholds=thresholds, rule=rule, patients=patients)
    write_tasks(tasks, folder / "tasks.csv")
    write_predictions(predictions, folder / FILE)
    write_failures(failures, folder)


def _introduction(start: Start, fold: Fold, processes: Processes) -> str:
    weights = start.weights
    source = f"{weights.source}, licence {weights.licence}"
    if not weights.pretrained:
        source = f"RANDOM WEIGHTS, NOT PRETRAINED ({weights.source})"
    sizes = ", ".join(f"{len(fold.part(name))} {name}" for name in SPLITS)
    several = f" in {processes.count} processes" if processes.count > 1 else ""
    which = "" if fold.number is None else f"fold {fold.number}: "
    targets = ", ".join(task.name for task in fold.targets.tasks)
    where = f"{processes.device}{several} in {processes.precision}"
    return f"{which}{targets}; {sizes} videos; {start.name} on {where}; {source}"


def _facts(start: Start, fold: Fold, job: _Job, processes: Processes) -> dict[str, Any]:
    return {
        "command": job.command,
        "versions": package_versions() | {"accelerate": metadata.version("accelerate")},
        "weights": asdict(start.weights),
        "feeding": start.feeding.record(),
        "overrides": list(_overrides(start, job.recipe)),
        "plane_order": None if start.whole_clips else start.plane_order,
        "data": {"path": str(fold.dataset.path), "digest": fold.dataset.digest},
        "device": processes.device.type,
        "processes": processes.count,
        "precision": processes.precision,
        "counts": _counts(fold),
    }


def _overrides(start: Start, recipe: Recipe) -> tuple[str, ...]:
    """What a recipe feeds a start otherwise than its own feeding, a line each."""
    feeding = replace(start.feeding, clips=recipe.clips.plan(recipe.clips.test))
    return feeding.differences(start.own_feeding, start.name)


def _counts(fold: Fold) -> dict[str, int]:
    videos = {name: len(fold.part(name)) for name in SPLITS}
    patients = {f"{name}_patients": len(fold.patients(name)) for name in SPLITS}
    return videos | patients | {"shared_patients": len(fold.shared_patients())}


def _outcome(progress: Progress, failures: tuple[Failure, ...], fold: Fold) -> dict[str, Any]:
    return {
        "counts": _counts(fold) | {"failed": len(failures)},
        "best_epoch": progress.best_epoch,
        "epochs": len(progress.history),
        "seconds": progress.seconds,
    }


def _torn_studies(dataset: Dataset) -> list[str]:
    """A note for every target with studies whose videos have different classes; as a study, they have no truth."""
    notes = []
    studies = np.array([video.study_id for video in dataset.videos], dtype=object)
    for task, column in zip(dataset.targets.tasks, dataset.targets.values.T, strict=True):
        there = np.isfinite(column)
        counts = Counter(study for study, _ in set(zip(studies[there], column[there], strict=True)))
        if task.classes and (torn := sum(count > 1 for count in counts.values())):
            notes.append(f"{task.name}: the videos of {torn} studies have different classes; such a study has no truth")
    return notes


def _check_fold(fold: int, folds: int) -> None:
    """Raise ArgumentError unless there is a fold of that number."""
    if not folds:
        raise ArgumentError(f"fold is {fold}; this recipe has no folds (leave out --fold, or --set data.folds=K)")
    if not 0 <= fold < folds:
        raise ArgumentError(f"fold is {fold}; allowed are 0 to {folds - 1} (--fold)")


def _thresholds_of(predictions: Sequence[Predictions], level: EvaluationLevel) -> dict[str, float]:
    """Target -> the threshold of its yes-or-no decision, where one was chosen."""
    return {
        one.target.name: float(one.threshold[0])
        for one in predictions
        if one.level == level and one.target.kind == "binary" and len(one) and np.isfinite(one.threshold[0])
    }
