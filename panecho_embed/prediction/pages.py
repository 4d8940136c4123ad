"""The report of a whole prediction, and the sheets of its studies that it leads to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed._version import __version__
from panecho_embed.core.outputs import write_text
from panecho_embed.core.progress import progress_bar
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Failure
from panecho_embed.core.tasks import Task
from panecho_embed.core.wording import counted
from panecho_embed.evaluation.conclusions import sentence
from panecho_embed.evaluation.page import (
    Block,
    Facts,
    Figure,
    Folded,
    Lead,
    Link,
    Section,
    Table,
    Text,
    figure,
    write_report,
)
from panecho_embed.evaluation.report import GLOSSARY, cautions, interval_sentence, metric_rows, summary_rows
from panecho_embed.prediction.agreement import Agreement
from panecho_embed.prediction.averages import Output, Predictions
from panecho_embed.prediction.files import AVERAGING, DISCLAIMER, RANDOM, SPREAD
from panecho_embed.prediction.films import PICTURE_SECONDS, Films, Shown, pictures
from panecho_embed.store import EmbeddingFile

if TYPE_CHECKING:
    from jinja2 import Template


_SHEETS = "studies"

# In the index, where a model has more tasks than a page is wide: one of each part of the heart.
_TASKS = 6
_FIRST = ("EF", "RVSystolicFunction", "LASize", "AVStenosis", "MVRegurgitation", "pericardial-effusion")
_JOINED = str.maketrans(" ", "\u00a0")
_LISTED = 50
_REASONS = 4  # of skipped and failed files, in a line
_LED = 3  # labelled tasks of the first screen


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
    digest: str = "",
) -> dict[str, str]:
    """Write report.html and, if wanted, studies/*.html; study_id -> its page, relative to `out`.

    known: which patients trained the model. digest: the data digest of the clips. Raises OSError.
    """
    names: Mapping[str, str] = {}
    if sheets.wanted:
        names = _write_sheets(predictions, file, failures, out / _SHEETS, sheets)
    links = {study: f"{_SHEETS}/{name}" for study, name in names.items()}
    sections = [
        Section("", [_lead(predictions, file, found, failures)]),
        Section("Studies", [_studies(predictions, links)]),
        *([Section("Agreement with labels", _agreement_blocks(found, known))] if found else []),
        Section(
            "How it was made", [Facts(_facts(file, digest)), Text(AVERAGING), Text(SPREAD), Text(GLOSSARY, "note")]
        ),
        *([Section("Skipped and failed files", _failures(failures))] if failures else []),
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
    """Write one page per study."""
    names = _page_names(map(str, predictions.studies.study_id))
    of_study = _failures_by_study(file, failures)
    films = Films.of(file)
    shown = (i for study in range(len(names)) for i in _shown_videos(predictions, study))
    wanted = (films.film(str(predictions.videos.video_id[i])) for i in shown)
    folder.mkdir()
    with (
        pictures(wanted, sheets.workers, sheets.timeout_seconds) as made,
        progress_bar("sheet", sheets.progress, total=len(names)) as bar,
    ):
        for study, (study_id, name) in enumerate(names.items()):
            _write_sheet(predictions, study, films, made, of_study.get(study_id, ()), folder / name)
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


def _lead(
    predictions: Predictions, file: EmbeddingFile, found: Sequence[Agreement], failures: Sequence[Failure]
) -> Lead:
    """The first screen: how well the labelled studies agree, else what was predicted; skipped files counted."""
    mains = [one for one in found if one.main is not None]
    tasks = len(dict.fromkeys(output.task for output in predictions.outputs))
    sentences = []
    for one in mains[:_LED]:
        assert one.main is not None
        of = one.words[next(iter(one.scored))]
        of = "all labelled studies" if of == "all" else f"studies of the split {of}" if of != "not in training" else of
        sentences.append(f"{sentence(one.main, 'can be predicted by this model')} ({of})")
    if not mains:
        sentences.append(
            f"{counted(tasks, 'task')} predicted for {counted(len(predictions.studies), 'study')}. It can't be told "
            "how near the truth they are: the input has no labels of the tasks' names to compare them with."
        )
    if failures:
        skipped = sum(failure.stage == "skipped" for failure in failures)
        failed = len(failures) - skipped
        counts = [f"{counted(skipped, 'file')} skipped (no cine loop)"] if skipped else []
        counts += [f"{counted(failed, 'file')} failed"] if failed else []
        sentences.append(f"{' and '.join(counts)}; listed at the end.")
    warnings = [] if file.provenance.weights.pretrained else [RANDOM]
    warnings += cautions([one.main for one in mains if one.main is not None])
    return Lead(sentences, _first_figure(predictions, mains), warnings)


def _first_figure(predictions: Predictions, mains: Sequence[Agreement]) -> Figure | None:
    """Predicted against measured for the first labelled task, else the predictions of the first task."""
    from panecho_embed.evaluation.plots import spread, target_figures

    if mains:
        assert mains[0].main is not None
        made, caption = next(iter(target_figures(mains[0].main).values()))
        return figure(made, f"{mains[0].task.name}. {caption}")
    output = next(iter(predictions.outputs), None)
    if output is None or not len(predictions.studies):
        return None
    task = output.task
    values = predictions.studies.values[:, 0].astype(np.float64)
    what = f"probability of {shown_class(output.label)}" if output.label else _heading(task).replace("\u200b", "")
    return figure(spread(values, f"{task.name}, predicted" if not output.label else what), f"{task.name} per study.")


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
    measured = {task: _measured(predictions, task) for task in tasks}
    for study, row in enumerate(rows):
        for place in reversed(range(len(tasks))):
            if (known := measured[tasks[place]]) is not None:
                row.insert(3 + place, known[study])
    headings = [title for task in tasks for title in (_heading(task), *(["Measured"] if measured[task] else []))]
    caption = "Mean over the videos, of measurements with the standard deviation; of several classes the likeliest. "
    caption += "Everything is in studies.csv" + (" and on the studies' own pages." if links else ".")
    return Table(["Study", "Videos", *headings], rows, caption, wrapped=True)


def _measured(predictions: Predictions, task: Task) -> list[str] | None:
    """The label of each study for a task, as text; None where the input has none of the task's name."""
    column = predictions.studies.labels.get(task.name)
    if column is None:
        return None
    if column.dtype.kind == "f":
        return [shown_number(float(value)) if math.isfinite(value) else "-" for value in column]
    return [str(value) or "-" for value in column]


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


def _failures(failures: Sequence[Failure]) -> list[Block]:
    """Counts by reason, and the files themselves, closed until clicked."""
    reasons = Counter(failure.message for failure in failures)
    counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(_REASONS))
    more = f"; and {len(reasons) - _REASONS} other reasons" if len(reasons) > _REASONS else ""
    rows = [[failure.video_id, failure.stage, failure.message] for failure in failures[:_LISTED]]
    left = len(failures) - _LISTED
    title = f"The files{f' (the first {_LISTED}; {left} more in predictions.json)' if left > 0 else ''}"
    listed = Table(["File", "Stage", "Reason"], rows, title, folded=True, wrapped=True)
    return [Text(f"{counts}{more}."), listed]


def _facts(file: EmbeddingFile, digest: str) -> dict[str, str]:
    return {
        "Model": _model_line(file.provenance),
        "Clips": _clips_line(file.provenance),
        "Embeddings": file.path.name,
        "Settings id": file.settings_id,
        "Data digest": digest,
        "Notice": DISCLAIMER,
    }


_MOST_PICTURES = 12
_STRIP = 100.0
_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Left ventricle",
        (
            "EF",
            "GLS",
            "LVSystolicFunction",
            "LVWallMotionAbnormalities",
            "LVSize",
            "LVIDd",
            "LVIDs",
            "LVEDV",
            "LVESV",
            "LVSV",
            "LVWallThickness-increased-any",
            "LVWallThickness-increased-modsev",
            "IVSd",
            "LVPWd",
            "LVOTDiam",
            "LVDiastolicFunction",
            "E|EAvg",
        ),
    ),
    ("Right ventricle", ("RVSystolicFunction", "TAPSE", "RVSVel", "RVSize", "RVIDd", "RVSP")),
    ("Atria", ("LASize", "LAVol", "LAIDs2D", "RASize", "RADimensionM-L(cm)", "RAP-8-or-higher")),
    ("Aortic valve and root", ("AVStructure", "AVStenosis", "AVPkVel(m|s)", "AVRegurg", "LVOT20mmHg", "AORoot")),
    ("Mitral and tricuspid valves", ("MVStenosis", "MVRegurgitation", "TVRegurgitation", "TVPkGrad")),
    ("Pericardium", ("pericardial-effusion",)),
)
_OTHERS = "Other tasks"


def _write_sheet(
    predictions: Predictions,
    study: int,
    films: Films,
    pictures: Iterator[Shown],
    failures: Sequence[Failure],
    path: Path,
) -> None:
    """Write the page of a study; pictures: those of its `_shown_videos` are taken from it. Raises StoreError."""
    videos = predictions.videos_of[study]
    table = predictions.studies
    several = len(videos) > 1
    shown = _shown_videos(predictions, study)
    page = _template().render(
        study=str(table.study_id[study]),
        patient=str(table.patient_id[study]),
        counts=f"{counted(len(videos), 'video')}, {counted(int(predictions.over_clips.count[videos].sum()), 'clip')}",
        spread_over=counted(len(videos), "video") if several else "its clips",
        pictures=[_figure(predictions, video, films, next(pictures)) for video in shown],
        more=len(videos) - len(shown),
        failures=failures,
        groups=[
            (title, [_entry(predictions, study, task) for task in tasks])
            for title, tasks in _groups(predictions.outputs)
        ],
        per_video=_per_video(predictions, videos) if several else None,
        model=_model_line(films.provenance),
        clips=_clips_line(films.provenance),
        random=None if films.provenance.weights.pretrained else RANDOM,
        disclaimer=DISCLAIMER,
        version=__version__,
    )
    write_text(path, page)


@cache
def _template() -> Template:
    import jinja2

    source = resources.files("panecho_embed.prediction").joinpath("templates/study.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)


def _groups(outputs: Iterable[Output]) -> list[tuple[str, list[Task]]]:
    return grouped(dict.fromkeys(output.task for output in outputs))


def _entry(predictions: Predictions, study: int, task: Task) -> dict[str, Any]:
    """A task's lines: one a measurement or yes-no task, one a class of the others."""
    columns = [i for i, output in enumerate(predictions.outputs) if output.task == task]
    lines = [_line(predictions, study, i) for i in columns]
    if task.type == "multiclass":
        likeliest = int(np.argmax(predictions.studies.values[study, columns]))
        lines[likeliest]["likeliest"] = True
    title = task.description or task.name
    return {"title": title[:1].upper() + title[1:], "name": task.name, "type": task.type, "lines": lines}


def _line(predictions: Predictions, study: int, column: int) -> dict[str, Any]:
    output = predictions.outputs[column]
    videos = predictions.videos_of[study]
    value = float(predictions.studies.values[study, column])
    sd = float((predictions.over_videos.sd if len(videos) > 1 else predictions.within_videos)[study, column])
    probability = bool(output.label)
    low, high, mark = (0.0, 1.0, None) if probability else _axis(output.task, predictions.videos.values[videos, column])
    return {
        "label": shown_class(output.label) if probability else "",
        "value": shown_percent(value) if probability else shown_number(value),
        "unit": "%" if probability else output.unit,
        "sd": shown_sd(value, sd, output),
        "bar": probability,
        "likeliest": False,
        "at": _place(value, low, high),
        "dots": [_place(float(v), low, high) for v in predictions.videos.values[videos, column]],
        "mark": None if mark is None else _place(mark, low, high),
    }


def _axis(task: Task, values: npt.NDArray[Any]) -> tuple[float, float, float | None]:
    """From 0 to twice the mean of the training studies, or, where that is not known, as wide as the values."""
    mean = task.sign * task.training_mean
    if math.isfinite(mean) and mean:
        return min(0.0, 2 * mean), max(0.0, 2 * mean), mean
    low, high = float(values.min()), float(values.max())
    margin = 0.25 * (high - low) or 1.0
    return low - margin, high + margin, None


def _place(value: float, low: float, high: float) -> float:
    """Where a value stands on a strip; beyond its ends, at its ends."""
    return round(_STRIP * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def _shown_videos(predictions: Predictions, study: int) -> list[int]:
    """Which videos a study's page shows, in the study's order: the first ones of every view before the second ones."""
    seen: dict[str, int] = {}
    turn = []
    for video in predictions.videos_of[study]:
        view = str(predictions.videos.view[video])
        seen[view] = seen.get(view, 0) + 1
        turn.append((seen[view], int(video)))
    return sorted(video for _, video in sorted(turn)[:_MOST_PICTURES])


def _figure(predictions: Predictions, video: int, films: Films, shown: Shown) -> dict[str, str]:
    film = films.film(str(predictions.videos.video_id[video]))
    about = f"{film.num_frames} frames" + (f", {film.fps:.0f}/s" if film.fps > 0 else "")
    view, name = str(predictions.videos.view[video]), film.video_id.rsplit("/", 1)[-1]
    return {"id": film.video_id, "view": view, "name": name, "about": about, **asdict(shown)}


def _per_video(predictions: Predictions, videos: npt.NDArray[np.intp]) -> dict[str, Any]:
    rows = []
    for i, output in enumerate(predictions.outputs):
        values = predictions.videos.values[videos, i]
        shown = [shown_percent(float(v)) if output.label else shown_number(float(v)) for v in values]
        name = f"{output.task.name}: {shown_class(output.label)}" if output.label else output.task.name
        rows.append((name, "%" if output.label else output.unit, shown))
    columns = [str(predictions.videos.view[v] or predictions.videos.video_id[v]) for v in videos]
    return {"columns": columns, "rows": rows}


def grouped(tasks: Iterable[Task]) -> list[tuple[str, list[Task]]]:
    """The tasks by group, empty groups left out; a task that PanEcho does not have comes last, in the given order."""
    by_name = {task.name: task for task in tasks}
    groups = [(title, [by_name.pop(name) for name in names if name in by_name]) for title, names in _GROUPS]
    only = not any(members for _, members in groups)
    return [group for group in (*groups, ("Tasks" if only else _OTHERS, list(by_name.values()))) if group[1]]


def _model_line(provenance: Provenance) -> str:
    """Which model, in a line for people."""
    weights = provenance.weights
    name = "PanEcho" if provenance.model == "panecho" else provenance.model
    return f"{name}, {weights.source} (sha256 {weights.sha256[:12]}), licence {weights.licence}"


def _clips_line(provenance: Provenance) -> str:
    """Which clips, in a line for people."""
    plan = provenance.clips
    if plan is None:
        return ""
    many = (
        f"A clip every {plan.stride} frames" if plan.stride else f"Up to {counted(plan.num_clips or 1, 'clip')} a video"
    )
    if plan.uniform or plan.ed_es or plan.beats:
        which = f"{plan.frames_per_clip} frames {plan.spacing}"
    elif plan.target_fps:
        which = f"{plan.frames_per_clip} frames at {plan.target_fps:g} per second"
    elif plan.frame_step == 1:
        which = f"{plan.frames_per_clip} consecutive frames"
    else:
        which = f"{plan.frames_per_clip} frames, {plan.frame_step} apart"
    return f"{many}, of {which}, at {provenance.feeding.crop} x {provenance.feeding.crop} pixels"


def shown_class(label: str) -> str:
    """A class as people read it: "mild_mod_severe" is "Mild, mod or severe", a yes in numbers is "Yes"."""
    if label in ("0.0", "1.0", "0", "1"):
        return "Yes" if float(label) else "No"
    first, *others = re.split(r"[|_]", label)
    *others, last = [first[:1].upper() + first[1:], *(other[:1].lower() + other[1:] for other in others)]
    return f"{', '.join(others)} or {last}" if others else last


def shown_number(value: float) -> str:
    """Three digits, at most two decimals: 58.3, 115, 1.07."""
    return f"{value:.{_decimals(value)}f}".replace("-", "\u2212")


def shown_sd(value: float, sd: float, output: Output) -> str:
    """A standard deviation with as many decimals as its value is shown with; in per cent for probabilities."""
    if math.isnan(sd):
        return ""
    if not output.label:
        return f"{sd:.{_decimals(value)}f}"
    return f"{100 * sd:.0f}" if sd >= 0.01 else f"{100 * sd:.1f}"


def _decimals(value: float) -> int:
    return 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0


def shown_percent(probability: float) -> str:
    """A probability in per cent: "72", "0.4", "< 0.1"."""
    percent = 100 * probability
    if 0 < percent < 0.1:
        return "< 0.1"
    if 99.9 < percent < 100:
        return "> 99.9"
    return f"{percent:.1f}" if percent < 1 or percent > 99 else f"{percent:.0f}"
