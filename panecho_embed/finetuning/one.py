"""One training and its test: a whole run without folds, or one fold of a cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from panecho_embed.core.digests import file_sha256, listed_sums, recorded_in_sums
from panecho_embed.core.errors import PanEchoEmbedError, StoreError
from panecho_embed.core.records import Failure
from panecho_embed.core.tasks import write_tasks
from panecho_embed.core.versions import package_versions
from panecho_embed.evaluation.predictions import FILE, write_predictions
from panecho_embed.evaluation.splits import SPLITS
from panecho_embed.finetuning.data import Dataset, Fold, make_fold
from panecho_embed.finetuning.evaluate import Predicted
from panecho_embed.finetuning.folder import Identity, RunFolder, Status, read_failures, write_failures
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.outcome import predictions_of, thresholds_of
from panecho_embed.finetuning.processes import Processes
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.report import write_run
from panecho_embed.finetuning.saved import write_model
from panecho_embed.finetuning.starts import Start, load_start, weights_sha256
from panecho_embed.finetuning.train import Progress, Trainer, Training


@dataclass(frozen=True, slots=True)
class Job:
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
    announce: Callable[[str], object]
    command: str


def run_fold(
    dataset: Dataset, number: int | None, out: Path, job: Job, processes: Processes
) -> tuple[bool, tuple[Failure, ...]]:
    """Train, test and write a run folder; returns whether that was done before, and the videos that could not be used.

    number: of the fold; None for the split column's train, val and test.
    """
    recipe = job.recipe
    fold = make_fold(dataset, recipe.data, number, seed=recipe.seed, allow_leakage=job.allow_leakage)
    identity = Identity(recipe, job.init, dataset.fingerprint, number)
    folder = RunFolder(out)
    with ExitStack() as stack:

        def claim() -> Status:
            stack.enter_context(folder)
            return folder.claim(identity, overwrite=job.overwrite)

        if processes.on_main(claim) == "done":
            processes.on_main(lambda: check_given_weights(folder, job))
            job.announce(f"{out} is done already")
            return True, processes.on_main(lambda: of_done_run(out))
        start = _start(job)
        processes.on_main(lambda: folder.check_weights(start.weights.sha256))
        model = _model(start, fold, recipe)
        # Before the folder is begun: settings that do not fit the model or the labels leave nothing behind.
        trainer = _trainer(model, start, fold, folder, job, processes)
        job.announce(_introduction(start, fold, processes))
        for override in overrides(start, recipe):
            job.announce(f"override: {override}")
        processes.on_main(lambda: folder.begin(identity, _facts(start, fold, job, processes)))
        try:
            failures = _train_and_test(trainer, start, fold, folder, job, processes)
        except PanEchoEmbedError as error:
            # Perhaps of this process alone, so the others are not waited for.
            if processes.is_main:
                folder.fail(str(error))
            raise
    return False, failures


def check_given_weights(folder: RunFolder, job: Job) -> None:
    """Raise SettingsMismatchError if the run began from other weights than those given, or found here, now."""
    sha256 = weights_sha256(job.init, job.recipe, job.weights)
    if sha256 is not None:
        folder.check_weights(sha256)


def of_done_run(out: Path, folds: int = 0) -> tuple[Failure, ...]:
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


def _start(job: Job) -> Start:
    recipe = job.recipe
    start = load_start(job.init, recipe.model, recipe.clips.frames, weights=job.weights, seed=recipe.seed)
    seen = start.feeding.overridden(mask_sector=recipe.data.mask_sector, crop_region=recipe.data.crop_region)
    return replace(start, feeding=seen)


def _trainer(
    model: FineTuneModel, start: Start, fold: Fold, folder: RunFolder, job: Job, processes: Processes
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
        show=job.progress,
        tell=job.announce,
    )
    return Trainer(model, training)


def _train_and_test(
    trainer: Trainer, start: Start, fold: Fold, folder: RunFolder, job: Job, processes: Processes
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


def _predict(trainer: Trainer, fold: Fold, part: str, job: Job, processes: Processes) -> Predicted:
    index = fold.part(part)
    show = job.progress if processes.is_main else False
    total = len(index[processes.index :: processes.count])
    with tqdm(total=total, desc=f"predict {part}", unit="video", disable=None if show is None else not show) as bar:
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
    thresholds = thresholds_of(predictions, recipe.evaluation.level)
    rule = recipe.evaluation.threshold
    patients = start.patients.extended(
        fold.dataset.fingerprint,
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


def _facts(start: Start, fold: Fold, job: Job, processes: Processes) -> dict[str, Any]:
    return {
        "command": job.command,
        "versions": package_versions() | {"accelerate": metadata.version("accelerate")},
        "weights": asdict(start.weights),
        "feeding": start.feeding.record(),
        "overrides": list(overrides(start, job.recipe)),
        "plane_order": None if start.whole_clips else start.plane_order,
        "data": {"path": str(fold.dataset.path), "fingerprint": fold.dataset.fingerprint},
        "device": processes.device.type,
        "processes": processes.count,
        "precision": processes.precision,
        "counts": _counts(fold),
    }


def overrides(start: Start, recipe: Recipe) -> tuple[str, ...]:
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
