"""The data sets of a suite: understood by their layout, checked against the tasks, extracted by every backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panecho_embed.core.clips import resolve_plan
from panecho_embed.core.errors import ArgumentError, ManifestError, PanEchoEmbedError, WeightsNotFoundError
from panecho_embed.core.provenance import Precision
from panecho_embed.core.shards import Shard
from panecho_embed.core.wording import counted, file_stem, nearest
from panecho_embed.datasets import read_manifest
from panecho_embed.datasets.layouts import GENERAL, known_layouts
from panecho_embed.datasets.mimic_prepare import LABELS, VIDEOS, prepare_mimic
from panecho_embed.datasets.reading import read_table
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import Backbone, load_backbone
from probes.benchmarks.suite import Start, Suite, Task

_MIMIC = "mimic-iv-echo"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set that is there.

    name: of `--data`. source: what `extract` reads. layout: of the source. labels: table of labels beside the source,
    None where the source has its own. columns: everything that a task may predict or choose by. units: of labels.
    """

    name: str
    source: Path
    layout: str
    labels: Path | None
    columns: tuple[str, ...]
    units: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the suite asks for and this run has not: what, and why."""

    what: str
    why: str


def read_sets(suite: Suite, data: Mapping[str, str | Path], out: Path) -> dict[str, DataSet]:
    """The data sets that were given, by name.

    out: where tables are put that have to be made first. Raises ArgumentError for a name that no task has, or a column
    that a set lacks; ManifestError for a folder that does not hold the layout.
    """
    for name in data:
        if name not in suite.layouts:
            known = list(suite.layouts)
            raise ArgumentError(
                f"no task of {suite.name} is on {name!r}{nearest(name, known)}; its data sets are {', '.join(known)} "
                "(--data)"
            )
    found = {name: _read_set(name, Path(path), suite.layouts[name], out) for name, path in data.items()}
    for task in suite.tasks:
        for one in (found[name] for name in task.data if name in found):
            _check_columns(task, one)
    return found


def _read_set(name: str, path: Path, layout: str, out: Path) -> DataSet:
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder (--data {name}=...)")
    if layout == _MIMIC:
        return _mimic(name, path, out)
    try:
        manifest = read_manifest(path, layout)
    except ManifestError as error:
        raise ManifestError(f"--data {name}: {error}") from error
    units = {} if layout in GENERAL else known_layouts()[layout].units
    return DataSet(name, path, layout, None, ("view", *manifest.labels), units)


def _mimic(name: str, path: Path, out: Path) -> DataSet:
    """The tables of `panecho-embed mimic`, which are made if `path` is the set itself."""
    tables = path
    if not (path / VIDEOS).is_file():
        tables = out / "tables" / file_stem(name)
        if not (tables / LABELS).is_file():
            tables.mkdir(parents=True, exist_ok=True)
            prepare_mimic(path, tables)
    if not (tables / LABELS).is_file():
        raise ManifestError(f"{tables}: {VIDEOS} without {LABELS}; run `panecho-embed mimic` again (--data {name}=...)")
    labels = [str(column) for column in read_table(tables / LABELS).frame.columns]
    return DataSet(name, tables / VIDEOS, "csv", tables / LABELS, ("view", *labels), {"lvef": "%"})


def _check_columns(task: Task, found: DataSet) -> None:
    for column in (task.target, *(task.where or ())):
        if column not in found.columns:
            raise ArgumentError(
                f"task {task.name!r}: {found.name} has no column {column!r}{nearest(column, found.columns)}; it has "
                f"{', '.join(found.columns)}"
            )


def embedding_file(out: Path, data: str, start: str, sampling: str) -> Path:
    """Where the embeddings of a data set by a backbone lie."""
    return out / "embeddings" / file_stem(data) / file_stem(start) / f"{sampling}.h5"


def extract_sets(
    suite: Suite,
    sets: Mapping[str, DataSet],
    out: Path,
    *,
    weights: Mapping[str, str | Path],
    shard: Shard | None,
    precision: Precision,
    device: str,
    workers: int | None,
    progress: bool | None,
    announce: Callable[[str], object],
) -> list[Missing]:
    """Extract what is not there yet, one pass over the videos of each set for each backbone; what could not be had.

    Raises SettingsMismatchError where embeddings of other settings lie in the folder.
    """
    missing: list[Missing] = []
    for start in suite.starts:
        wanted = {name: _samplings(suite, name) for name in sets}
        try:
            backbone = load_backbone(start.backbone, weights.get(start.name), start.seed, image_size=start.image_size)
        except (WeightsNotFoundError, ArgumentError) as error:
            missing.append(Missing(f"backbone {start.name}", _first_line(error)))
            continue
        plans, refused = _plans(suite, start, backbone)
        missing += refused
        for name, found in sets.items():
            chosen = {sampling: plans[sampling] for sampling in wanted[name] if sampling in plans}
            if not chosen:
                continue
            folder = embedding_file(out, name, start.name, "any").parent
            folder.parent.mkdir(parents=True, exist_ok=True)
            announce(f"{name}, {start.name}: {', '.join(chosen)}")
            given: dict[str, Any] = {"shard": shard, "precision": precision, "device": device, "workers": workers}
            try:
                summary = extract(
                    found.source,
                    folder,
                    backbone=backbone,
                    plans=chosen,
                    layout=found.layout,
                    progress=progress,
                    announce=announce,
                    **given,
                )
            except ManifestError as error:
                missing.append(Missing(f"{name}, {start.name}", _first_line(error)))
                continue
            if summary.failed:
                first = summary.failed[0]
                of = f"{counted(len(summary.failed), 'video')} of {summary.videos} failed"
                missing.append(Missing(f"{name}, {start.name}", f"{of}, first {first.video_id}: {first.message}"))
    return missing


def _samplings(suite: Suite, data: str) -> list[str]:
    return list(dict.fromkeys(name for task in suite.tasks if data in task.data for name in task.samplings))


def _plans(suite: Suite, start: Start, backbone: Backbone) -> tuple[dict[str, Any], list[Missing]]:
    """The samplings that a backbone can take, and those that it can't."""
    plans, refused = {}, []
    for name, changes in suite.samplings.items():
        try:
            backbone.check_clips(resolve_plan(changes, backbone.feeding.clips))
            plans[name] = changes
        except ArgumentError as error:
            refused.append(Missing(f"{start.name}, sampling {name}", str(error)))
    return plans, refused


def missing_sets(suite: Suite, sets: Mapping[str, DataSet]) -> list[Missing]:
    """The data sets of the suite that were not given."""
    return [
        Missing(f"data set {name}", f"not given (--data {name}=FOLDER)") for name in suite.layouts if name not in sets
    ]


def _first_line(error: PanEchoEmbedError) -> str:
    # The lines below it say where was looked, and a path may name a person.
    return str(error).partition("\n")[0]
