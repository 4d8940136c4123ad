"""The report of a whole prediction, and the sheets of its studies that it leads to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from panecho_embed.core.progress import progress_bar
from panecho_embed.core.records import Failure
from panecho_embed.core.tasks import Task
from panecho_embed.core.wording import counted
from panecho_embed.evaluation.page import Block, Facts, Folded, Link, Section, Table, Text, write_report
from panecho_embed.evaluation.report import cautions, interval_sentence, metric_rows, summary_rows
from panecho_embed.prediction.agreement import Agreement
from panecho_embed.prediction.averages import Predictions
from panecho_embed.prediction.films import PICTURE_SECONDS, Films, pictures
from panecho_embed.prediction.sheet import grouped, shown_videos, write_sheet
from panecho_embed.prediction.wording import (
    AVERAGING,
    DISCLAIMER,
    RANDOM,
    SPREAD,
    clips_line,
    model_line,
    shown_class,
    shown_number,
    shown_percent,
    shown_sd,
)
from panecho_embed.store import EmbeddingFile

_SHEETS = "studies"

# In the index, where a model has more tasks than a page is wide: one of each part of the heart.
_TASKS = 6
_FIRST = ("EF", "RVSystolicFunction", "LASize", "AVStenosis", "MVRegurgitation", "pericardial-effusion")
_JOINED = str.maketrans(" ", "\u00a0")
_LISTED = 50


@dataclass(frozen=True, slots=True)
class Sheets:
    """How the pages of studies are made. wanted: whether at all. workers, timeout_seconds: see `pictures`."""

    wanted: bool = True
    workers: int | None = None
    timeout_seconds: float = PICTURE_SECONDS
    progress: bool | None = False


def write_pages(
    predictions: Predictions,
    file: EmbeddingFile,
    found: Sequence[Agreement],
    failures: Sequence[Failure],
    out: Path,
    sheets: Sheets,
    known: str = "",
) -> dict[str, str]:
    """Write report.html and, if wanted, studies/*.html; study_id -> its page, relative to `out`.

    known: which patients trained the model. Raises OSError.
    """
    names: Mapping[str, str] = {}
    if sheets.wanted:
        names = _write_sheets(predictions, file, failures, out / _SHEETS, sheets)
    links = {study: f"{_SHEETS}/{name}" for study, name in names.items()}
    sections = [
        *([Section("Notice", _notices(file))] if _notices(file) else []),
        *([Section("Agreement with labels", _agreement_blocks(found, known))] if found else []),
        Section("Studies", [_studies(predictions, links)]),
        *([Section("Not read", _failures(failures))] if failures else []),
        Section("How it was made", [Facts(_facts(file)), Text(AVERAGING), Text(SPREAD)]),
    ]
    counts = (
        f"{counted(len(predictions.studies), 'study')}, {counted(len(predictions.videos), 'video')}, "
        f"{counted(len(predictions.clips), 'clip')}"
    )
    write_report(out / "report.html", "Predicted reporting tasks", f"{counts}. {DISCLAIMER}", sections)
    return links


def _write_sheets(
    predictions: Predictions, file: EmbeddingFile, failures: Sequence[Failure], folder: Path, sheets: Sheets
) -> dict[str, str]:
    """A page a study."""
    names = _page_names(map(str, predictions.studies.study_id))
    of_study = _failures_by_study(file, failures)
    films = Films.of(file)
    shown = (i for study in range(len(names)) for i in shown_videos(predictions, study))
    wanted = (films.film(str(predictions.videos.video_id[i])) for i in shown)
    folder.mkdir()
    with (
        pictures(wanted, sheets.workers, sheets.timeout_seconds) as made,
        progress_bar("sheet", sheets.progress, total=len(names)) as bar,
    ):
        for study, (study_id, name) in enumerate(names.items()):
            write_sheet(predictions, study, films, made, of_study.get(study_id, ()), folder / name)
            bar.update()
    return names


def _page_names(study_ids: Iterable[str]) -> dict[str, str]:
    """A file name a study, in their order: its id where that is one, each once on any file system."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for study_id in study_ids:
        stem = re.sub(r"[^\w.-]+", "_", study_id).strip("._")[:80] or "study"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[study_id] = f"{name}.html"
    return names


def _failures_by_study(file: EmbeddingFile, failures: Iterable[Failure]) -> Mapping[str, Sequence[Failure]]:
    """The failed videos of each study; what was skipped did not fail."""
    study = dict(zip(file.video_columns["video_id"], file.video_columns["study_id"], strict=True))
    by_study: dict[str, list[Failure]] = {}
    for failure in failures:
        if failure.stage != "skipped":
            by_study.setdefault(str(study[failure.video_id]), []).append(failure)
    return by_study


def _notices(file: EmbeddingFile) -> list[Text]:
    return [] if file.provenance.weights.pretrained else [Text(RANDOM, "warning")]


def _studies(predictions: Predictions, links: Mapping[str, str]) -> Table:
    tasks = list(dict.fromkeys(output.task for output in predictions.outputs))
    if len(tasks) > _TASKS:
        in_order = [task for _, members in grouped(tasks) for task in members]
        chosen = sorted(in_order, key=lambda task: task.name not in _FIRST)[:_TASKS]
        tasks = [task for task in in_order if task in chosen]
    columns = [[i for i, output in enumerate(predictions.outputs) if output.task == task] for task in tasks]
    rows = []
    for study, study_id in enumerate(map(str, predictions.studies.study_id)):
        name = Link(study_id, links[study_id]) if study_id in links else study_id
        videos = str(len(predictions.videos_of[study]))
        values = [_cell(predictions, study, of_task) for of_task in columns]
        rows.append([name, videos, *values])
    caption = "Mean over the videos, of measurements with the standard deviation; of several classes the likeliest. "
    caption += "Everything is in studies.csv" + (" and on the studies' own pages." if links else ".")
    return Table(["Study", "Videos", *map(_heading, tasks)], rows, caption, wrapped=True)


def _heading(task: Task) -> str:
    # A long name may break between its words.
    name = re.sub("(?<=[a-z])(?=[A-Z])", "\u200b", task.name)
    if task.type == "binary":
        return f"{name}: {shown_class(task.positive_class)}"
    return f"{name}, {task.unit}" if task.unit else name


def _cell(predictions: Predictions, study: int, columns: Sequence[int]) -> str:
    values = predictions.studies.values[study]
    column = max(columns, key=lambda i: float(values[i]))
    output, value = predictions.outputs[column], float(values[column])
    # A number stays with its spread or unit on one line.
    if output.label:
        name = f"{shown_class(output.label)}, " if output.task.type == "multiclass" else ""
        return name + f"{shown_percent(value)} %".translate(_JOINED)
    sd = shown_sd(value, float(predictions.over_videos.sd[study, column]), output)
    return (shown_number(value) + (f" ± {sd}" if sd else "")).translate(_JOINED)


def _agreement_blocks(found: Sequence[Agreement], known: str) -> list[Block]:
    """A table of every split, test rows first, and every metric of each task; known: who trained the model."""
    blocks: list[Block] = [Text(known)] if known else []
    blocks += [Text(f"{one.problem}.", "note") for one in found if one.problem]
    blocks += [Text(f"{one.task.name}: {one.note}", "note") for one in found if one.note]
    splits = [split for split in ("test", "val", "train") if any(split in one.scored for one in found)]
    for split in splits:
        there = [one for one in found if split in one.scored]
        scored = [one.scored[split] for one in there]
        caption = f"Studies: {there[0].words[split]}. Predictions against labels of the tasks' names."
        if split == "train":
            caption += " A model that was trained on them knows them: these are no new patients."
        blocks.append(Table(*summary_rows(scored), caption))
        blocks += [Text(note, "warning") for note in cautions(scored)] if split == splits[0] else []
    mains = [one.main for one in found if one.main is not None]
    blocks += [Folded(one.target.title, [Table(*metric_rows(one))]) for one in mains]
    if mains:
        blocks.append(Text(interval_sentence(mains)))
    return blocks


def _failures(failures: Sequence[Failure]) -> list[Facts | Text]:
    listed = Facts({failure.video_id: f"{failure.message} [{failure.stage}]" for failure in failures[:_LISTED]})
    left = len(failures) - _LISTED
    return [listed, *([Text(f"And {left} more, in predictions.json.")] if left > 0 else [])]


def _facts(file: EmbeddingFile) -> dict[str, str]:
    return {
        "Model": model_line(file.provenance),
        "Clips": clips_line(file.provenance),
        "Embeddings": f"{file.path.name}, fingerprint {file.fingerprint[:16]}",
        "Notice": DISCLAIMER,
    }
