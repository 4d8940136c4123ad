"""A suite of tasks, as a TOML file: those of the package, or your own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from panecho_embed.core.clips import ClipPlan, resolve_plan
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.provenance import Level
from panecho_embed.core.wording import brief, nearest
from panecho_embed.datasets.layouts import check_layout
from panecho_embed.evaluation.metrics import METRICS
from panecho_embed.evaluation.targets import KINDS, Kind
from panecho_embed.models.backbones import check_backbone_name
from probes.registry import known_probes

_SHIPPED = ("cardiobench", "ef")
_LEVELS = ("video", "study")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Start:
    """A backbone of a suite.

    name: what the report calls it. backbone: as `--backbone` of `extract`. seed: for the weights of "random".
    image_size: side of the input in pixels; None for the backbone's own.
    """

    name: str
    backbone: str
    seed: int = 0
    image_size: int | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A published figure, shown beside the figures of this run.

    model: as the source calls it, with its protocol. backbone, sampling: the candidates of the suite that it is to be
    compared with; "" for none, or all. metric, value, low, high: the figure with its 95 % interval, None where none is
    given.
    """

    model: str
    metric: str
    value: float
    source: str
    backbone: str = ""
    sampling: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class SplitRule:
    """Who is tested: the data set's own split; named values of its split column; or grouped folds over patients.

    rule: "own", "values" or "folds". test, val: values of the split column; every other value trains. folds: number.
    """

    rule: str = "own"
    test: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    folds: int = 5

    def __str__(self) -> str:
        if self.rule == "values":
            val = f", {' and '.join(self.val)} validates" if self.val else ""
            return f"split {' and '.join(self.test)} tests{val}, the rest trains"
        return f"{self.folds} folds by patient" if self.rule == "folds" else "the data set's own split"


@dataclass(frozen=True, slots=True)
class Task:
    """One question of a suite.

    Parameters
    ----------
    name : str
    data : tuple of str
        Data sets, by the names of `--data`; several only for the target "view".
    target : str
        Label column, or "view".
    kind : {"regression", "binary", "multiclass", "ordinal"} or None
        None tells by the values.
    positive : str
        Positive class of a yes-or-no question; "" for the usual rule.
    order : tuple of str
        Grades, the lowest first.
    classes : tuple of str
        Of the target "view": views that are classes; () for all.
    other : str
        Class of all other views; "" leaves them out.
    where : mapping of str to tuple of str
        Column -> the values that a row must have to take part; "view" is a column too.
    level : {"video", "study"}
    split : SplitRule
    metric : str
        Shown first; "" for the primary metric of the kind. Differences and ranks are always of the primary one.
    samplings : tuple of str
        Names of the suite's samplings.
    published : tuple of Published
    note : str
        What a reader should know of the protocol.
    """

    name: str
    data: tuple[str, ...]
    target: str
    kind: Kind | None = None
    positive: str = ""
    order: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    other: str = ""
    where: Mapping[str, tuple[str, ...]] | None = None
    level: Level = "video"
    split: SplitRule = SplitRule()
    metric: str = ""
    samplings: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks x backbones x samplings x probes.

    layouts: data set -> its layout. samplings: name -> changes to a backbone's own clip plan. draws, seed: of the
    bootstrap, folds and probes.
    """

    name: str
    description: str
    tasks: tuple[Task, ...]
    starts: tuple[Start, ...]
    probes: tuple[str, ...]
    samplings: Mapping[str, Mapping[str, Any]]
    layouts: Mapping[str, str]
    draws: int = 10_000
    seed: int = 0

    def document(self) -> dict[str, Any]:
        """What the suite asks, without the backbones, which each lab chooses."""
        whole = asdict(self)
        return {name: value for name, value in whole.items() if name != "starts"}


def suite_names() -> list[str]:
    """The suites that come with the package."""
    return list(_SHIPPED)


def load_suite(name: str | Path) -> Suite:
    """A suite of the package by name, or a TOML file. Raises ArgumentError for whatever is wrong in it, and where."""
    if str(name) in _SHIPPED:
        text = resources.files("probes.benchmarks").joinpath("suites", f"{name}.toml").read_text("utf-8")
        return parse_suite(text, str(name))
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        raise ArgumentError(
            f"no suite is called {str(name)!r}{nearest(str(name), _SHIPPED)}; there are {', '.join(_SHIPPED)}, or a "
            "file.toml"
        )
    try:
        return parse_suite(path.read_text(encoding="utf-8"), path.stem, str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ArgumentError(f"{path}: the suite can't be read: {reason}") from error


def parse_suite(text: str, name: str, source: str = "") -> Suite:
    """A suite from TOML. name: what it is called. source: what to call the text in messages."""
    where = source or name
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{where}: no TOML: {brief(error)}") from error
    kinds: dict[str, Any] = {"description": str, "tasks": list, "backbones": list, "probes": list, "samplings": dict}
    kinds |= {"layouts": dict, "draws": int, "seed": int}
    _check(raw, kinds, where, needed=("description", "tasks", "backbones"))
    samplings = raw.get("samplings", {"own": {}})
    for label, plan in samplings.items():
        _typed(plan, dict, f"{where}: samplings.{label}")
        try:
            resolve_plan(plan, ClipPlan())
        except (ArgumentError, TypeError) as error:
            raise ArgumentError(f"{where}: samplings.{label}: {error}") from error
    tasks = tuple(
        _task(_typed(one, dict, f"{where}: tasks"), f"{where}: task {number}", samplings)
        for number, one in enumerate(raw["tasks"], 1)
    )
    _once([task.name for task in tasks], f"{where}: two tasks are called")
    starts = tuple(_start(one, where) for one in raw["backbones"])
    _once([start.name for start in starts], f"{where}: two backbones are called")
    probes = _texts(raw.get("probes", ["linear"]), f"{where}: probes")
    for probe in probes:
        _allowed(probe, list(known_probes()), f"{where}: probes")
    if not (tasks and starts and probes):
        raise ArgumentError(f"{where}: a suite needs a task, a backbone and a probe")
    sets = dict.fromkeys(data for task in tasks for data in task.data)
    given = raw.get("layouts", {})
    for data in given:
        _allowed(data, list(sets), f"{where}: layouts names a data set of no task")
    layouts = {data: check_layout(_typed(given.get(data, data), str, f"{where}: layouts.{data}")) for data in sets}
    numbers = {key: raw[key] for key in ("draws", "seed") if key in raw}
    return Suite(name, raw["description"], tasks, starts, probes, samplings, layouts, **numbers)


def _start(raw: Any, where: str) -> Start:
    if isinstance(raw, str):
        raw = {"name": raw, "backbone": raw}
    place = f"{where}: backbones"
    _check(
        _typed(raw, dict, place), {"name": str, "backbone": str, "seed": int, "image_size": int}, place, ("backbone",)
    )
    check_backbone_name(raw["backbone"])
    return Start(**{"name": raw["backbone"], **raw})


def _task(raw: dict[str, Any], where: str, samplings: Mapping[str, Any]) -> Task:
    where = f"{where} ({raw['name']})" if isinstance(raw.get("name"), str) else where
    kinds: dict[str, Any] = dict.fromkeys((field.name for field in fields(Task)), str)
    kinds |= {"data": (str, list), "order": list, "classes": list, "samplings": list, "published": list}
    kinds |= {"where": dict, "split": (str, dict)}
    _check(raw, kinds, where, needed=("name", "data", "target"))
    made = dict(raw)
    made["data"] = (raw["data"],) if isinstance(raw["data"], str) else _texts(raw["data"], f"{where}: data")
    for key in ("order", "classes", "samplings"):
        made[key] = _texts(raw.get(key, []), f"{where}: {key}")
    made["samplings"] = made["samplings"] or tuple(samplings)
    for name in made["samplings"]:
        _allowed(name, list(samplings), f"{where}: samplings")
    made["where"] = {key: _texts(value, f"{where}: where.{key}") for key, value in raw.get("where", {}).items()}
    for key, allowed in (("kind", KINDS), ("level", _LEVELS), ("metric", tuple(METRICS))):
        if key in raw:
            _allowed(raw[key], allowed, f"{where}: {key}")
    if len(made["data"]) != 1 and made["target"] != "view":
        raise ArgumentError(f"{where}: data has {len(made['data'])} sets; only the target view takes several, or none")
    if (made["classes"] or made.get("other")) and made["target"] != "view":
        raise ArgumentError(f"{where}: classes and other are for the target view; it is {made['target']}")
    made["split"] = _split(raw.get("split", "own"), f"{where}: split")
    if len(made["data"]) > 1 and made["split"].rule != "folds":
        raise ArgumentError(f"{where}: split is {made['split']}; several data sets together take folds")
    made["published"] = tuple(_published(one, f"{where}: published") for one in raw.get("published", []))
    return Task(**made)


def _split(raw: str | dict[str, Any], where: str) -> SplitRule:
    if isinstance(raw, str):
        _allowed(raw, ("own", "folds"), f"{where}, else a table of test and val, or of folds")
        return SplitRule(raw)
    _check(raw, {"test": list, "val": list, "folds": int}, where, ())
    if "folds" in raw:
        if len(raw) > 1 or raw["folds"] < 2:
            raise ArgumentError(f"{where} is {raw}; folds stands alone, and is 2 or more")
        return SplitRule("folds", folds=raw["folds"])
    if not raw.get("test"):
        raise ArgumentError(f"{where} names nobody to test: {{test = [...], val = [...]}}")
    return SplitRule("values", _texts(raw["test"], f"{where}.test"), _texts(raw.get("val", []), f"{where}.val"))


def _published(raw: Any, where: str) -> Published:
    kinds: dict[str, Any] = dict.fromkeys((field.name for field in fields(Published)), str)
    kinds |= dict.fromkeys(("value", "low", "high"), (int, float))
    _check(_typed(raw, dict, where), kinds, where, ("model", "metric", "value", "source"))
    _allowed(raw["metric"], tuple(METRICS), f"{where}: metric")
    return Published(**raw)


def _check(raw: Mapping[str, Any], kinds: Mapping[str, Any], where: str, needed: Sequence[str]) -> None:
    for key, value in raw.items():
        if key not in kinds:
            raise ArgumentError(f"{where}: no key {key!r}{nearest(key, kinds)}; allowed are {', '.join(kinds)}")
        _typed(value, kinds[key], f"{where}: {key}")
    if missing := [key for key in needed if key not in raw]:
        raise ArgumentError(f"{where}: {missing[0]} is missing")


def _typed(value: _T, kind: Any, where: str) -> _T:
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    words = {str: "a text", list: "a list", dict: "a table", int: "a whole number", float: "a number"}
    wanted = " or ".join(words[one] for one in (kind if isinstance(kind, tuple) else (kind,)))
    raise ArgumentError(f"{where} is {brief(repr(value))}; allowed is {wanted}")


def _texts(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_typed(one, str, where) for one in _typed(value, list, where))


def _allowed(value: str, allowed: Sequence[str], where: str) -> None:
    if value not in allowed:
        raise ArgumentError(f"{where}: {value!r}{nearest(value, allowed)}; allowed are {', '.join(allowed)}")


def _once(names: Sequence[str], what: str) -> None:
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ArgumentError(f"{what} {twice[0]!r}; each needs a name of its own")
