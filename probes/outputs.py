"""The folder of a probe run: metrics, predictions, settings, plots and report, and its probes, written and read back.

Probes are saved without pickle: their numbers in an npz file, what they mean in a JSON file.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.digests import read_checked
from panecho_embed.core.errors import EarlierReleaseError, SettingsMismatchError, StoreError
from panecho_embed.core.outputs import refuse_to_replace_run, settled, write_json, written_run
from panecho_embed.core.provenance import Level, Provenance
from panecho_embed.core.records import EmbeddingTable, PoolHow
from panecho_embed.core.wording import file_stem
from panecho_embed.evaluation.page import picture_file
from panecho_embed.evaluation.predictions import FILE, write_predictions
from panecho_embed.evaluation.report import write_run_report
from panecho_embed.evaluation.scores import score_documents, write_metrics
from panecho_embed.evaluation.splits import leaking_patients
from panecho_embed.evaluation.targets import Target
from probes.account import account_of
from probes.base import BaseProbe
from probes.plans import unit_predictions
from probes.problem import Fusion, data_digest, id_columns, load_table, shares, unit_of_rows
from probes.registry import probe_class, probe_id
from probes.run import Evaluation, TargetResult

if TYPE_CHECKING:
    import pandas as pd


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

    A probe that can't be saved is skipped, with the reason in metrics.json. Raises StoreError, also if the folder
    holds a finished run (unless `overwrite`).
    """
    import pandas as pd

    refuse_to_replace_run(Path(out), overwrite, "probe run")
    digest = data_digest([result.problem for result in results])
    refused = dict(info.not_evaluated)
    account = account_of(results, source=info.source, command=info.command, not_evaluated=refused, digest=digest)
    grid = [row for result in results for row in result.evaluation.grid_rows()]
    documents = {result.problem.target.name: _document(result) for result in results}
    provenance = results[0].problem.provenance
    about = {
        "command": info.command,
        "source": info.source,
        "options": dict(info.options),
        "not_evaluated": dict(info.not_evaluated),
        "settings_id": provenance.settings_id,
        "data_digest": digest,
        "embeddings": {"settings_id": provenance.settings_id, **json.loads(provenance.to_json())},
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


def _probe_document(probe: BaseProbe) -> dict[str, Any]:
    """Which probe it is, with all its settings as text where JSON has no form for them."""
    settings = {
        name: value if isinstance(value, str | int | float | bool | list | tuple | dict | None) else repr(value)
        for name, value in probe.get_params(deep=False).items()
    }
    return {"class": type(probe).__name__, "name": probe.name, **settings}


def _document(result: TargetResult) -> dict[str, Any]:
    evaluation, problem = result.evaluation, result.problem
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
        "chosen": [row for row in evaluation.grid_rows() if row["chosen"]],
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
        path.write_text(picture_file(curve.figure()), encoding="utf-8")


def _write_draws(results: Sequence[TargetResult], folder: Path) -> None:
    """draws.json: which patients were trained on where it was not all of them, so that a run can be repeated."""
    drawn = {
        result.problem.target.name: {
            "k_shot": [asdict(draw) for draw in result.evaluation.drawn],
            "label_efficiency": [asdict(draw) for draw in (result.efficiency.draws if result.efficiency else ())],
        }
        for result in results
        if result.evaluation.drawn or result.efficiency
    }
    if drawn:
        write_json(folder / "draws.json", drawn)


_FORMAT = "panecho-embed probe"
_SCHEMA_VERSION = 2
_MAY_DIFFER = ("dtype",)  # how the numbers are stored


@dataclass(frozen=True, slots=True, eq=False)
class SavedProbe:
    """A probe of one target, and what it needs to know of its input.

    level, pooling, fusion: how rows become units. threshold: of a yes-or-no decision, NaN where none was chosen.
    """

    target: Target
    probe: BaseProbe
    threshold: float
    level: Level
    pooling: PoolHow
    fusion: Fusion
    provenance: Provenance


def save_probes(results: Sequence[TargetResult], out: Path) -> None:
    """Write probe.npz and probe.json of the probes that can be saved into the folder `out`; nothing if none can."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    targets: dict[str, dict[str, Any]] = {}
    for result in results:
        if result.probe.saveable():
            continue
        problem = result.problem
        name = problem.target.name
        arrays |= {f"{name}/{key}": array for key, array in result.probe.fitted_arrays().items()}
        targets[name] = {
            "probe": probe_id(result.probe) or type(result.probe).__name__,
            "parameters": result.probe.saved_parameters(),
            "target": asdict(problem.target),
            "threshold": result.threshold,
            "threshold_rule": str(result.settings.threshold),
            "level": problem.level,
            "pooling": problem.pooling,
            "fusion": problem.fusion,
            "provenance": json.loads(problem.provenance.to_json()),
        }
    if not targets:
        return
    with (out / "probe.npz").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its allow_pickle is newer than the NumPy that we take
    write_json(out / "probe.json", {"format": _FORMAT, "schema_version": _SCHEMA_VERSION, "targets": targets})


def load_probes(run: str | Path, classes: Sequence[type[BaseProbe]] = ()) -> dict[str, SavedProbe]:
    """The probes of a run, by target.

    classes: custom probe classes that are not registered as entry points. Raises StoreError when the folder holds
    none, or of another schema, or of a class that is not known; EarlierReleaseError if they were trained on embeddings
    of another order of planes.
    """
    folder = Path(run)
    try:
        document = json.loads(read_checked(settled(folder) / "probe.json", needed=True))
        with np.load(io.BytesIO(read_checked(folder / "probe.npz", needed=True)), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{folder}: no readable probe.json and probe.npz of a probe run ({error})") from error
    if document.get("format") != _FORMAT or document.get("schema_version") != _SCHEMA_VERSION:
        raise StoreError(f"{folder}/probe.json: not a probe of schema version {_SCHEMA_VERSION}; run the command again")
    try:
        return {name: _restored(name, target, arrays, classes) for name, target in document["targets"].items()}
    except EarlierReleaseError as error:
        raise EarlierReleaseError(f"{folder}/probe.json: trained on embeddings {error}") from error


def apply_probes(run: str | Path, embeddings: str | Path, classes: Sequence[type[BaseProbe]] = ()) -> pd.DataFrame:
    """Predictions of a run's probes for every video or study of another embedding file, one row each.

    classes: as in `load_probes`. Raises SettingsMismatchError naming the settings in which the files differ.
    """
    import pandas as pd

    frames = []
    for saved in load_probes(run, classes).values():
        rows, units = load_table(embeddings, level=saved.level, pooling=saved.pooling, fusion=saved.fusion)
        _check_same_settings(saved.provenance, rows.provenance, embeddings)
        frames.append(pd.DataFrame(_predictions(saved, rows, units)))
    return pd.concat(frames, ignore_index=True)


def _restored(
    name: str, saved: dict[str, Any], arrays: Mapping[str, Any], classes: Sequence[type[BaseProbe]]
) -> SavedProbe:
    given = {kind.__name__: kind for kind in classes}
    kind = given.get(saved["probe"]) or probe_class(saved["probe"])
    own = {key.rpartition("/")[2]: array for key, array in arrays.items() if key.rpartition("/")[0] == name}
    described = saved["target"] | {"classes": tuple(saved["target"]["classes"])}
    return SavedProbe(
        target=Target(**described),
        probe=kind(**saved["parameters"]).restore(own),
        threshold=math.nan if saved["threshold"] is None else saved["threshold"],
        level=saved["level"],
        pooling=saved["pooling"],
        fusion=saved["fusion"],
        provenance=Provenance.from_json(json.dumps(saved["provenance"])),
    )


def _check_same_settings(trained: Provenance, given: Provenance, path: str | Path) -> None:
    differing = [text for text in given.differences(trained) if text.partition(":")[0] not in _MAY_DIFFER]
    if differing:
        raise SettingsMismatchError(
            f"{path}: not made as the embeddings that the probe was trained on: {'; '.join(differing)}"
        )


def _predictions(saved: SavedProbe, rows: EmbeddingTable, units: EmbeddingTable) -> dict[str, Any]:
    target, unit = saved.target, unit_of_rows(rows, units)
    predicted = unit_predictions(target, saved.probe, rows.values, unit, shares(rows, unit), len(units))
    columns: dict[str, Any] = {"target": target.name, **id_columns(units)}
    far = np.zeros(len(units), dtype=np.bool_)
    np.logical_or.at(far, unit, saved.probe.far_outside(rows.values))
    columns["far_outside"] = far
    if not target.classes:
        return columns | {"prediction": predicted}
    called = target.names_of(target.called(predicted, saved.threshold))
    if target.kind == "binary":
        called[np.full(len(units), math.isnan(saved.threshold))] = ""
        columns |= {"prediction": called, "threshold": saved.threshold}
        return columns | {f"probability:{target.positive}": predicted}
    by_class = {f"probability:{name}": predicted[:, i] for i, name in enumerate(target.classes)}
    return columns | {"prediction": called} | by_class
