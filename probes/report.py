"""The HTML report of a run: what was asked, the data, the results, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.evaluation.metrics import HIGHER_IS_BETTER, base_name
from panecho_embed.evaluation.plots import intervals
from panecho_embed.evaluation.wording import TOO_NARROW, display_name
from panecho_embed.provenance import Provenance
from panecho_embed.report import Block, Code, Facts, Figure, Figures, Section, Table, Text, figure, write_report
from panecho_embed.wording import interval, number, p_value, plural
from probes.efficiency import LabelEfficiency
from probes.folds import leaking_patients
from probes.outputs import RunInfo, grid_table
from probes.plots import efficiency_caption
from probes.report_summary import asked, by_task, summary
from probes.run import TargetResult
from probes.subgroups import subgroup_units
from probes.wording import PROBE_NAMES, few_tested_in, methods_paragraph

SUBGROUP_METRICS = {
    "regression": ("mae", "r2", "bias"),
    "binary": ("auroc", "average_precision", "balanced_accuracy"),
    "multiclass": ("auroc", "balanced_accuracy", "f1"),
}


def write_probe_report(
    results: Sequence[TargetResult], drawn: Sequence[Mapping[str, Figure]], info: RunInfo, path: Path
) -> Path:
    """Write the report of a run. drawn: the figures of each result."""
    problem = results[0].evaluation.problem
    targets = ", ".join(result.evaluation.problem.target for result in results[:4])
    more = f" and {len(results) - 4} more" if len(results) > 4 else ""
    title = f"{PROBE_NAMES[type(results[0].probe).__name__]}: {targets}{more}"
    subtitle = f"{problem.provenance.backbone} embeddings, {problem.level} level, from {Path(info.source).name}"
    sections = [asked(results, info), summary(results, info, untrained_warning(problem.provenance))]
    figures_of = {r.evaluation.problem.target: list(f.values()) for r, f in zip(results, drawn, strict=True)}
    for result in (result for alike in by_task(results) for result in alike):
        sections.append(_results(result, figures_of[result.evaluation.problem.target], several=len(results) > 1))
    sections += [
        Section("Data and splits", _data(results)),
        Section("Methods", [Text(methods_paragraph(alike)) for alike in by_task(results)]),
        Section("Embeddings", [Facts(provenance_facts(problem.provenance, info.source))]),
        Section("Repeat this run", [Code(info.command)] if info.command else [Text("Run from Python.", "note")]),
    ]
    return write_report(path, title, subtitle, sections)


def provenance_facts(provenance: Provenance, source: str) -> dict[str, str]:
    """How the embeddings were made, for people."""
    weights, clips, pre = provenance.weights, provenance.clips, provenance.preprocess
    facts = {
        "File": source,
        "Backbone": provenance.backbone,
        "Weights": weights.source if weights.pretrained else f"{weights.source}: untrained",
        "Weights SHA-256": weights.sha256,
        "Licence of the weights": weights.licence,
        "Pixels": f"resized to {pre.resize}, centre crop {pre.crop}, {pre.interpolation}, {pre.channel_order.upper()}",
    }
    if clips is not None:
        step = f"{clips.target_fps:g} frames/s" if clips.target_fps is not None else f"step {clips.frame_step}"
        count = f"{clips.num_clips} a video" if clips.num_clips is not None else f"one every {clips.stride} frames"
        facts["Clips"] = f"{clips.frames_per_clip} frames, {step}, {count}"
    return facts | {
        "Level, pooling": f"{provenance.level}, {provenance.pooling or 'none'}",
        "Precision": provenance.precision,
        "Fingerprint": provenance.fingerprint,
        "Versions": ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items())) or "-",
    }


def untrained_warning(provenance: Provenance) -> list[Block]:
    """A warning when the weights were random."""
    if provenance.weights.pretrained:
        return []
    text = (
        f"These embeddings come from random, untrained weights ({provenance.weights.source}). They test the pipeline."
    )
    return [Text(text, "warning")]


def _results(result: TargetResult, drawn: Sequence[Figure], *, several: bool) -> Section:
    evaluation = result.evaluation
    blocks: list[Block] = [_metric_table(result)]
    if result.no_control:
        blocks.append(Text(result.no_control, "warning"))
    if result.efficiency is not None:
        blocks.append(_efficiency_table(result.efficiency))
    blocks.append(Figures(drawn))
    for column, groups in result.subgroups.items():
        blocks += _subgroup_blocks(result, column, groups)
    blocks.append(_grid(result))
    return Section(evaluation.problem.target if several else f"{evaluation.problem.target} in detail", blocks)


def _efficiency_table(curve: LabelEfficiency) -> Table:
    rows = [
        [f"{row[curve.unit]:g}", f"{row['n_patients']:.0f}", *(number(row[c]) for c in ("mean", "low", "high"))]
        for row in curve.band().to_dict("records")
    ]
    columns = [curve.unit, "Patients", display_name(curve.metric), "low", "high"]
    return Table(columns, rows, efficiency_caption(curve))


def _metric_table(result: TargetResult) -> Table:
    evaluation, control = result.evaluation, result.control
    columns = ["Metric", "Value", "95 % interval", "Baseline", "Difference", "p"]
    rows = []
    for name, score in evaluation.scores.items():
        gain = evaluation.versus_baseline[name]
        row = [display_name(name), number(score.value), interval(score), number(evaluation.baseline_scores[name].value)]
        # More or less of a bias or a slope is not better or worse.
        compared = np.isfinite(gain.value) and base_name(name) in HIGHER_IS_BETTER
        row += [f"{number(gain.value)} ({interval(gain)})", p_value(gain.p_value)] if compared else ["-", "-"]
        if control is not None:
            values = control[name]
            row.append(f"{number(values.mean())} ({number(values.min())} to {number(values.max())})")
        rows.append(row)
    if control is not None:
        columns.append("Shuffled labels")
    score = next(iter(evaluation.scores.values()))
    tested = f"{score.n} {plural(evaluation.problem.level, score.n)} of {score.n_patients} patients tested."
    if evaluation.problem.task == "regression":
        tested += f" Errors, bias and limits are in the unit of {evaluation.problem.target}."
    return Table(columns, rows, f"{tested} Difference: probe minus baseline, paired; p two-sided, from the bootstrap.")


def _subgroup_blocks(result: TargetResult, column: str, groups: dict[str, Any]) -> list[Block]:
    task, target = result.evaluation.problem.task, result.evaluation.problem.target
    metrics = SUBGROUP_METRICS[task]
    rows = []
    for name, scores in groups.items():
        first = scores[metrics[0]]
        values = [f"{number(scores[m].value)} ({interval(scores[m])})" for m in metrics]
        rows.append([name, str(first.n), str(first.n_patients), *values])
    primary = metrics[0]
    lines = [(name, s[primary].value, s[primary].low, s[primary].high) for name, s in groups.items()]
    whole = result.evaluation.scores[primary].value
    drawing = intervals(lines, display_name(primary), reference=whole)
    units = subgroup_units(result.evaluation, column)
    few = {name: few_tested_in(result.evaluation.problem, units[name]) for name in groups}
    named = "; ".join(f"{name}: {count}" for name, count in few.items() if count)
    caption = f"Subgroups by {column}." + (f" Few tested ({named}): {TOO_NARROW}." if named else "")
    table = Table([column, "n", "Patients", *map(display_name, metrics)], rows, caption)
    return [table, figure(drawing, f"{target}: {display_name(primary)} by {column}; dashed: all.")]


def _grid(result: TargetResult) -> Table:
    """One row a setting, one column a fold."""
    frame = grid_table(result.evaluation)
    setting = next(name for name in frame.columns if name not in ("target", "fold", "loss", "chosen"))
    shown = {
        (row["fold"], row[setting]): f"{row['loss']:.5g}{' *' if row['chosen'] else ''}"
        for row in frame.to_dict("records")
        if np.isfinite(row["loss"])
    }
    folds = list(dict.fromkeys(frame["fold"]))
    rows = [[f"{value:g}", *(shown.get((fold, value), "-") for fold in folds)] for value in sorted(set(frame[setting]))]
    return Table([setting, *folds], rows, "The whole grid of settings: held-out loss; * chosen", folded=True)


def _data(results: Sequence[TargetResult]) -> list[Block]:
    rows = []
    for result in results:
        problem = result.evaluation.problem
        for fold in result.evaluation.folds:
            sizes = [
                f"{len(units)} ({len(set(problem.patient[units]))})"
                for units in (fold.train, fold.validation, fold.test)
            ]
            rows.append([problem.target, fold.name, *sizes, str(problem.n_missing)])
    level = plural(results[0].evaluation.problem.level, 2)
    columns = ["Target", "Fold", "Train", "Validation", "Test", "Without label"]
    leaking = any(leaking_patients(r.evaluation.folds, r.evaluation.problem.patient) for r in results)
    crossing = "Patients are on two sides of a fold." if leaking else "No patient is on two sides of a fold."
    return [Table(columns, rows, f"Number of {level} (and patients). {crossing}")]
