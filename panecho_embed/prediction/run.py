"""Videos, or embeddings of their clips -> reporting tasks per clip, video and study."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from panecho_embed.core.arraytypes import FloatArray
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.digests import digest_of_arrays
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.core.outputs import refuse_to_replace_run, written_run
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.progress import Announce, silent
from panecho_embed.core.records import Failure
from panecho_embed.core.remote import cached, check_url, file_name, is_url
from panecho_embed.core.tasks import write_tasks
from panecho_embed.datasets import local_path
from panecho_embed.evaluation.targets import Reading
from panecho_embed.evaluation.thresholds import ThresholdRule
from panecho_embed.extraction.reclipping import check_pictures_are_frames, reclip
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.panecho import PanEcho, TaskTable
from panecho_embed.models.zoo import panecho_with_heads
from panecho_embed.prediction.agreement import Agreement, agreements, overlap, write_agreements
from panecho_embed.prediction.averages import Predictions, average
from panecho_embed.prediction.files import EMBEDDINGS, about, check_folder, write_json, write_tables
from panecho_embed.prediction.films import PICTURE_SECONDS
from panecho_embed.prediction.pages import Sheets, write_pages
from panecho_embed.store import EmbeddingFile
from panecho_embed.store.layout import FAILURE_COLUMNS

_CLIPS_OF_FRAMES = "clips-of-frames.h5"
_SUFFIXES = (".h5", ".hdf5")
_BATCH = 8192


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
    announce: Announce = silent,
    **extraction: Any,
) -> PredictSummary:
    """Predict reporting tasks per clip, video and study, and write tables, JSON, a report and a sheet per study.

    docs/predict.md says how clips and videos are averaged, and how the agreement with labels is reported.

    Parameters
    ----------
    source : str or Path
        What `extract` takes, which then embeds it into `out`/embeddings.h5 and resumes; or an embedding file of clips
        that the same weights made (only the heads run), or of frames where the model's pictures are frames.
    out : str or Path
        Folder to write.
    backbone : {"panecho", "random"}
        "random" is for trying things out; its predictions mean nothing.
    weights : str or Path, optional
        Weights file, see `PanEcho`.
    seed : int
        Seed for the weights of "random".
    tasks : "all" or sequence of str
        Tasks by name. Default: all that the weights have heads for.
    task_table : str, Path or tasks, optional
        Table of the weights' own tasks, see `PanEcho`.
    clips : ClipPlan or mapping, optional
        Which clips, as for `extract`; not for an embedding file of clips.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    sheets : bool
        Write a page for each study with pictures of its videos.
    reading : Reading, optional
        How label columns are read.
    threshold : ThresholdRule, optional
        How the threshold of a yes-or-no task is chosen, on rows of the split val, unless the model brings one.
    overwrite : bool
        Start over, without the embeddings in the folder.
    progress : bool, optional
        Show progress bars; None shows them on a terminal only.
    announce : callable
        Called with what is being done.
    **extraction
        Further arguments of `extract`, for videos only.

    Returns
    -------
    PredictSummary
        `.predictions` holds every level, `.agreements` what labels of the tasks' names say.

    Raises
    ------
    SettingsMismatchError
        For an embedding file of another model.
    ArgumentError
        For an embedding file of another level or without rows, and options that do not belong to it.
    StoreError
        If `out` is a folder of something else.
    """
    started = time.monotonic()
    if is_url(out):
        raise ArgumentError("predictions are written to a folder of this machine, not to a URL (-o)")
    source, out = _here(source), Path(out)
    ready = EmbeddingFile(source) if isinstance(source, Path) and _is_embedded(source) else None
    if ready is not None:
        _check_readable(ready, backbone, clips, extraction)
        # Of videos, the same command goes on, and takes in new ones.
        refuse_to_replace_run(out, overwrite, "prediction")
    encoder, model = panecho_with_heads(backbone, weights, seed, tasks, task_table)
    (reading or Reading()).check_names(task.name for task in model.tasks)
    check_folder(out, overwrite)
    notes: tuple[str, ...] = ()
    if ready is None:
        encoder.at_size(extraction.pop("image_size", None))
        # The table of ids is beside the folder, which is handed on as a whole.
        how: dict[str, Any] = {"device": device, "overwrite": overwrite, "progress": progress, "announce": announce}
        how["id_table"] = local_path(out)
        done = extract(source, _made(out) / EMBEDDINGS, backbone=encoder, clips=clips, **how, **extraction)
        file, notes = EmbeddingFile(done.out), done.notes
    else:
        file, notes = _clips_of(ready, encoder, out, clips=clips, weights=weights, seed=seed, device=device)
    seconds = min(extraction.get("timeout_seconds", PICTURE_SECONDS), PICTURE_SECONDS)
    pages = Sheets(sheets, extraction.get("workers"), seconds, progress)
    summary = _predict(file, encoder, model, out, pages, reading, threshold, seed)
    return dataclasses.replace(summary, notes=(*notes, *summary.notes), seconds=time.monotonic() - started)


def _clips_of(
    file: EmbeddingFile, encoder: Backbone, out: Path, **options: Any
) -> tuple[EmbeddingFile, tuple[str, ...]]:
    """An embedding file of clips, and notes on it; of frames the clips are made, by the options of `reclip`."""
    _check_same_model(file, encoder)
    if file.level != "frame":
        return file, ()
    path = _made(out) / _CLIPS_OF_FRAMES
    made = reclip(file.path, path, id_table=local_path(out), overwrite=True, **options)
    return EmbeddingFile(path), made.notes


def _predict(
    file: EmbeddingFile,
    encoder: Backbone,
    model: PanEcho,
    out: Path,
    pages: Sheets,
    reading: Reading | None,
    rule: ThresholdRule | None,
    seed: int,
) -> PredictSummary:
    """Run the heads, compare with labels, and write everything."""
    table = file.table()
    predictions = average(model.tasks, dataclasses.replace(table, values=read_heads(model, table.values)))
    pretrained, recorded = encoder.weights.pretrained, model.recorded
    # Random weights have seen nobody.
    patients = recorded.patients if pretrained else TrainingPatients(())
    told, counts = overlap(patients, predictions.videos) if pretrained else ("", {"recorded": True})
    found = tuple(
        agreements(
            predictions, reading=reading, thresholds=recorded.thresholds, rule=rule, patients=patients, seed=seed
        )
    )
    failures = file.failure_records()
    ids = (table.video_id, table.study_id, table.patient_id, table.split, table.first_frame)
    names = sorted(table.labels)
    labels = [np.array(names, dtype=object), *(table.labels[name] for name in names)]
    digest = digest_of_arrays(table.values, *ids, *labels)
    head = about(
        file,
        model.tasks,
        init=recorded.init,
        pretrained=pretrained and recorded.start_pretrained,
        patients=counts,
        digest=digest,
    )
    with written_run(out) as new:
        write_tables(predictions, new)
        write_tasks(model.tasks, new / "tasks.csv")
        links = write_pages(predictions, file, found, failures, new, pages, told, digest)
        listed = [{name: getattr(failure, name) for name in FAILURE_COLUMNS} for failure in failures]
        write_json(predictions, head, links, listed, new / "predictions.json")
        write_agreements(found, head, new)
    return PredictSummary(
        out,
        predictions,
        found,
        skipped=tuple(failure for failure in failures if failure.stage == "skipped"),
        failed=tuple(failure for failure in failures if failure.stage != "skipped"),
        seconds=0.0,
        random_weights=not pretrained,
        notes=(told,) if told and (recorded.patients.known or found) else (),
    )


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
    # The salt may be in the environment, for every command.
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


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out}: can't be made: {error.strerror or error} (-o)") from error
    return out


@torch.inference_mode()
def read_heads(model: PanEcho, embeddings: FloatArray) -> FloatArray:
    """Apply a model's heads to clip embeddings.

    (N, 768) to (N, K) float32, one column for each of `outputs_of(model.tasks)`. Outputs are raw, whether or not the
    model was made with `activations`: logits for classes, for regressions the value as it was trained. `reported` in
    `prediction.outputs` turns them, or means of them, into what is shown.
    """
    columns = sum(task.num_outputs for task in model.tasks)
    parts = [
        torch.cat([model.heads[task.name](clips) for task in model.tasks], dim=1)
        for clips in (
            torch.from_numpy(embeddings[i : i + _BATCH].astype(np.float32)) for i in range(0, len(embeddings), _BATCH)
        )
    ]
    return torch.cat(parts).numpy() if parts else np.zeros((0, columns), dtype=np.float32)
