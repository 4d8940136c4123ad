"""What a run leaves on disk: metrics.json, predictions.csv, grid.csv, plots."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panecho_embed._version import __version__
from panecho_embed.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

    from probes.evaluate import Evaluation

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What was asked.

    source: the embedding file; fingerprint, backbone, weights: its provenance. command: to repeat the run.
    """

    source: str
    fingerprint: str
    backbone: str
    weights: Mapping[str, Any]
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def write_run(evaluations: Sequence[Evaluation], info: RunInfo, out: str | Path) -> Path:
    """Write all files of a run into the folder `out`, replacing those of an earlier one. Returns the folder."""
    import pandas as pd

    folder = Path(out)
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        text = json.dumps(metrics_document(evaluations, info), indent=2, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        pd.concat([prediction_table(e) for e in evaluations]).to_csv(folder / "predictions.csv", index=False)
        pd.concat([grid_table(e) for e in evaluations]).to_csv(folder / "grid.csv", index=False)
        _write_plots(evaluations, folder / "plots")
    except OSError as error:
        raise StoreError(f"{folder}: the run can't be written ({error}) (-o)") from error
    return folder


def metrics_document(evaluations: Sequence[Evaluation], info: RunInfo) -> dict[str, Any]:
    """The content of metrics.json; numbers that are not finite are null."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        **asdict(info),
        "targets": {e.problem.target: _target_document(e) for e in evaluations},
    }
    cleaned = _without_nan(document)
    assert isinstance(cleaned, dict)
    return cleaned


def prediction_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row a unit that was tested, or that chose settings: ids, split, fold, truth, prediction."""
    import pandas as pd

    problem = evaluation.problem
    frames = []
    held_out = np.isfinite(evaluation.validation.reshape(len(problem), -1)).all(axis=1)
    for split, units, values in (
        ("validation", np.flatnonzero(held_out), evaluation.validation),
        ("test", evaluation.tested, evaluation.prediction),
    ):
        columns: dict[str, Any] = {"target": problem.target}
        columns |= {name: column[units] for name, column in problem.ids.items()}
        columns["split"] = split
        columns["fold"] = evaluation.tested_in[units] if split == "test" else -1
        columns |= _predicted_columns(evaluation, units, values[units])
        frames.append(pd.DataFrame(columns, index=range(len(units))))
    return pd.concat(frames, ignore_index=True)


def grid_table(evaluation: Evaluation) -> pd.DataFrame:
    """Every setting tried in every fold, its held-out loss, and which was chosen."""
    import pandas as pd

    rows = [
        {"target": evaluation.problem.target, "fold": fold.name, **row}
        for fold, probe in zip(evaluation.folds, evaluation.probes, strict=True)
        for row in probe.grid_rows()
    ]
    return pd.DataFrame(rows)


def _predicted_columns(evaluation: Evaluation, units: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    problem = evaluation.problem
    truth = problem.truth[units]
    if problem.task == "regression":
        return {"truth": truth, "prediction": values}
    classes = np.array(problem.classes, dtype=object)
    columns: dict[str, Any] = {"truth": classes[truth.astype(int)]}
    if problem.task == "binary":
        called = (values >= evaluation.threshold[units]).astype(int)
        return columns | {"prediction": classes[called], f"probability:{classes[1]}": values}
    columns["prediction"] = classes[values.argmax(axis=1)]
    return columns | {f"probability:{name}": values[:, i] for i, name in enumerate(classes)}


def _target_document(evaluation: Evaluation) -> dict[str, Any]:
    problem = evaluation.problem
    return {
        "task": problem.task,
        "classes": list(problem.classes),
        "level": problem.level,
        "n": len(problem),
        "n_patients": len(set(problem.patient)),
        "n_missing": problem.n_missing,
        "probe": {"name": type(evaluation.probes[0]).__name__, **evaluation.probes[0].get_params()},
        "folds": [
            {"name": fold.name, "train": len(fold.train), "validation": len(fold.validation), "test": len(fold.test)}
            for fold in evaluation.folds
        ],
        "chosen": [row for row in grid_table(evaluation).to_dict("records") if row["chosen"]],
        "thresholds": sorted(set(evaluation.threshold[evaluation.tested])) if problem.task == "binary" else [],
        "cutoffs": list(evaluation.cutoffs),
        "draws": evaluation.draws,
        "seed": evaluation.seed,
        "metrics": {name: asdict(score) for name, score in evaluation.scores.items()},
        "baseline": {name: asdict(score) for name, score in evaluation.baseline_scores.items()},
        "versus_baseline": {name: asdict(d) for name, d in evaluation.versus_baseline.items()},
    }


def _write_plots(evaluations: Sequence[Evaluation], folder: Path) -> None:
    from probes.plots import figures

    for evaluation in evaluations:
        for name, figure in figures(evaluation).items():
            figure.savefig(folder / f"{file_stem(evaluation.problem.target)}-{name}.png", dpi=150)


def file_stem(name: str) -> str:
    """A target's name with nothing in it that a file name can't hold."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_without_nan(item) for item in value]
    if isinstance(value, np.generic):
        return _without_nan(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
