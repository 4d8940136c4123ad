"""The report of a benchmark: the ranks over all tasks, then every task with its differences and published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.core.wording import counted, number, p_value
from panecho_embed.evaluation.inference import Difference, holm, verdict
from panecho_embed.evaluation.metrics import SHORT, display_name, higher_is_better
from panecho_embed.evaluation.page import Block, Code, Facts, Folded, Lead, Section, Table, Text, figure, write_report
from panecho_embed.evaluation.plots import intervals

_LONG = 12  # rows of a table that is folded
_Task = Mapping[str, Any]


def judged(tasks: Sequence[_Task]) -> list[list[dict[str, Any]]]:
    """The differences of each task with p_holm and verdict, corrected for the number of all of them together."""
    found = [[_difference(one) for one in task["differences"]] for task in tasks]
    corrected = iter(holm([one.p_value for of_task in found for one in of_task]))
    told = []
    for task, of_task in zip(tasks, found, strict=True):
        better, rows = higher_is_better(task["primary"]), []
        for raw, one in zip(task["differences"], of_task, strict=True):
            p = float(next(corrected))
            rows.append({**raw, "difference": one, "p_holm": p, "verdict": verdict(one, higher_is_better=better, p=p)})
        told.append(rows)
    return told


def ranks_of(task: _Task, differences: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """Rank of each candidate by the primary metric, with the lowest and highest that the differences leave open.

    A rank is excluded where a difference of a corrected p below 0.05 says so; the ranges hold together, in all tasks,
    with 95 % (Mogstad et al., Rev Econ Stud 2024; 91: 476-518). Candidates of different labs have no differences, which
    leaves all ranks open.
    """
    primary = task["primary"]
    sign = -1.0 if higher_is_better(primary) else 1.0
    values = {name: _value(one["scores"].get(primary)) for name, one in task["candidates"].items()}
    ordered = sorted(values, key=lambda name: (np.isnan(values[name]), sign * values[name]))
    above, below = dict.fromkeys(values, 0), dict.fromkeys(values, 0)
    for one in differences:
        if one["verdict"] in ("better", "worse"):
            winner, loser = (one["first"], one["second"])[:: 1 if one["verdict"] == "better" else -1]
            below[winner] += 1
            above[loser] += 1
    return {name: (place, 1 + above[name], len(ordered) - below[name]) for place, name in enumerate(ordered, 1)}


def write_benchmark_report(path: Path, document: Mapping[str, Any]) -> Path:
    """Write report.html. Raises StoreError."""
    suite, tasks = document["suite"], document["tasks"]
    told = judged(tasks)
    ranks = [ranks_of(task, rows) for task, rows in zip(tasks, told, strict=True)]
    asked = {one["name"]: one for one in suite["tasks"]}
    sections = [Section("Summary", _summary(document, ranks))]
    for task, rows, of_task in zip(tasks, told, ranks, strict=True):
        sections.append(Section(task["name"], _task_blocks(task, asked[task["name"]], rows, of_task)))
    sections.append(Section("How it was done", _methods(suite, told)))
    labs = f", {counted(len(document['labs']), 'lab')}" if document["labs"] else ""
    subtitle = f"Benchmark {suite['name']}: {len(tasks)} of {counted(len(suite['tasks']), 'task')}{labs}"
    return write_report(path, suite["description"], subtitle, sections)


def _summary(document: Mapping[str, Any], ranks: Sequence[Mapping[str, tuple[int, int, int]]]) -> list[Block]:
    tasks = document["tasks"]
    everywhere = [name for name in ranks[0] if all(name in of_task for of_task in ranks)]
    names = sorted(
        dict.fromkeys(name for of_task in ranks for name in of_task),
        key=lambda name: (name not in everywhere, np.mean([one[name][0] for one in ranks if name in one])),
    )
    blocks: list[Block] = [Lead(_sentences(tasks, ranks, everywhere), warnings=_warnings(document))]
    rows = []
    for name in names:
        own = [one[name] for one in ranks if name in one]
        middle, low, high = (float(np.mean(column)) for column in zip(*own, strict=True))
        rows.append([name, f"{len(own)} of {len(tasks)}", f"{middle:.1f}", f"{low:.1f} to {high:.1f}"])
    caption = (
        "Mean rank over the tasks of a candidate, 1 is best. Possible: the mean of the lowest and of the highest ranks "
        "that no difference excludes."
    )
    blocks.append(Table(["Candidate", "Tasks", "Mean rank", "Possible"], rows, caption))
    values = [
        [task["name"], display_name(task["metric"], task["unit"]), *(_cell(task, name) for name in names)]
        for task in tasks
    ]
    blocks.append(Table(["Task", "Metric", *names], values, "The metric of each task.", wrapped=True))
    if document["missing"]:
        listed = [[one["what"], one["why"]] for one in document["missing"]]
        blocks.append(Table(["Missing", "Why"], listed, "What the suite asks for and this run has not.", wrapped=True))
    return blocks


def _sentences(
    tasks: Sequence[_Task], ranks: Sequence[Mapping[str, tuple[int, int, int]]], everywhere: Sequence[str]
) -> list[str]:
    told = []
    for task, of_task in zip(tasks, ranks, strict=True):
        best = min(of_task, key=lambda name: of_task[name][0])
        low, high = of_task[best][1:]
        sure = (
            "no other candidate can be told apart from it" if high == len(of_task) else f"its rank is {low} to {high}"
        )
        if low == high == 1:
            sure = "it is better than every other candidate"
        alone = len(of_task) == 1
        told.append(f"{task['name']}: {best}, {_full(task, best)}" + ("." if alone else f"; {sure}."))
    if len(told) > 6:
        told = [f"{len(told)} tasks; the tables below have each of them."]
    if not everywhere and len(tasks) > 1:
        told.append("No candidate was evaluated in every task.")
    return told


def _warnings(document: Mapping[str, Any]) -> list[str]:
    notes = []
    if document["missing"]:
        notes.append(f"{counted(len(document['missing']), 'thing')} the suite asks for missing; they are listed below.")
    for task in document["tasks"]:
        if len({(one["tested"]) for one in task.get("labs", [])}) > 1:
            counts = ", ".join(f"{one['lab']} {one['n']}" for one in task["labs"])
            notes.append(
                f"{task['name']}: the labs did not test the same rows ({counts}); their figures can't be ranked."
            )
        if task["n_patients"] < 10:
            notes.append(
                f"{task['name']}: only {counted(task['n_patients'], 'patient')} tested; the figures say little."
            )
    return notes


def _task_blocks(
    task: _Task, asked: Mapping[str, Any], told: Sequence[Mapping[str, Any]], ranks: Mapping[str, tuple[int, int, int]]
) -> list[Block]:
    primary, metric = task["primary"], task["metric"]
    shown = list(dict.fromkeys([metric, *SHORT[task["kind"]]]))
    rows = []
    for name in ranks:
        scores, (place, low, high) = task["candidates"][name]["scores"], ranks[name]
        spread = f"{place}" if low == high == place else f"{place} ({low} to {high})"
        rows.append(
            [name, spread, *(_full(task, name, one) for one in shown[:2]), *(_plain(scores, one) for one in shown[2:])]
        )
    if task["baseline"]:
        rows.append(["guessing (baseline)", "-", *(number(_value([task["baseline"].get(one)])) for one in shown)])
    alone = {name: one["recording_only"] for name, one in task["candidates"].items() if one["recording_only"]}
    if alone:
        first = next(iter(alone.values()))
        rows.append(["recording only (no image)", "-", *(number(_value([first.get(one)])) for one in shown)])
    left = f"; {task['n_left_out']} not in every candidate left out" if task["n_left_out"] else ""
    without = f"; {task['n_without_split']} without a split left out" if task["n_without_split"] else ""
    level = asked["level"]
    caption = f"{counted(task['n'], level)} of {counted(task['n_patients'], 'patient')} tested{left}{without}."
    blocks: list[Block] = []
    drawn = [(name, *_interval(task["candidates"][name]["scores"][metric])) for name in ranks]
    base = task["baseline"].get(metric)
    label = display_name(metric, task["unit"])
    if any(np.isfinite(row[2]) for row in drawn):
        drawing = intervals(drawn, label, reference=base)
        blocks.append(figure(drawing, f"{task['name']}: {label}, 95 % intervals; dashed: guessing."))
    titles = ["Candidate", "Rank", *(display_name(one, task["unit"]) for one in shown)]
    blocks.append(Table(titles, rows, caption, wrapped=True))
    if asked["published"]:
        blocks.append(_published(task, asked["published"]))
    if told:
        contrasts = [[f"{one['first']} - {one['second']}", *_told(one)] for one in told]
        columns = ["Difference", display_name(primary, task["unit"]), "95 % interval", "p, corrected", "The first is"]
        blocks.append(
            Table(columns, contrasts, "Differences, paired by patient.", folded=len(contrasts) > _LONG, wrapped=True)
        )
    if asked["note"]:
        blocks.append(Text(asked["note"], "note"))
    return [*blocks, Folded("Protocol", [Facts(_protocol(task, asked))])]


def _told(one: Mapping[str, Any]) -> list[str]:
    found: Difference = one["difference"]
    return [number(found.value), _range(found.low, found.high), p_value(one["p_holm"]), str(one["verdict"])]


def _published(task: _Task, figures: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for one in figures:
        ours = [
            f"{name}: {_full(task, name, one['metric'])}"
            for name, candidate in task["candidates"].items()
            if one["backbone"] == candidate["backbone"]
            and one["sampling"] in ("", candidate["sampling"])
            and one["metric"] in candidate["scores"]
        ]
        value = f"{one['value']:g}"
        if one["low"] is not None:
            value += f" ({one['low']:g} to {one['high']:g})"
        rows.append(
            [one["model"], display_name(one["metric"], task["unit"]), value, "; ".join(ours) or "-", one["source"]]
        )
    caption = "Published figures; they were made with other code, and mostly with other heads and pixels."
    return Table(["Published", "Metric", "Value", "Here", "Source"], rows, caption, wrapped=True)


def _protocol(task: _Task, asked: Mapping[str, Any]) -> dict[str, str]:
    rule = asked["split"]
    words = {"own": "the data set's own", "folds": f"{rule['folds']} folds by patient, several partitions"}
    rest = f"{', '.join(rule['test'])} tests; {', '.join(rule['val']) or 'none'} validates; the rest trains"
    facts = {
        "Data": ", ".join(task["data"]),
        "Target": f"{asked['target']} ({task['kind']})",
        "Level": asked["level"],
        "Split": words.get(rule["rule"], rest),
    }
    if asked["where"]:
        facts["Rows"] = "; ".join(f"{name} is {' or '.join(values)}" for name, values in asked["where"].items())
    for name, one in task["candidates"].items():
        facts[name] = (
            f"{one['clips']}; probe {one['probe']}; weights {one['weights'][:12]}; settings {one['settings_id'][:12]}"
        )
    return facts


def _methods(suite: Mapping[str, Any], told: Sequence[Sequence[object]]) -> list[Block]:
    count = sum(map(len, told))
    text = (
        "Every backbone was frozen and its embeddings read by the same probes, on the same patients and splits. "
        "Settings were chosen on validation patients or on inner folds grouped by patient. Intervals are 95 % "
        f"intervals from {suite['draws']:,} bootstraps over patients. Differences are paired by patient, of the "
        "primary metric of each task; their variance holds the tested patients and the training sets or folds. "
        f"P-values are corrected for the {counted(count, 'difference')} of this report by Holm's method. The range of "
        "a rank holds "
        "every rank that no difference with a corrected p below 0.05 excludes; the ranges of all tasks hold together "
        "with 95 %."
    )
    return [Text(text), Code(f"panecho-embed benchmark {suite['name']} --data NAME=FOLDER ... -o DIR")]


def _difference(raw: Mapping[str, Any]) -> Difference:
    value, low, high, p, se, df = (_number(raw[name]) for name in ("value", "low", "high", "p_value", "se", "df"))
    unknown = tuple(raw["unknown"])
    return Difference(
        raw["metric"], value, low, high, p, se, df, raw["variances"], unknown, raw["n"], raw["n_patients"]
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _interval(score: Sequence[float | None]) -> tuple[float, float, float]:
    """Value, low and high."""
    value, low, high = map(_number, score)
    return value, low, high


def _value(score: Sequence[float | None] | None) -> float:
    return _number(score[0]) if score else float("nan")


def _cell(task: _Task, name: str) -> str:
    one = task["candidates"].get(name)
    return number(_value(one["scores"].get(task["metric"]))) if one else "-"


def _plain(scores: Mapping[str, Sequence[float | None]], metric: str) -> str:
    return number(_value(scores.get(metric)))


def _full(task: _Task, name: str, metric: str = "") -> str:
    """A score with its interval."""
    score = task["candidates"][name]["scores"].get(metric or task["metric"])
    if not score:
        return "-"
    value, low, high = map(_number, score)
    return f"{number(value)} ({_range(low, high)})" if np.isfinite(low) else number(value)


def _range(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}" if np.isfinite(low) else "-"
