"""A probe on disk, without pickle: its numbers in an npz file, what they mean in a JSON file."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.digests import read_checked
from panecho_embed.core.errors import EarlierReleaseError, SettingsMismatchError, StoreError
from panecho_embed.core.outputs import settled
from panecho_embed.core.provenance import Level, Provenance
from panecho_embed.core.records import EmbeddingTable, PoolHow
from panecho_embed.evaluation.scores import write_json
from panecho_embed.evaluation.targets import Target
from probes.base import BaseProbe
from probes.fitting import all_classes, average_rows, predict_rows
from probes.problem import Fusion, id_columns, load_table, shares, unit_of_rows
from probes.registry import probe_class, probe_id

if TYPE_CHECKING:
    import pandas as pd

    from probes.run import TargetResult

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
        problem = result.evaluation.problem
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
    raw = predict_rows(saved.probe, rows.values, unit)
    predicted = average_rows(
        all_classes(target.kind, len(target.classes), saved.probe, raw), unit, shares(rows, unit), len(units)
    )
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
