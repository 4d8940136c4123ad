"""Predictions as tables (CSV) and as JSON with stable keys, and what every output says of itself."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from panecho_embed._version import __version__
from panecho_embed.core.arraytypes import FloatArray
from panecho_embed.core.errors import StoreError
from panecho_embed.core.outputs import TEMPORARY, refuse_to_replace_run, written_whole
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.core.tasks import Task
from panecho_embed.prediction.averages import Output, Predictions, Spread, outputs_of
from panecho_embed.store import EmbeddingFile

DISCLAIMER = "For research only. Not a medical device: not for diagnosis or treatment."
RANDOM = "RANDOM WEIGHTS, NOT PRETRAINED: these predictions mean nothing; they show what the output looks like."
AVERAGING = (
    "Raw outputs are averaged over a video's clips: for measurements the values, for classes the logits, which are "
    "then turned into probabilities. Values and probabilities are averaged over a study's videos. Every video counts "
    "the same, whatever its view. This is the order of PanEcho's published evaluation."
)
SPREAD = (
    "SD is the standard deviation (n - 1) of the values or probabilities of a study's videos, or of its clips where "
    "there is one video. It tells how far the videos agree, not how far the model may err: it is not a confidence "
    "interval, and some findings cannot be seen in every view."
)
_FORMAT = "panecho-embed predictions"
_SCHEMA_VERSION = 1

EMBEDDINGS = "embeddings.h5"
_OWN_FILES = (EMBEDDINGS, f"{EMBEDDINGS}.parts", "predictions.json")


def write_tables(predictions: Predictions, folder: Path) -> list[Path]:
    """Write studies.csv, videos.csv and clips.csv: ids, then one column an output, then the spreads.

    Columns are called as `Output.column` says, the spreads NAME_sd_videos, NAME_min_videos, NAME_max_videos,
    NAME_sd_clips (the clips around their own video's mean) in studies.csv, and NAME_sd_clips, NAME_min_clips,
    NAME_max_clips in videos.csv. What is not known is empty. Raises StoreError.
    """
    import pandas as pd

    tables = {
        "studies.csv": _columns(predictions, predictions.studies)
        | _spread_columns(predictions.outputs, predictions.over_videos, "videos")
        | _named(predictions.outputs, predictions.within_videos, "_sd_clips"),
        "videos.csv": _columns(predictions, predictions.videos)
        | _spread_columns(predictions.outputs, predictions.over_clips, "clips"),
        "clips.csv": _columns(predictions, predictions.clips),
    }
    paths = []
    for name, columns in tables.items():
        # Made of one dict at once, a wide frame is not fragmented.
        frame = pd.DataFrame(columns)
        # Seven digits are all that a float32 has.
        write = partial(frame.to_csv, index=False, float_format="%.7g", lineterminator="\n")
        paths.append(_write(folder / name, write))
    return paths


def write_json(
    predictions: Predictions, about: Mapping[str, Any], sheets: Mapping[str, str], failures: Iterable[Any], path: Path
) -> Path:
    """Write studies and their videos in long form, one study a line.

    about: the head of the file. sheets: study_id -> its page, relative to the file. failures: as records. NaN is
    null. Raises StoreError.
    """

    def write(file: TextIO) -> None:
        head = {"format": _FORMAT, "schema_version": _SCHEMA_VERSION, **about, "failures": list(failures)}
        text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)
        file.write(text.removesuffix("\n}") + ',\n "studies": [')
        for study in range(len(predictions.studies)):
            file.write(",\n  " if study else "\n  ")
            json.dump(
                _study(predictions, study, sheets), file, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
        file.write("\n ]\n}\n")

    return _write(path, write)


def about(
    file: EmbeddingFile,
    tasks: tuple[Task, ...],
    *,
    init: str,
    pretrained: bool,
    patients: Mapping[str, Any],
    digest: str,
) -> dict[str, Any]:
    """The head of predictions.json and metrics.json.

    init: what a fine-tuned model was trained from, "" for any other. pretrained: whether the weights, or the start of a
    fine-tuned model, were pretrained. patients: counts of those that the model was trained on. digest: the data digest
    of the clips.
    """
    provenance = file.provenance
    weights = provenance.weights
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "panecho_embed": __version__,
        "notice": DISCLAIMER if weights.pretrained else f"{RANDOM} {DISCLAIMER}",
        "model": {
            "name": provenance.model,
            "backbone": provenance.backbone,
            "weights": weights.source,
            "sha256": weights.sha256,
            "licence": weights.licence,
            "pretrained": pretrained,
            "fine_tuned": bool(init),
            "trained_from": init or None,
            "training_patients": dict(patients),
        },
        "settings_id": file.settings_id,
        "data_digest": digest,
        "embeddings": {
            "clips": None if provenance.clips is None else dataclasses.asdict(provenance.clips),
            "feeding": dataclasses.asdict(provenance.feeding),
            "overrides": list(provenance.overrides),
            "plane_order": provenance.plane_order,
            "precision": provenance.precision,
        },
        "averaging": AVERAGING,
        "spread": SPREAD,
        "tasks": [_task(task) for task in tasks],
    }


def _task(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "type": task.type,
        "description": task.description,
        "classes": list(task.classes),
        "positive_class": task.positive_class or None,
        "unit": task.unit or None,
        "columns": [output.column for output in outputs_of([task])],
        "sign_flipped": task.sign < 0,
    }


def _write(path: Path, write: Callable[[TextIO], object]) -> Path:
    with written_whole(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write(file)
    return path


def _views_of(predictions: Predictions, study: int) -> list[str]:
    """The views of a study's videos that are known, each once, in order."""
    return list(dict.fromkeys(filter(None, map(str, predictions.videos.view[predictions.videos_of[study]]))))


def _columns(predictions: Predictions, table: EmbeddingTable) -> dict[str, Any]:
    ids: dict[str, Any] = {"study_id": table.study_id, "patient_id": table.patient_id}
    if table.level == "study":
        videos = predictions.over_videos.count
        clips = [int(predictions.over_clips.count[rows].sum()) for rows in predictions.videos_of]
        views = [";".join(_views_of(predictions, study)) for study in range(len(table))]
        ids |= {"split": table.split, "views": views, "videos": videos, "clips": clips}
    else:
        ids = {"video_id": table.video_id, **ids, "view": table.view, "split": table.split}
    if table.level == "video":
        ids["clips"] = predictions.over_clips.count
    if table.level == "clip":
        ids |= {name: getattr(table, name) for name in ("first_frame", "frame_step", "frames_per_clip")}
    return ids | _named(predictions.outputs, table.values)


def _named(outputs: tuple[Output, ...], values: FloatArray, suffix: str = "") -> dict[str, Any]:
    return {output.column + suffix: values[:, i] for i, output in enumerate(outputs)}


def _spread_columns(outputs: tuple[Output, ...], spread: Spread, over: str) -> dict[str, Any]:
    return {
        f"{output.column}_{name}_{over}": column[:, i]
        for i, output in enumerate(outputs)
        for name, column in (("sd", spread.sd), ("min", spread.low), ("max", spread.high))
    }


def _study(predictions: Predictions, study: int, sheets: Mapping[str, str]) -> dict[str, Any]:
    table, videos = predictions.studies, predictions.videos_of[study]
    study_id = str(table.study_id[study])
    spread = _spread_record(predictions.over_videos, study, "videos")
    return {
        "study_id": study_id,
        "patient_id": str(table.patient_id[study]),
        "split": str(table.split[study]),
        "views": _views_of(predictions, study),
        "sheet": sheets.get(study_id),
        "num_videos": len(videos),
        "num_clips": int(predictions.over_clips.count[videos].sum()),
        "predictions": _records(
            predictions.outputs, table.values[study], {**spread, "sd_clips": predictions.within_videos[study]}
        ),
        "videos": [_video(predictions, int(video)) for video in videos],
    }


def _video(predictions: Predictions, video: int) -> dict[str, Any]:
    table = predictions.videos
    return {
        "video_id": str(table.video_id[video]),
        "view": str(table.view[video]),
        "num_clips": int(predictions.over_clips.count[video]),
        "predictions": _records(
            predictions.outputs, table.values[video], _spread_record(predictions.over_clips, video, "clips")
        ),
    }


def _spread_record(spread: Spread, row: int, over: str) -> dict[str, FloatArray]:
    return {f"sd_{over}": spread.sd[row], f"min_{over}": spread.low[row], f"max_{over}": spread.high[row]}


def _records(
    outputs: tuple[Output, ...], values: FloatArray, spreads: Mapping[str, FloatArray]
) -> list[dict[str, Any]]:
    return [
        {
            "task": output.task.name,
            "class": output.label or None,
            "value": _number(values[i]),
            "unit": output.unit,
            **{name: _number(column[i]) for name, column in spreads.items()},
        }
        for i, output in enumerate(outputs)
    ]


def _number(value: Any) -> float | None:
    """A number as JSON has it: seven digits, None for NaN."""
    return None if math.isnan(value) else float(f"{float(value):.7g}")


def check_folder(out: Path, overwrite: bool) -> None:
    """Raise StoreError for a file, a folder of another kind of run, or one of other files unless `overwrite`.

    Predictions that are there already are continued.
    """
    refuse_to_replace_run(out, True, "prediction")
    if overwrite or not out.is_dir():
        return
    # What a kill left is nobody's.
    there = {path.name for path in out.iterdir() if not TEMPORARY.fullmatch(path.name)}
    if there and not there.intersection(_OWN_FILES):
        raise StoreError(
            f"{out} is there already and holds no predictions; take another folder (-o), or write into it with "
            "--overwrite"
        )
