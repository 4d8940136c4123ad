"""What a probe run leaves on disk: metrics, predictions, the grid of settings, the probe, plots, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from panecho_embed.core.outputs import refuse_to_replace_run, written_run
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.wording import file_stem
from panecho_embed.evaluation.page import picture_file
from panecho_embed.evaluation.predictions import FILE, write_predictions
from panecho_embed.evaluation.report import write_run_report
from panecho_embed.evaluation.scores import FILE as METRICS_FILE
from panecho_embed.evaluation.scores import score_documents, write_json, write_metrics
from panecho_embed.evaluation.splits import leaking_patients
from probes.account import account_of, efficiency_figure, grid_rows
from probes.base import BaseProbe
from probes.run import Evaluation, TargetResult
from probes.saved import save_probes


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What was asked.

    source: the embedding file. made_by: name of the command. command: to repeat the run. options: as given, and the
    defaults. not_evaluated: target -> why, of those that could not be.
    """

    source: str
    made_by: str = "probe"
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    not_evaluated: Mapping[str, str] = field(default_factory=dict)


def write_run(results: Sequence[TargetResult], info: RunInfo, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write all files of a run into the folder `out`, or none of them. Returns the folder.

    A probe that can't be saved is left out, with the reason in metrics.json. Raises StoreError, also if the folder
    holds a finished run (unless `overwrite`).
    """
    import pandas as pd

    refuse_to_replace_run(Path(out), overwrite, (METRICS_FILE,))
    account = account_of(results, source=info.source, command=info.command, not_evaluated=dict(info.not_evaluated))
    grid = [row for result in results for row in grid_rows(result.evaluation)]
    documents = {result.evaluation.problem.target.name: _document(result) for result in results}
    about = {
        "command": info.command,
        "source": info.source,
        "options": dict(info.options),
        "not_evaluated": dict(info.not_evaluated),
        "embeddings": _provenance_document(results[0].evaluation.problem.provenance),
    }
    scored = [result.evaluation.scored for result in results]
    with written_run(out) as folder:
        write_predictions([result.evaluation.predictions for result in results], folder / FILE)
        if grid:
            pd.DataFrame(grid).to_csv(folder / "grid.csv", index=False)
        save_probes(results, folder)
        _write_efficiency(results, folder)
        _write_draws(results, folder)
        write_run_report(folder, scored, account)
        write_metrics(folder, info.made_by, scored, about=about, of_target=documents)
    return Path(out)


def _provenance_document(provenance: Provenance) -> dict[str, Any]:
    """How the embeddings were made, with their fingerprint."""
    document: dict[str, Any] = json.loads(provenance.to_json())
    return {"fingerprint": provenance.fingerprint, **document}


def _probe_document(probe: BaseProbe) -> dict[str, Any]:
    """Which probe it is, with all its settings as text where JSON has no form for them."""
    settings = {
        name: value if isinstance(value, str | int | float | bool | list | tuple | dict | None) else repr(value)
        for name, value in probe.get_params(deep=False).items()
    }
    return {"class": type(probe).__name__, "name": probe.name, **settings}


def _document(result: TargetResult) -> dict[str, Any]:
    evaluation, problem = result.evaluation, result.evaluation.problem
    return {
        "pooling": problem.pooling,
        "fusion": problem.fusion,
        "n_labelled": len(problem),
        "n_missing": problem.n_missing,
        "note": problem.note,
        "probe": _probe_document(evaluation.probes[0]),
        "not_saved": result.probe.saveable(),
        "folds": [
            {"name": fold.name, "train": len(fold.train), "validation": len(fold.validation), "test": len(fold.test)}
            for fold in evaluation.folds
        ],
        "k_shot": result.settings.k_shot,
        "chance": asdict(evaluation.chance),
        "threshold_rule": str(result.settings.threshold),
        "encoder_patients": _encoder_patients(evaluation),
        "leaking_patients": leaking_patients(evaluation.folds, problem.patient),
        "chosen": [row for row in grid_rows(evaluation) if row["chosen"]],
        "recording_only": {"facts": list(problem.recording), "metrics": result.recording},
        "control": result.control,
        "no_control": result.no_control,
        "subgroups": {
            column: {group: score_documents(scores) for group, scores in groups.items()}
            for column, groups in result.subgroups.items()
        },
        "label_efficiency": None if result.efficiency is None else result.efficiency.band().to_dict("records"),
    }


def _encoder_patients(evaluation: Evaluation) -> dict[str, Any]:
    """How many tested patients trained the encoder of the embeddings, as far as its weights record it."""
    patients = evaluation.problem.provenance.patients
    if not patients.known:
        return {"recorded": False}
    overlap = patients.overlap(evaluation.scored.predictions.patient, evaluation.problem.patient)
    return {"recorded": True, **asdict(overlap), "started_from_unrecorded": patients.before or None}


def _write_efficiency(results: Sequence[TargetResult], folder: Path) -> None:
    """label_efficiency.csv, one row a draw, and the figure of each target."""
    import pandas as pd

    curves = [result.efficiency for result in results if result.efficiency is not None]
    if not curves:
        return
    rows = [
        {"target": curve.target, curve.unit: size, "repeat": repeat, curve.metric: value}
        for curve in curves
        for size, values in zip(curve.sizes, curve.values, strict=True)
        for repeat, value in enumerate(values)
    ]
    pd.DataFrame(rows).to_csv(folder / "label_efficiency.csv", index=False)
    (folder / "plots").mkdir(exist_ok=True)
    for curve in curves:
        path = folder / "plots" / f"{file_stem(curve.target)}-label-efficiency.svg"
        path.write_text(picture_file(efficiency_figure(curve)), encoding="utf-8")


def _write_draws(results: Sequence[TargetResult], folder: Path) -> None:
    """draws.json: which patients were trained on where it was not all of them, so that a run can be repeated."""
    drawn = {
        result.evaluation.problem.target.name: {
            "k_shot": [asdict(draw) for draw in result.evaluation.drawn],
            "label_efficiency": [asdict(draw) for draw in (result.efficiency.draws if result.efficiency else ())],
        }
        for result in results
        if result.evaluation.drawn or result.efficiency
    }
    if drawn:
        write_json(folder / "draws.json", drawn)
