"""What a run leaves on disk: metrics.json, predictions.csv, grid.csv, the probe, plots, report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed._version import __version__
from panecho_embed.errors import StoreError
from panecho_embed.jsonable import without_nan
from panecho_embed.provenance import Provenance
from panecho_embed.report import Figure, picture_file
from probes.folds import leaking_patients

if TYPE_CHECKING:
    import pandas as pd

    from probes.base import BaseProbe
    from probes.efficiency import LabelEfficiency
    from probes.evaluation import Evaluation
    from probes.problem import Problem
    from probes.run import TargetResult

SCHEMA_VERSION = 1
FILES = ("metrics.json", "predictions.csv", "grid.csv", "probe.npz", "probe.json", "label_efficiency.csv", "draws.json")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What was asked. source: the embedding file. command: to repeat the run. options: as given, and the defaults.

    not_evaluated: target -> why, of those that could not be.
    """

    source: str
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    not_evaluated: Mapping[str, str] = field(default_factory=dict)


def write_run(results: Sequence[TargetResult], info: RunInfo, out: str | Path) -> Path:
    """Write all files of a run into the folder `out`, replacing those of an earlier one. Returns the folder."""
    import pandas as pd

    from probes.plots import drawings
    from probes.report import write_probe_report
    from probes.saved import save_probes

    folder = make_folder(out)
    evaluations = [result.evaluation for result in results]
    try:
        clear_folder(folder, FILES)
        write_json(folder / "metrics.json", metrics_document(results, info))
        pd.concat([prediction_table(e) for e in evaluations]).to_csv(folder / "predictions.csv", index=False)
        pd.concat([grid_table(e) for e in evaluations]).to_csv(folder / "grid.csv", index=False)
        save_probes(results, folder)
        _write_efficiency([result.efficiency for result in results if result.efficiency is not None], folder)
        _write_draws(results, folder)
        drawn = [drawings(result) for result in results]
        _write_plots(results, drawn, folder / "plots")
        write_probe_report(results, drawn, info, folder / "report.html")
    except OSError as error:
        raise StoreError(f"{folder}: the run can't be written ({error}) (-o)") from error
    return folder


def make_folder(out: str | Path) -> Path:
    """The folder of a run, made with its folder for plots. Raises StoreError when that is not possible."""
    folder = Path(out)
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: the folder can't be made ({error}) (-o)") from error
    return folder


def clear_folder(folder: Path, files: Sequence[str]) -> None:
    """Remove what an earlier run left there, which this one might not write again."""
    for path in [*(folder / name for name in (*files, "report.html")), *(folder / "plots").glob("*.svg")]:
        path.unlink(missing_ok=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON in which numbers that are not finite are null."""
    path.write_text(json.dumps(without_nan(document), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def metrics_document(results: Sequence[TargetResult], info: RunInfo) -> dict[str, Any]:
    """The content of metrics.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        **asdict(info),
        "embeddings": provenance_document(results[0].evaluation.problem.provenance),
        "targets": {result.evaluation.problem.target: _target_document(result) for result in results},
    }


def provenance_document(provenance: Provenance) -> dict[str, Any]:
    """How the embeddings were made, with their fingerprint."""
    document: dict[str, Any] = json.loads(provenance.to_json())
    return {"fingerprint": provenance.fingerprint, **document}


def probe_document(probe: BaseProbe) -> dict[str, Any]:
    """Which probe it is, with all its settings."""
    return {"name": type(probe).__name__, **probe.get_params()}


def prediction_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row a unit that was tested, or that chose settings: ids, split, fold, truth, prediction."""
    import pandas as pd

    problem = evaluation.problem
    frames = []
    names = np.array([fold.name for fold in evaluation.folds], dtype=object)
    validated_in = np.full(len(problem), -1, dtype=np.int64)
    for number, fold in enumerate(evaluation.folds):
        validated_in[fold.validation] = number
    held_out = np.isfinite(evaluation.validation.reshape(len(problem), -1)).all(axis=1)
    for split, units, values, fold_of in (
        ("validation", np.flatnonzero(held_out), evaluation.validation, validated_in),
        ("test", evaluation.tested, evaluation.prediction, evaluation.tested_in),
    ):
        columns: dict[str, Any] = {"target": problem.target}
        columns |= {name: column[units] for name, column in problem.ids.items()}
        columns["split"] = split
        columns["fold"] = names[fold_of[units]]
        columns |= _predicted_columns(problem, units, values[units], evaluation.thresholds[fold_of[units]])
        frames.append(pd.DataFrame(columns, index=range(len(units))))
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)


def grid_table(evaluation: Evaluation) -> pd.DataFrame:
    """Every setting tried in every fold, its held-out loss, and which was chosen."""
    import pandas as pd

    rows = [
        {"target": evaluation.problem.target, "fold": fold.name, **row}
        for fold, probe in zip(evaluation.folds, evaluation.probes, strict=True)
        for row in probe.grid_rows()
    ]
    return pd.DataFrame(rows)


def file_stem(name: str) -> str:
    """A target's name with nothing in it that a file name can't hold."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _predicted_columns(
    problem: Problem, units: npt.NDArray[Any], values: npt.NDArray[Any], threshold: npt.NDArray[Any]
) -> dict[str, Any]:
    truth = problem.truth[units]
    if problem.task == "regression":
        return {"truth": truth, "prediction": values}
    classes = np.array(problem.classes, dtype=object)
    columns: dict[str, Any] = {"truth": classes[truth.astype(int)]}
    if problem.task == "binary":
        called = (values >= threshold).astype(int)
        return columns | {"prediction": classes[called], f"probability:{classes[1]}": values}
    columns["prediction"] = classes[values.argmax(axis=1)]
    return columns | {f"probability:{name}": values[:, i] for i, name in enumerate(classes)}


def _target_document(result: TargetResult) -> dict[str, Any]:
    evaluation, problem = result.evaluation, result.evaluation.problem
    return {
        "task": problem.task,
        "classes": list(problem.classes),
        "level": problem.level,
        "pooling": problem.pooling,
        "fusion": problem.fusion,
        "n": len(problem),
        "n_patients": len(set(problem.patient)),
        "n_missing": problem.n_missing,
        "probe": probe_document(evaluation.probes[0]),
        "folds": [
            {"name": fold.name, "train": len(fold.train), "validation": len(fold.validation), "test": len(fold.test)}
            for fold in evaluation.folds
        ],
        "k_shot": result.k_shot,
        "leaking_patients": leaking_patients(evaluation.folds, problem.patient),
        "chosen": [row for row in grid_table(evaluation).to_dict("records") if row["chosen"]],
        "thresholds": sorted(set(evaluation.threshold[evaluation.tested])) if problem.task == "binary" else [],
        "cutoffs": list(evaluation.cutoffs),
        "draws": evaluation.draws,
        "seed": evaluation.seed,
        "metrics": _scores(evaluation.scores),
        "baseline": _scores(evaluation.baseline_scores),
        "versus_baseline": _scores(evaluation.versus_baseline),
        "control": result.control,
        "no_control": result.no_control,
        "subgroups": {
            column: {group: _scores(scores) for group, scores in groups.items()}
            for column, groups in result.subgroups.items()
        },
        "label_efficiency": None if result.efficiency is None else result.efficiency.band().to_dict("records"),
    }


def _scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(score) for name, score in scores.items()}


def _write_efficiency(curves: Sequence[LabelEfficiency], folder: Path) -> None:
    """label_efficiency.csv, one row a draw."""
    import pandas as pd

    if not curves:
        return
    rows = [
        {"target": curve.target, curve.unit: size, "repeat": repeat, curve.metric: value}
        for curve in curves
        for size, values in zip(curve.sizes, curve.values, strict=True)
        for repeat, value in enumerate(values)
    ]
    pd.DataFrame(rows).to_csv(folder / "label_efficiency.csv", index=False)


def _write_draws(results: Sequence[TargetResult], folder: Path) -> None:
    """draws.json: which patients were trained on where it was not all of them, so that a run can be repeated."""
    drawn = {
        result.evaluation.problem.target: {
            "k_shot": [asdict(draw) for draw in result.draws],
            "label_efficiency": [asdict(draw) for draw in (result.efficiency.draws if result.efficiency else ())],
        }
        for result in results
        if result.draws or result.efficiency
    }
    if drawn:
        write_json(folder / "draws.json", drawn)


def _write_plots(results: Sequence[TargetResult], drawn: Sequence[Mapping[str, Figure]], folder: Path) -> None:
    for result, figures in zip(results, drawn, strict=True):
        stem = file_stem(result.evaluation.problem.target)
        for name, figure in figures.items():
            (folder / f"{stem}-{name}.svg").write_text(picture_file(figure), encoding="utf-8")
