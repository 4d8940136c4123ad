"""Videos, or embeddings of their clips -> reporting tasks per clip, video and study."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from panecho_embed.clips import ClipPlan
from panecho_embed.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.evaluation.targets import Reading
from panecho_embed.evaluation.thresholds import ThresholdRule
from panecho_embed.extraction import extract
from panecho_embed.manifest import local_path
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.panecho import TaskTable
from panecho_embed.models.patients import TrainingPatients
from panecho_embed.models.zoo import panecho_with_heads
from panecho_embed.outputs import written_run
from panecho_embed.prediction.agreement import Agreement, agreements, overlap, write_agreements
from panecho_embed.prediction.averages import Predictions, average
from panecho_embed.prediction.files import write_json, write_tables
from panecho_embed.prediction.films import PICTURE_SECONDS
from panecho_embed.prediction.heads import read_heads
from panecho_embed.prediction.pages import Sheets, write_pages
from panecho_embed.prediction.wording import about
from panecho_embed.reclipping import check_pictures_are_frames, reclip
from panecho_embed.records import Failure
from panecho_embed.remote import cached, check_url, file_name, is_url
from panecho_embed.store import EmbeddingFile
from panecho_embed.store.layout import FAILURE_COLUMNS
from panecho_embed.tasks import Task, write_tasks

EMBEDDINGS = "embeddings.h5"
"""What the videos are embedded into, in the output folder; kept, so that the same command goes on from it."""

_CLIPS_OF_FRAMES = "clips-of-frames.h5"
_SUFFIXES = (".h5", ".hdf5")
_OWN_FILES = (EMBEDDINGS, f"{EMBEDDINGS}.parts", "predictions.json")


@dataclass(frozen=True, slots=True, eq=False)
class PredictSummary:
    """How a prediction ended.

    out: the folder. predictions: at every level. agreements: with labels of the tasks' names. skipped: readable, but no
    cine loop. failed: videos that could not be read. notes: what a person should know besides. random_weights: nothing
    here means anything.
    """

    out: Path
    predictions: Predictions
    agreements: tuple[Agreement, ...]
    skipped: tuple[Failure, ...]
    failed: tuple[Failure, ...]
    seconds: float
    random_weights: bool
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if all is done (skipped stills are no failure), 3 if some inputs failed."""
        return 3 if self.failed else 0


def predict(
    source: str | Path,
    out: str | Path,
    *,
    backbone: str = "panecho",
    weights: str | Path | None = None,
    seed: int = 0,
    tasks: str | Sequence[str] = "all",
    task_table: TaskTable = None,
    clips: ClipPlan | Mapping[str, Any] | None = None,
    device: str = "auto",
    sheets: bool = True,
    reading: Reading | None = None,
    threshold: ThresholdRule | None = None,
    overwrite: bool = False,
    progress: bool | None = False,
    announce: Callable[[str], object] = lambda message: None,
    **extraction: Any,
) -> PredictSummary:
    """Predict reporting tasks and write them into the folder `out`: tables, JSON, a report, a sheet per study.

    source: what `extract` takes, which embeds it into `out`/embeddings.h5 first and goes on where it was stopped; or an
    embedding file of clips of the same weights (seconds: the heads alone), or of frames where the model's pictures are
    frames (clips are made first). Both may be at a URL.
    backbone: "panecho", or "random" to try things out: every output then says that it means nothing. weights, tasks,
    task_table: as for `PanEcho`. clips: which, as for `extract`; not for a file of clips. sheets: write a page a study
    with pictures of its videos, for each of which a minute is allowed. reading: how label columns are read. threshold:
    how the threshold of a yes-or-no task is chosen on rows of the split val, unless the model brings one. extraction:
    the further arguments of `extract`, for videos alone.

    Raw outputs (logits) are averaged over a video's clips and turned into probabilities, which are averaged over a
    study's videos; all views count the same, as in the published evaluation. Where the input has labels of the tasks'
    names, the agreement with them is written too. Raises as `extract` does; SettingsMismatchError for an embedding file
    of another model, ArgumentError for one of another level or without rows, TaskTableError, and StoreError if `out` is
    a folder of something else.
    """
    started = time.monotonic()
    if is_url(out):
        raise ArgumentError("predictions are written to a folder of this machine, not to a URL (-o)")
    source, out = _here(source), Path(out)
    ready = EmbeddingFile(source) if isinstance(source, Path) and _is_embedded(source) else None
    if ready is not None:
        _check_readable(ready, backbone, clips, extraction)
    encoder, model = panecho_with_heads(backbone, weights, seed, tasks, task_table)
    _check_folder(out, overwrite)
    notes: tuple[str, ...] = ()
    if ready is None:
        encoder.at_size(extraction.pop("image_size", None))
        done = extract(
            source,
            _made(out) / EMBEDDINGS,
            backbone=encoder,
            clips=clips,
            device=device,
            overwrite=overwrite,
            progress=progress,
            announce=announce,
            # Beside the folder, which is handed on as a whole.
            id_table=local_path(out),
            **extraction,
        )
        file, notes = EmbeddingFile(done.out), done.notes
    else:
        _check_same_model(ready, encoder)
        file = ready
        if ready.level == "frame":
            path = _made(out) / _CLIPS_OF_FRAMES
            reclip(
                ready.path,
                path,
                clips=clips,
                weights=weights,
                seed=seed,
                device=device,
                id_table=local_path(out),
                overwrite=True,
            )
            file = EmbeddingFile(path)
    table = file.table()
    raw = read_heads(model, table.values)
    predictions = average(model.tasks, dataclasses.replace(table, values=raw))
    # Random weights have seen nobody.
    patients = model.recorded.patients if encoder.weights.pretrained else TrainingPatients(())
    found = tuple(
        agreements(
            predictions,
            reading=reading,
            thresholds=model.recorded.thresholds,
            rule=threshold,
            patients=patients,
            seed=seed,
        )
    )
    failures = file.failure_records()
    seconds = min(extraction.get("timeout_seconds", PICTURE_SECONDS), PICTURE_SECONDS)
    pages = Sheets(sheets, extraction.get("workers"), seconds, progress)
    told, counts = overlap(patients, predictions.videos) if patients.trainings != () else ("", {"recorded": True})
    head = about(file, model.tasks, _now(), fine_tuned=bool(model.recorded.init), patients=counts)
    with written_run(out) as new:
        _write(new, file, model.tasks, predictions, found, failures, pages, head, told)
    return PredictSummary(
        out,
        predictions,
        found,
        skipped=tuple(failure for failure in failures if failure.stage == "skipped"),
        failed=tuple(failure for failure in failures if failure.stage != "skipped"),
        seconds=time.monotonic() - started,
        random_weights=not encoder.weights.pretrained,
        notes=(*notes, *([told] if told and (patients.known or found) else [])),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write(
    out: Path,
    file: EmbeddingFile,
    tasks: tuple[Task, ...],
    predictions: Predictions,
    found: tuple[Agreement, ...],
    failures: list[Failure],
    sheets: Sheets,
    head: Mapping[str, Any],
    known: str,
) -> None:
    write_tables(predictions, out)
    write_tasks(tasks, out / "tasks.csv")
    pages = write_pages(predictions, file, found, failures, out, sheets, known)
    told = [{name: getattr(failure, name) for name in FAILURE_COLUMNS} for failure in failures]
    write_json(predictions, head, pages, told, out / "predictions.json")
    write_agreements(found, head, out)


def _check_readable(
    file: EmbeddingFile, backbone: str, clips: ClipPlan | Mapping[str, Any] | None, extraction: Mapping[str, Any]
) -> None:
    """What can be said of an embedding file before any weights are loaded."""
    made_by = file.provenance.backbone
    if made_by != backbone:
        other = " --backbone random, with its --seed, reads it, to try things out." if made_by == "random" else ""
        raise SettingsMismatchError(
            f"{file.path} was made by {made_by} ({file.provenance.weights.source}), and the heads are those of "
            f"{backbone}: they read nothing but its embeddings.{other} Predict from the videos, or extract them with "
            f"--backbone {backbone}"
        )
    if file.level not in ("clip", "frame"):
        raise ArgumentError(
            f"{file.path} holds {file.level} rows; heads read clips. Give the clip-level or frame-level file that it "
            "was pooled from"
        )
    check_pictures_are_frames(file)
    if not len(file):
        raise ArgumentError(
            f"{file.path} has no rows; none of its {len(file.video_columns['video_id'])} videos is done"
        )
    # The salt may stand in the environment, for every command.
    if given := [name for name, value in extraction.items() if value not in (None, False) and name != "id_salt"]:
        raise ArgumentError(
            f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} about reading videos, and {file.path} is an "
            "embedding file: leave out, or give the videos"
        )
    if clips and file.level == "clip":
        raise ArgumentError(
            f"{file.path} holds clips, made already; other clips are made from the videos or from a frame-level file"
        )


def _check_same_model(file: EmbeddingFile, encoder: Backbone) -> None:
    made_with, mine = file.provenance.weights, encoder.weights
    if made_with.sha256 != mine.sha256:
        raise SettingsMismatchError(
            f"{file.path} was made with the weights {made_with.source} (sha256 {made_with.sha256[:12]}), not "
            f"{mine.source} (sha256 {mine.sha256[:12]}), whose heads were to read it; name those (--weights, --seed)"
        )
    if file.provenance.plane_order != encoder.plane_order:
        raise SettingsMismatchError(
            f"{file.path} was made with the order of planes {file.provenance.plane_order!r}, and {encoder.name} takes "
            f"{encoder.plane_order!r}: its heads read nothing but its own embeddings. Predict from the videos"
        )


def _here(source: str | Path) -> str | Path:
    """What is read on this machine as a path; an embedding file at a URL as its copy; videos at a URL as they are."""
    if not is_url(source):
        return Path(source)
    url = check_url(str(source))
    return cached(url) if Path(file_name(url)).suffix.lower() in _SUFFIXES else url


def _is_embedded(source: Path) -> bool:
    return source.is_file() and (source.suffix.lower() in _SUFFIXES or h5py.is_hdf5(source))


def _check_folder(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; name a folder (-o)")
    if overwrite or not out.is_dir() or not any(out.iterdir()):
        return
    if not any((out / name).exists() for name in _OWN_FILES):
        raise StoreError(
            f"{out} is there already and holds no predictions; take another folder (-o), or write into it with "
            "--overwrite"
        )


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out}: can't be made: {error.strerror or error} (-o)") from error
    return out
