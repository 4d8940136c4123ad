"""A data set as a recipe wants it: its videos, the targets and their heads, and who trains, validates and tests."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from panecho_embed.core.arraytypes import Bools, Floats, Ints, Texts
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import Failure, Manifest, VideoRef
from panecho_embed.core.remote import check_url, is_url
from panecho_embed.core.tasks import Task, all_tasks, read_tasks
from panecho_embed.core.wording import nearest
from panecho_embed.datasets import detect_layout, known_layouts, local_path, read_manifest
from panecho_embed.evaluation.splits import SPLITS, draw_patients, split_name
from panecho_embed.evaluation.targets import Reading, Target, matched_classes, read_target
from panecho_embed.finetuning.recipe import DataSettings

_Columns = Mapping[str, npt.NDArray[Any]]

_TAKEN = frozenset(dir(nn.ModuleDict()))
_GENERAL = {"csv": "a table (.csv, .tsv)", "folder": "a folder of videos"}
_LISTED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The videos of a data set that can be trained on or tested.

    videos: (M,). targets: of each. split: (M,) as the table says, "train", "val", "test" or a fold's number.
    failures: videos of the table without a file. digest: SHA-256 of ids, splits and labels.
    """

    path: Path
    videos: tuple[VideoRef, ...]
    targets: Targets
    split: Texts
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    digest: str


def read_dataset(path: str | Path, settings: DataSettings, *, strict: bool = False) -> Dataset:
    """A data set as downloaded, or a custom table.

    strict: a row without its file, or a file without its row, is an error. Raises ManifestError: for another data set
    than the recipe is for (unless its layout is "auto"), a split column that is none, and what `make_targets` says.
    """
    if is_url(path):
        raise ManifestError(
            f"{check_url(str(path))} is a URL; every epoch reads the data set, so copy it to this machine (--data). A "
            "table of this machine may list single videos by URL"
        )
    source = Path(path).absolute()
    _check_layout(source, settings.layout)
    # Beside the data, so that all runs on them have the same ids and can be compared.
    whole = read_manifest(source, settings.layout, ids=settings.ids, local=local_path(source))
    if strict and whole.unmatched:
        raise ManifestError(f"{source}: " + "; ".join(whole.notes) + " (--strict)")
    manifest = _of_views(whole, settings.views)
    there = [i for i, video in enumerate(manifest.videos) if is_url(video.location) or Path(video.location).exists()]
    gone = sorted(set(range(len(manifest))) - set(there))
    failures = tuple(
        Failure(video.video_id, video.path, "open", "the table names it, and there is no such file")
        for video in (manifest.videos[i] for i in gone)
    )
    if strict and failures:
        raise ManifestError(f"{source}: {len(failures)} videos have no file, first {failures[0].path} (--strict)")
    manifest = manifest.take(there)
    targets = make_targets(manifest.labels, settings)
    labelled = np.flatnonzero(np.isfinite(targets.values).any(axis=1))
    notes = [*whole.notes, *targets.notes]
    if len(labelled) < len(manifest):
        notes.append(f"{len(manifest) - len(labelled)} videos have no label and are left out")
    videos = tuple(manifest.videos[i] for i in labelled)
    split = np.array([_split(video, settings.folds) for video in videos], dtype=object)
    kept = replace(targets, values=targets.values[labelled])
    print_of = _digest_of(videos, split, kept)
    return Dataset(source, videos, kept, split, failures, tuple(notes), print_of)


def _check_layout(source: Path, wanted: str) -> None:
    if not source.exists():
        raise ManifestError(f"{source}: no such file or folder (--data)")
    if wanted == "auto" or (found := detect_layout(source)) in (wanted, {"images": "folder"}.get(wanted)):
        return
    looks_like = _GENERAL | {layout.name: layout.looks_like for layout in known_layouts().values()}
    raise ManifestError(
        f"{source} is laid out as {found} ({looks_like[found]}); the recipe expects {wanted} "
        f"({looks_like.get(wanted, wanted)}). Give that folder (--data), another recipe, or --set data.layout=auto"
    )


def _of_views(manifest: Manifest, views: Sequence[str]) -> Manifest:
    if not views:
        return manifest
    there = sorted({video.view for video in manifest.videos})
    if unknown := [view for view in views if view not in there]:
        raise ManifestError(f"no video has the view {', '.join(unknown)}; there are {', '.join(there)} (data.views)")
    return manifest.take([i for i, video in enumerate(manifest.videos) if video.view in views])


def _split(video: VideoRef, folds: int) -> str:
    name = video.split.strip().lower()
    if folds:
        if name.isdecimal() and int(name) < folds:
            return str(int(name))
        raise ManifestError(
            f"{video.video_id}: its split is {video.split!r}; with data.folds = {folds} it must be a fold's number, "
            f"0 to {folds - 1}"
        )
    if known := split_name(name):
        return known
    hint = "; numbers are folds: --set data.folds=K" if name.isdecimal() else ""
    raise ManifestError(
        f"{video.video_id}: its split is {video.split!r}; allowed in the column split are train, val and test{hint}"
    )


def _digest_of(videos: Sequence[VideoRef], split: Texts, targets: Targets) -> str:
    digest = hashlib.sha256(json.dumps([task.name for task in targets.tasks]).encode())
    for video, part, values in zip(videos, split, targets.values, strict=True):
        row = [video.video_id, video.study_id, video.patient_id, video.view, part, *map(repr, values.tolist())]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Who does what: indices into a data set's videos. targets: with this fold's training means."""

    dataset: Dataset
    targets: Targets
    train: Ints
    val: Ints
    test: Ints
    number: int | None = None

    def part(self, name: str) -> Ints:
        """The videos of "train", "val" or "test"."""
        indices: Ints = getattr(self, name)
        return indices

    def deviations(self) -> list[float]:
        """(T,) standard deviation of each regression's training labels; 1 for classes."""
        columns = zip(self.targets.tasks, self.targets.values[self.train].T, strict=True)
        return [float(np.nanstd(column)) if task.type == "regression" else 1.0 for task, column in columns]

    def patients(self, name: str) -> set[str]:
        """The patients of "train", "val" or "test"."""
        return {self.dataset.videos[i].patient_id for i in self.part(name)}

    def shared_patients(self) -> set[str]:
        """Those who are in more than one of the three."""
        counts = Counter(patient for name in SPLITS for patient in self.patients(name))
        return {patient for patient, count in counts.items() if count > 1}


def make_fold(
    dataset: Dataset, settings: DataSettings, fold: int | None, *, seed: int, allow_leakage: bool = False
) -> Fold:
    """One fold of a data set: the split column's, or the one in which fold number `fold` tests.

    Raises ManifestError for an empty part, a patient in two of them (unless `allow_leakage`), and a target without
    labels in a part or with a single value in training.
    """
    if fold is None:
        parts = {name: np.flatnonzero(dataset.split == name) for name in SPLITS}
    else:
        number = dataset.split.astype(np.int64)
        validates = (fold + 1) % settings.folds
        val, test = number == validates, number == fold
        parts = {"train": np.flatnonzero(~val & ~test), "val": np.flatnonzero(val), "test": np.flatnonzero(test)}
    for name, indices in parts.items():
        if not len(indices):
            sizes = ", ".join(f"{key} {len(rows)}" for key, rows in parts.items())
            raise ManifestError(f"{dataset.path}: no video with a label is in {name} ({sizes}){_of(fold)}")
    if not allow_leakage:
        _check_apart(dataset, parts, "one of training, validation and test")
    parts["train"] = _fraction(dataset, parts["train"], settings.fraction, seed)
    _check_labels(dataset, parts, fold)
    chosen = np.zeros(len(dataset.videos), dtype=np.bool_)
    chosen[parts["train"]] = True
    return Fold(dataset, _with_training_means(dataset.targets, chosen), **parts, number=fold)


def check_folds_apart(dataset: Dataset) -> None:
    """Raise ManifestError if a patient is in two folds: some model would be tested on whom it was trained on."""
    parts = {f"fold {number}": np.flatnonzero(dataset.split == number) for number in sorted(set(dataset.split))}
    _check_apart(dataset, parts, "one fold")


def _check_apart(dataset: Dataset, parts: dict[str, Ints], one: str) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for name, indices in parts.items():
        for i in indices:
            where[dataset.videos[i].patient_id].add(name)
    twice = [f"{patient} ({', '.join(sorted(names))})" for patient, names in where.items() if len(names) > 1]
    if twice:
        more = f" and {len(twice) - _LISTED} more" if len(twice) > _LISTED else ""
        raise ManifestError(
            f"{dataset.path}: {len(twice)} patients stand in more than {one}: {', '.join(twice[:_LISTED])}{more} "
            "(--allow-leakage to go on)"
        )


def _fraction(dataset: Dataset, train: Ints, fraction: float, seed: int) -> Ints:
    """The videos of a share of the training patients, as every command draws them.

    A smaller share is part of a larger one, and every class of a target keeps two patients.
    """
    if fraction == 1:
        return train
    patients = np.array([dataset.videos[i].patient_id for i in train], dtype=object)
    kept = set(draw_patients(patients, None, 0, fraction, "fraction", seed=seed))
    for target, column in zip(dataset.targets.targets, dataset.targets.truth.T, strict=True):
        there = np.isfinite(column[train])
        if target.classes:
            truth = column[train][there]
            kept |= set(draw_patients(patients[there], truth, len(target.classes), 0.0, "fraction", seed=seed))
    return train[np.isin(patients.astype(str), list(kept))]


def _check_labels(dataset: Dataset, parts: dict[str, Ints], fold: int | None) -> None:
    for task, column in zip(dataset.targets.tasks, dataset.targets.values.T, strict=True):
        for name, indices in parts.items():
            there = column[indices][np.isfinite(column[indices])]
            if not len(there):
                raise ManifestError(
                    f"{task.name} has no label in {name} ({len(indices)} videos){_of(fold)}; "
                    "leave it out by naming the other targets (--set data.targets=...)"
                )
            if name == "train" and (there == there[0]).all():
                value = task.classes[int(there[0])] if task.classes else f"{there[0]:g}"
                raise ManifestError(
                    f"{task.name} is {value} in all {len(there)} training videos{_of(fold)}; there is nothing to learn"
                )


def _of(fold: int | None) -> str:
    return "" if fold is None else f" of fold {fold}"


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is to be learned of M videos.

    targets: (T,) as every command reads them. tasks: (T,) of the heads; classes are in the order of the target's, and
    grades are learned as classes. values: (M, T) float64: the value as the head is to give it, or the class index; NaN
    where missing. signs: (T,) 1, or -1 where the head gives minus the target (strain, as PanEcho's head does). notes:
    what a person should know of how they came about.
    """

    targets: tuple[Target, ...]
    tasks: tuple[Task, ...]
    values: Floats
    signs: Floats
    notes: tuple[str, ...] = ()

    @property
    def truth(self) -> Floats:
        """(M, T) the targets themselves: values with their own sign, or class indices."""
        return self.values * self.signs


def make_targets(labels: _Columns, settings: DataSettings) -> Targets:
    """The targets that a recipe asks for, out of a manifest's label columns.

    Raises ManifestError for a target without a column, and labels that `read_target` refuses; TaskTableError for an
    unusable table of tasks.
    """
    table = _table(settings.tasks)
    known = table or {task.name: task for task in all_tasks()}
    names, notes = _names(labels, settings, table)
    targets, tasks, columns, signs = [], [], [], []
    for name in names:
        _check_name(name)
        try:
            kind = settings.task or None
            reading = Reading(task=kind, positive=settings.positive, order=settings.order, tasks=known)
            read = read_target(labels[name], name, reading)
            if name in table and table[name].classes and not (kind or settings.order):
                # A column that the table describes is not taken for separate classes because of one misspelt label.
                _check_classes(read.target, table[name])
        except ArgumentError as error:
            raise ManifestError(
                f"{_flags_of_recipes(str(error))} (or leave {name} out: --set data.targets=...)"
            ) from error
        task, sign = _head_of(read.target, known.get(name))
        targets.append(read.target)
        tasks.append(task)
        columns.append(sign * read.truth)
        signs.append(sign)
        notes += [read.note] if read.note else []
    return Targets(tuple(targets), tuple(tasks), np.column_stack(columns), np.array(signs), tuple(notes))


def _with_training_means(targets: Targets, train: Bools) -> Targets:
    """The same, the tasks' training means being those of the videos in `train` (M,)."""
    means = [float(np.nanmean(column)) for column in targets.values[train].T]
    tasks = tuple(replace(task, training_mean=mean) for task, mean in zip(targets.tasks, means, strict=True))
    return replace(targets, tasks=tasks)


def _check_classes(target: Target, task: Task) -> None:
    """Raise ArgumentError for labels that are none of the task's classes."""
    try:
        matched_classes(target, task)
    except ArgumentError as error:
        raise ArgumentError(f"{target.name}: {error}") from error


def _head_of(target: Target, known: Task | None) -> tuple[Task, float]:
    """The task of a target's head, and the sign between the two."""
    description = known.description if known is not None else ""
    if target.kind == "regression":
        sign = -1 if known is not None and known.sign < 0 else 1
        task = Task(target.name, "regression", 1, (), None, target.unit, math.nan, description, -1 if sign < 0 else 1)
        return task, float(sign)
    if target.kind == "binary":
        return Task(target.name, "binary", 1, target.classes, 1, "", math.nan, description), 1.0
    count = len(target.classes)
    return Task(target.name, "multiclass", count, target.classes, None, "", math.nan, description), 1.0


def _table(tasks: str) -> dict[str, Task]:
    if not tasks:
        return {}
    return {task.name: task for task in (all_tasks() if tasks == "panecho" else read_tasks(tasks))}


def _names(labels: _Columns, settings: DataSettings, table: Mapping[str, Task]) -> tuple[list[str], list[str]]:
    if settings.targets:
        for name in settings.targets:
            if name not in labels:
                raise ManifestError(f"no label column {name!r}{nearest(name, labels)}; {_there(labels)}")
            if settings.tasks and name not in table:
                raise ManifestError(
                    f"{name!r} is no task of data.tasks = {settings.tasks!r}{nearest(name, table)}; "
                    f"allowed: {', '.join(table)}"
                )
        return list(settings.targets), []
    names = [name for name in table if name in labels]
    if not names:
        raise ManifestError(
            f"no label column is called as one of the {len(table)} tasks of data.tasks = {settings.tasks!r}; "
            f"{_there(labels)}; the tasks are {', '.join(table)}"
        )
    without = [name for name in table if name not in labels]
    notes = [f"{len(names)} of {len(table)} tasks have a label column; {len(without)} have none"] if without else []
    return names, notes


def _there(labels: _Columns) -> str:
    return f"label columns: {', '.join(list(labels)[:40]) or '(none; a table with a column a target is needed)'}"


def _check_name(name: str) -> None:
    if not name or set(name) & set('.,"\n\r'):
        raise ManifestError(f"a target can't be called {name!r}: no point, comma, quote or line break; rename it")
    if name in _TAKEN:
        raise ManifestError(f"a target can't be called {name!r}: torch uses the name itself; rename the column")


def _flags_of_recipes(message: str) -> str:
    """The flags of a message as settings of a recipe."""
    for name in ("task", "positive", "order"):
        message = message.replace(f"(--{name})", f"(--set data.{name}=...)").replace(
            f"--{name} ", f"--set data.{name}="
        )
    return message
