"""`panecho-embed benchmark` as a function: extract, probe, compare, and write one folder; or merge results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panecho_embed._version import __version__
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import make_output_folder, refuse_to_replace, without_nan, write_json
from panecho_embed.core.progress import silent
from panecho_embed.core.provenance import Precision
from panecho_embed.core.shards import Shard
from panecho_embed.core.wording import file_stem
from probes.benchmarks.report import write_benchmark_report
from probes.benchmarks.sets import DataSet, Missing, extract_sets, missing_sets, read_sets
from probes.benchmarks.suite import Start, Suite, Task, load_suite
from probes.benchmarks.tasks import files_of, inputs_digest, run_task

if TYPE_CHECKING:
    import pandas as pd

FILE = "benchmark.json"
REPORT = "report.html"
_FORMAT = "panecho-embed benchmark"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Benchmark:
    """A finished benchmark.

    Parameters
    ----------
    document : dict
        As written to benchmark.json.
    folder : Path
        With benchmark.json and report.html.
    """

    document: Mapping[str, Any]
    folder: Path

    @property
    def missing(self) -> list[Mapping[str, str]]:
        """What the suite asks for and is not there, and why."""
        return list(self.document["missing"])

    def table(self) -> pd.DataFrame:
        """One row per task, candidate and metric: value and 95 % interval."""
        import pandas as pd

        return pd.DataFrame(
            {"task": task["name"], "candidate": name, "metric": metric, "value": value, "low": low, "high": high}
            for task in self.document["tasks"]
            for name, one in task["candidates"].items()
            for metric, (value, low, high) in one["scores"].items()
        )


def benchmark(
    suite: str | Path,
    data: Mapping[str, str | Path],
    out: str | Path,
    *,
    backbones: Sequence[str] = (),
    weights: Mapping[str, str | Path] | None = None,
    shard: Shard | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    workers: int | None = None,
    progress: bool | None = False,
    announce: Callable[[str], object] = silent,
) -> Benchmark | None:
    """Extract, probe and compare every task of a suite; resumable: called again, it continues.

    Parameters
    ----------
    suite : str or Path
        "cardiobench", "ef", or a TOML file.
    data : mapping of str to path
        Data set of the suite -> folder. Tasks of data sets that are not given are left out, and named.
    out : str or Path
        Folder for embeddings/, tasks/, benchmark.json and report.html.
    backbones : sequence of str
        In place of the suite's.
    weights : mapping, optional
        Weights files by the name of the backbone; others are found or fetched.
    shard : Shard, optional
        Extract this share of the videos only; a call without it collects what all shards did.
    precision, device, workers, progress, announce
        As for `extract`.

    Returns
    -------
    Benchmark, or None for a shard

    Raises
    ------
    ArgumentError
        For a mistake in the suite, a data set or backbone that it does not name, and a column that a set lacks.
    ManifestError
        For a folder that is not laid out as its data set.
    StoreError
        Where `out` can't be written, or holds embeddings of other settings.
    """
    asked = load_suite(suite)
    if backbones:
        asked = replace(asked, starts=tuple(_start(name, asked) for name in dict.fromkeys(backbones)))
    files = dict(weights or {})
    names = [start.name for start in asked.starts]
    if strangers := [name for name in files if name not in names]:
        raise ArgumentError(
            f"weights of {strangers[0]}, which is none of the backbones {', '.join(names)} (--weights NAME=FILE)"
        )
    if lost := [path for path in files.values() if not Path(path).is_file()]:
        raise ArgumentError(f"{lost[0]}: no such weights file (--weights)")
    if not data:
        raise ArgumentError(f"no data set is given; {asked.name} has {', '.join(asked.layouts)} (--data NAME=FOLDER)")
    folder = Path(out)
    make_output_folder(folder)
    sets = read_sets(asked, data, folder)
    missing = missing_sets(asked, sets)
    missing += extract_sets(
        asked,
        sets,
        folder,
        weights=files,
        shard=shard,
        precision=precision,
        device=device,
        workers=workers,
        progress=progress,
        announce=announce,
    )
    if shard is not None:
        for one in missing[len(missing_sets(asked, sets)) :]:
            announce(f"{one.what}: {one.why}")
        return None
    tasks = []
    for task in asked.tasks:
        found, lacking = _task(task, asked, sets, folder, announce)
        missing += lacking
        if found is not None:
            tasks.append(found)
    if not tasks:
        reasons = "; ".join(f"{one.what}: {one.why}" for one in missing)
        raise ArgumentError(f"no task of {asked.name} can be evaluated: {reasons}")
    document = _whole(asked.document(), [asdict(one) for one in missing], tasks, [])
    return _written(document, folder)


def merge_benchmarks(files: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> Benchmark:
    """One report of several labs' benchmark.json, of the same suite.

    Candidates of one name with other figures get their file's name added. Differences exist only between candidates of
    one file, so ranks across files are wide.

    Raises
    ------
    ArgumentError
        For fewer than two files, a file twice, and files of different suites.
    StoreError
        For a file that is no benchmark of this version, and if `out` holds one already.
    """
    paths = [Path(file) for file in files]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise ArgumentError(f"to merge takes two different files or more; these are {', '.join(map(str, paths))}")
    documents = [_read(path) for path in paths]
    for path, one in zip(paths[1:], documents[1:], strict=True):
        _check_same_suite(paths[0], documents[0], path, one)
    folder = Path(out)
    refuse_to_replace(folder / FILE, overwrite, *paths, in_new_folder=True)
    make_output_folder(folder)
    labs = _labs(paths)
    known: dict[str, dict[str, Any]] = {}
    for lab, document in zip(labs, documents, strict=True):
        for task in document["tasks"]:
            if task["name"] not in known:
                known[task["name"]] = {**task, "candidates": {}, "differences": [], "labs": []}
            _add(known[task["name"]], task, lab)
    order = [task["name"] for task in documents[0]["suite"]["tasks"]]
    tasks = [known[name] for name in order if name in known]
    missing = [
        {"what": f"{lab}: {one['what']}", "why": one["why"]}
        for lab, document in zip(labs, documents, strict=True)
        for one in document["missing"]
    ]
    return _written(_whole(documents[0]["suite"], missing, tasks, labs), folder)


def _start(name: str, suite: Suite) -> Start:
    """A backbone by its name in the suite, else by its own."""
    from panecho_embed.models.backbones import check_backbone_name

    if known := next((start for start in suite.starts if start.name == name), None):
        return known
    check_backbone_name(name)
    return Start(name, name)


def _task(
    task: Task, suite: Suite, sets: Mapping[str, DataSet], out: Path, announce: Callable[[str], object]
) -> tuple[dict[str, Any] | None, list[Missing]]:
    """A task's document, read back where nothing has changed; and what is missing of it."""
    here = [name for name in task.data if name in sets]
    if not here:
        return None, [Missing(f"task {task.name}", f"no data set {' or '.join(task.data)}")]
    missing = [Missing(f"task {task.name}", f"without the data set {name}") for name in task.data if name not in sets]
    files = files_of(task, suite, sets, out)
    if not files:
        return None, [*missing, Missing(f"task {task.name}", "no backbone has embeddings")]
    digest = inputs_digest(task, suite, sets, files)
    kept = out / "tasks" / f"{file_stem(task.name)}-{digest[:12]}.json"
    document = _kept(kept)
    if document is None:
        announce(f"task {task.name}: {len(files) * len(suite.probes)} candidates")
        try:
            found = run_task(task, suite, sets, files)
        except ArgumentError as error:
            return None, [*missing, Missing(f"task {task.name}", str(error))]
        document = {"name": task.name, "metric": task.metric or found["primary"], **found}
        if document["metric"] not in next(iter(document["candidates"].values()))["scores"]:
            why = f"{found['kind']} has no metric {document['metric']}"
            return None, [*missing, Missing(f"task {task.name}", why)]
        kept.parent.mkdir(exist_ok=True)
        document = without_nan(document)
        write_json(kept, document)
    return document, missing


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _whole(
    suite: Mapping[str, Any],
    missing: Sequence[Mapping[str, str]],
    tasks: Sequence[Mapping[str, Any]],
    labs: Sequence[str],
) -> dict[str, Any]:
    head = {"format": _FORMAT, "schema_version": _SCHEMA_VERSION, "version": __version__}
    plain = {**head, "suite": suite, "labs": labs, "missing": missing, "tasks": tasks}
    read_back: dict[str, Any] = json.loads(json.dumps(without_nan(plain)))
    return read_back


def _written(document: dict[str, Any], folder: Path) -> Benchmark:
    write_benchmark_report(folder / REPORT, document)
    # Last: a folder with it has all.
    write_json(folder / FILE, document)
    return Benchmark(document, folder)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: it can't be read as a {FILE}: {error}") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise StoreError(f"{path}: it is no {FILE} of `panecho-embed benchmark`")
    if found.get("schema_version") != _SCHEMA_VERSION:
        raise StoreError(
            f"{path}: a benchmark of schema version {found.get('schema_version')}; this release reads "
            f"{_SCHEMA_VERSION}: run the command again"
        )
    return found


def _check_same_suite(first: Path, a: Mapping[str, Any], second: Path, b: Mapping[str, Any]) -> None:
    mine, theirs = a["suite"], b["suite"]
    for key in mine:
        if key not in ("description", "tasks") and mine[key] != theirs.get(key):
            raise ArgumentError(
                f"{first} and {second} are of different suites: {key} is {mine[key]}, and {theirs.get(key)} (--merge)"
            )
    of_name = {task["name"]: task for task in theirs["tasks"]}
    for task in mine["tasks"]:
        other = of_name.pop(task["name"], None)
        if other is None:
            raise ArgumentError(f"{second} has no task {task['name']!r}, and {first} has (--merge)")
        differing = [key for key in task if key not in ("note", "published") and task[key] != other.get(key)]
        if differing:
            raise ArgumentError(
                f"task {task['name']!r}: {differing[0]} is {task[differing[0]]} in {first}, and "
                f"{other.get(differing[0])} in {second} (--merge)"
            )
    if of_name:
        raise ArgumentError(f"{first} has no task {next(iter(of_name))!r}, and {second} has (--merge)")


def _labs(paths: Sequence[Path]) -> list[str]:
    """What each file is called: its name, or its folder's where the names are the same."""
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        stems = [path.resolve().parent.name for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _add(whole: dict[str, Any], task: Mapping[str, Any], lab: str) -> None:
    """Add one lab's candidates and differences to a task."""
    names = {}
    for name, one in task["candidates"].items():
        known = whole["candidates"].get(name)
        names[name] = name if known is None or known["scores"] == one["scores"] else f"{name} ({lab})"
        whole["candidates"].setdefault(names[name], one)
    there = {(one["first"], one["second"]) for one in whole["differences"]}
    for one in task["differences"]:
        first, second = names[one["first"]], names[one["second"]]
        if (first, second) not in there and (second, first) not in there:
            whole["differences"].append({**one, "first": first, "second": second})
    about = {"lab": lab, "tested": task["tested"], "n": task["n"], "n_patients": task["n_patients"]}
    whole["labs"].append(about)
