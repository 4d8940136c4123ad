"""A probe on disk, without pickle: its numbers in an npz file, what they mean in a JSON file."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import EarlierReleaseError, SettingsMismatchError, StoreError
from panecho_embed.provenance import Level, Provenance
from panecho_embed.records import EmbeddingTable, PoolHow
from probes.base import BaseProbe
from probes.evaluation import average_rows, predict_rows
from probes.problem import Fusion, id_columns, load_table, shares, unit_of_rows

if TYPE_CHECKING:
    import pandas as pd

    from probes.run import TargetResult

FORMAT = "panecho-embed probe"
SCHEMA_VERSION = 1
_HOME = {
    "LinearProbe": "probes.linear",
    "KNNProbe": "probes.knn",
    "FaissKNNProbe": "probes.faiss_knn",
    "AttentiveProbe": "probes.attentive",
}
_MAY_DIFFER = ("dtype",)  # how the numbers are stored


@dataclass(frozen=True, slots=True, eq=False)
class SavedProbe:
    """A probe of one target, and what it needs to know of its input.

    level, pooling, fusion: how rows become units. classes: () for a regression. threshold: of a binary decision.
    """

    target: str
    probe: BaseProbe
    classes: tuple[str, ...]
    threshold: float
    level: Level
    pooling: PoolHow
    fusion: Fusion
    provenance: Provenance


def save_probes(results: Sequence[TargetResult], out: Path) -> None:
    """Write probe.npz and probe.json into the folder `out`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    targets: dict[str, dict[str, Any]] = {}
    for result in results:
        problem = result.evaluation.problem
        target = problem.target
        arrays |= {f"{target}/{name}": array for name, array in result.probe.fitted_arrays().items()}
        targets[target] = {
            "probe": type(result.probe).__name__,
            "parameters": result.probe.get_params(),
            "classes": list(problem.classes),
            "threshold": result.threshold,
            "level": problem.level,
            "pooling": problem.pooling,
            "fusion": problem.fusion,
            "provenance": json.loads(problem.provenance.to_json()),
        }
    document = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "targets": targets}
    with (out / "probe.npz").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its allow_pickle is newer than the NumPy that we take
    (out / "probe.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load_probes(run: str | Path) -> dict[str, SavedProbe]:
    """The probes of a run, by target. Raises StoreError when the folder holds none, or of another schema.

    EarlierReleaseError: trained on embeddings of another order of planes.
    """
    folder = Path(run)
    try:
        document = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
        with np.load(folder / "probe.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder}: no readable probe.json and probe.npz of a probe run ({error})") from error
    if document.get("format") != FORMAT or document.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(f"{folder}/probe.json: not a probe of schema version {SCHEMA_VERSION}")
    try:
        return {name: _restored(name, target, arrays) for name, target in document["targets"].items()}
    except EarlierReleaseError as error:
        raise EarlierReleaseError(f"{folder}/probe.json: trained on embeddings {error}") from error


def apply_probes(run: str | Path, embeddings: str | Path) -> pd.DataFrame:
    """Predictions of a run's probes for every video or study of another embedding file, one row each.

    Raises SettingsMismatchError naming the settings in which the files' embeddings differ.
    """
    import pandas as pd

    frames = []
    for saved in load_probes(run).values():
        rows, units = load_table(embeddings, level=saved.level, pooling=saved.pooling, fusion=saved.fusion)
        _check_same_settings(saved.provenance, rows.provenance, embeddings)
        frames.append(pd.DataFrame(_predictions(saved, rows, units)))
    return pd.concat(frames, ignore_index=True)


def _restored(name: str, target: dict[str, Any], arrays: Mapping[str, Any]) -> SavedProbe:
    kind = getattr(importlib.import_module(_HOME[target["probe"]]), target["probe"])
    own = {key.rpartition("/")[2]: array for key, array in arrays.items() if key.rpartition("/")[0] == name}
    return SavedProbe(
        target=name,
        probe=kind(**target["parameters"]).restore(own),
        classes=tuple(target["classes"]),
        threshold=target["threshold"],
        level=target["level"],
        pooling=target["pooling"],
        fusion=target["fusion"],
        provenance=Provenance.from_json(json.dumps(target["provenance"])),
    )


def _check_same_settings(trained: Provenance, given: Provenance, path: str | Path) -> None:
    differing = [text for text in given.differences(trained) if text.partition(":")[0] not in _MAY_DIFFER]
    if differing:
        raise SettingsMismatchError(
            f"{path}: not made as the embeddings that the probe was trained on: {'; '.join(differing)}"
        )


def _predictions(saved: SavedProbe, rows: EmbeddingTable, units: EmbeddingTable) -> dict[str, Any]:
    unit = unit_of_rows(rows, units)
    predicted = average_rows(predict_rows(saved.probe, rows.values, unit), unit, shares(rows, unit), len(units))
    columns = {"target": saved.target, **id_columns(units)}
    if not saved.classes:
        return columns | {"prediction": predicted}
    classes = np.array(saved.classes, dtype=object)
    if len(classes) == 2:
        called = (predicted[:, 1] >= saved.threshold).astype(int)
        return columns | {"prediction": classes[called], f"probability:{classes[1]}": predicted[:, 1]}
    columns["prediction"] = classes[predicted.argmax(axis=1)]
    return columns | {f"probability:{name}": predicted[:, i] for i, name in enumerate(classes)}
