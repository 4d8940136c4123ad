"""Published figures of frozen probes on EchoNet-Dynamic, measured again with a lab's own data and weights.

The figures are ejection fraction by ridge regression on the embedding of one clip per video, for PanEcho and EchoPrime
and several samplings of 16 frames, with 95 % intervals. Both models were fed with EchoPrime's geometry on RGB frames in
fp16, which is not PanEcho's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from panecho_embed._version import __version__
from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.errors import ArgumentError, StoreError, WeightsNotFoundError
from panecho_embed.core.outputs import make_output_folder, refuse_to_replace, write_json
from panecho_embed.core.provenance import Precision, package_versions
from panecho_embed.core.records import ROW_COLUMNS, EmbeddingTable, Score
from panecho_embed.core.wording import number
from panecho_embed.evaluation.predictions import Predictions
from panecho_embed.evaluation.scores import score
from panecho_embed.evaluation.targets import Target
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbone import resolve_device
from panecho_embed.models.backbones import load_backbone
from panecho_embed.store import EmbeddingFile

if TYPE_CHECKING:
    import pandas as pd

_DATASET = "echonet-dynamic"
FILE = "reproduction.json"
SIZES = {"train": 7_465, "val": 1_288, "test": 1_277}
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""Strengths of the ridge regression; the publication states their range, 0.1 to 1e4."""

_SCHEMA_VERSION = 1
_MISSING_SHARE = 0.01  # of the published videos, that a lab's copy may lack
_TARGET = Target("EF", "regression", unit="%")
_PHANTOM_MARK = ".phantom.json"

_CLIP: dict[str, Any] = {"frames_per_clip": 16, "num_clips": 1, "start": 0, "short": "repeat"}
SAMPLINGS: Mapping[str, Mapping[str, Any]] = {
    "step-2": _CLIP | {"frame_step": 2},
    "consecutive": _CLIP | {"frame_step": 1},
    "uniform": _CLIP | {"uniform": True, "start": None},
}
"""Clip plans by name. A short clip repeats its last frame, for EchoPrime too, whose own code pads with zeros."""

_ECHOPRIME_GEOMETRY = {"geometry": "square", "cut": 0.1, "resize": 224, "interpolation": "bicubic"}
FEEDING: Mapping[str, Mapping[str, Any]] = {
    "panecho": _ECHOPRIME_GEOMETRY | {"channel_order": "rgb"},
    "echoprime": {"channel_order": "rgb"},
}
"""What differs from each model's own feeding in the published runs."""

_NOTES = (
    "Not stated by the publication, and chosen here: the clip begins at the first frame; a uniform clip takes the "
    "middle of each of 16 equal parts of the video; the strength of the ridge regression has the least mean absolute "
    "error on the validation videos; the fit is on the training videos alone.",
)


@dataclass(frozen=True, slots=True)
class Published:
    """A published figure: mean absolute error in % EF with its 95 % interval, and R squared."""

    mae: float
    low: float
    high: float
    r2: float


PUBLISHED: Mapping[tuple[str, str], Published] = {
    ("panecho", "step-2"): Published(4.75, 4.53, 5.02, 0.727),
    ("panecho", "consecutive"): Published(5.54, 5.28, 5.81, 0.635),
    ("panecho", "uniform"): Published(5.32, 5.09, 5.59, 0.659),
    ("echoprime", "step-2"): Published(4.88, 4.65, 5.12, 0.711),
    ("echoprime", "consecutive"): Published(5.95, 5.66, 6.24, 0.568),
    ("echoprime", "uniform"): Published(4.96, 4.73, 5.20, 0.703),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One model and sampling.

    Parameters
    ----------
    model, sampling : str
    mae, r2 : Score
        On the test videos, with intervals over patients.
    alpha : float
        Chosen strength.
    published : Published
    verdict : str
        Whether it agrees, or by how much it is off; or why neither can be said.
    provenance : dict
        How the embeddings were made: weights, feeding, clips, precision, engine, versions.
    sizes : dict of str to int
        Videos with an embedding and a label, by split.
    incomparable : str
        Why these videos can't reproduce the figure; "" where they can.
    """

    model: str
    sampling: str
    mae: Score
    r2: Score
    alpha: float
    published: Published
    verdict: str
    provenance: dict[str, Any]
    sizes: Mapping[str, int]
    incomparable: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What `reproduce` found.

    Parameters
    ----------
    rows : tuple of Row
    not_run : dict of str to str
        Model -> why it was not run.
    notes : tuple of str
    """

    rows: tuple[Row, ...]
    not_run: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = _NOTES

    def table(self) -> pd.DataFrame:
        """One row per model and sampling: measured and published figures, with a verdict."""
        import pandas as pd

        columns = ["model", "sampling", "mae", "low", "high", "published_mae", "r2", "published_r2", "verdict"]
        rows = [
            [r.model, r.sampling, r.mae.value, r.mae.low, r.mae.high, r.published.mae, r.r2.value, r.published.r2]
            for r in self.rows
        ]
        return pd.DataFrame([[*row, r.verdict] for row, r in zip(rows, self.rows, strict=True)], columns=columns)

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False))


def reproduce(
    data: str | Path,
    out: str | Path,
    *,
    models: Sequence[str] = ("panecho", "echoprime"),
    weights: Mapping[str, str | Path] | None = None,
    precision: Precision | None = None,
    device: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool | None = False,
    announce: Callable[[str], object] = lambda message: None,
) -> Reproduction:
    """Extract, probe and compare with the published figures; resumable: called again, it continues.

    Parameters
    ----------
    data : str or Path
        EchoNet-Dynamic as downloaded: FileList.csv and Videos.
    out : str or Path
        Folder for the embedding files and reproduction.json, which holds no ids and no paths.
    models : sequence of {"panecho", "echoprime"}
    weights : mapping, optional
        Weights files by model; others are found or fetched.
    precision : {"fp32", "bf16", "fp16"}, optional
        Arithmetic of the encoders; fp16 on a GPU, as published, and fp32 on a CPU by default.
    device, workers, progress, announce
        As for `extract`.
    overwrite : bool
        Start over. Not needed where reproduction.json lacks a model of `models` and holds no other.

    Returns
    -------
    Reproduction

    Raises
    ------
    ArgumentError
        For an unknown model, weights of a model that is not run, and data without labels or without one of the splits.
    WeightsNotFoundError
        If no model's weights are available, those of a model of the earlier result are not, or a file of `weights` is
        not there.
    """
    given = dict(weights or {})
    if unknown := [name for name in (*models, *given) if name not in FEEDING]:
        raise ArgumentError(
            f"no published figure of {unknown[0]!r}; there are some of {', '.join(FEEDING)} (--backbone)"
        )
    if unused := [name for name in given if name not in models]:
        raise ArgumentError(f"--weights names a file for {unused[0]}, which is not run (--backbone {unused[0]})")
    folder = Path(out)
    done = _models_done(folder / FILE, set(models), overwrite)
    make_output_folder(folder)
    where = resolve_device(device)
    used: Precision = precision or ("fp16" if where.type == "cuda" else "fp32")
    rows: list[Row] = []
    not_run: dict[str, str] = {}
    for name in dict.fromkeys(models):
        try:
            backbone = load_backbone(name, given.get(name))
        except WeightsNotFoundError as error:
            if name in given or name in done:
                raise
            not_run[name] = str(error)
            continue
        extract(
            data,
            folder / name,
            backbone=backbone,
            plans=SAMPLINGS,
            feed=FEEDING[name],
            precision=used,
            layout=_DATASET,
            device=device,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
            announce=announce,
        )
        for sampling in SAMPLINGS:
            table = _labelled(EmbeddingFile(folder / name / f"{sampling}.h5").table())
            rows.append(_row(name, sampling, table, Path(data)))
    if not rows:
        raise WeightsNotFoundError("\n\n".join(not_run.values()))
    found = Reproduction(tuple(rows), not_run)
    write_json(folder / FILE, _document(found, where))
    return found


def _models_done(file: Path, models: Collection[str], overwrite: bool) -> set[str]:
    """Models of an earlier result that is to be completed; raises StoreError if `models` lack one, or add none."""
    if overwrite or not file.exists():
        return set()
    try:
        done = {row["model"] for row in json.loads(file.read_text("utf-8"))["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        done = set(models)
    if lost := sorted(done - set(models)):
        raise StoreError(
            f"{file} holds figures of {lost[0]}, which would be lost: add --backbone {lost[0]}, take another output "
            "(-o), or replace it with --overwrite"
        )
    if not set(models) - done:
        refuse_to_replace(file, overwrite, in_new_folder=True)
    return done


def ridge_on_one_clip(table: EmbeddingTable) -> tuple[Predictions, float]:
    """The published protocol: predictions of the test rows, and the chosen strength.

    Features are standardised on the training rows; the strength is chosen on the validation rows; the fit is on the
    training rows only. table: one row per video, labels "EF", splits train, val and test.
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    rows = {split: np.flatnonzero(table.split == split) for split in SIZES}
    truth = np.asarray(table.labels[_TARGET.name], dtype=np.float64)
    scaler = StandardScaler().fit(table.values[rows["train"]].astype(np.float64))
    x = {split: scaler.transform(table.values[index].astype(np.float64)) for split, index in rows.items()}
    fits = [Ridge(alpha=alpha).fit(x["train"], truth[rows["train"]]) for alpha in ALPHAS]
    errors = [np.abs(fit.predict(x["val"]) - truth[rows["val"]]).mean() for fit in fits]
    best = int(np.argmin(errors))
    test = rows["test"]
    predicted: Floats = fits[best].predict(x["test"])
    predictions = Predictions(
        target=_TARGET,
        level="video",
        ids={"video_id": table.video_id[test], "study_id": table.study_id[test]},
        patient=table.patient_id[test],
        split=np.full(len(test), "test", dtype=object),
        truth=truth[test],
        prediction=predicted,
        baseline=np.full(len(test), truth[rows["train"]].mean()),
    )
    return predictions, ALPHAS[best]


def verdict(mae: float, published: Published) -> str:
    """Whether a mean absolute error is in the published interval, or by how much it is off."""
    if published.low <= mae <= published.high:
        return "agrees"
    return f"off by {mae - published.mae:+.2f} (published interval {published.low:.2f} to {published.high:.2f})"


def table_of(found: Reproduction) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people: each figure beside the published one."""
    columns = ["", "MAE [% EF]", "95 % interval", "published", "R²", "published", "verdict"]
    rows = [
        [
            f"{row.model}, {row.sampling}",
            number(row.mae.value),
            f"{number(row.mae.low)} to {number(row.mae.high)}",
            f"{row.published.mae:.2f} ({row.published.low:.2f} to {row.published.high:.2f})",
            number(row.r2.value),
            f"{row.published.r2:.3f}",
            row.verdict,
        ]
        for row in found.rows
    ]
    return columns, rows


def _row(name: str, sampling: str, table: EmbeddingTable, data: Path) -> Row:
    sizes = {split: int((table.split == split).sum()) for split in SIZES}
    told = _incomparable(data, sizes)
    predictions, alpha = ridge_on_one_clip(table)
    scored = score(predictions).scores
    published = PUBLISHED[name, sampling]
    said = "not comparable" if told else verdict(scored["mae"].value, published)
    provenance = json.loads(table.provenance.to_json())
    return Row(name, sampling, scored["mae"], scored["r2"], alpha, published, said, provenance, sizes, told)


def _labelled(table: EmbeddingTable) -> EmbeddingTable:
    """The rows with an EF. Raises ArgumentError without the label or one of the splits."""
    if _TARGET.name not in table.labels or table.labels[_TARGET.name].dtype.kind != "f":
        raise ArgumentError(f"the data have no numeric label {_TARGET.name}; name EchoNet-Dynamic's folder (--data)")
    kept = np.flatnonzero(np.isfinite(table.labels[_TARGET.name]))
    columns = {name: getattr(table, name)[kept] for name in ROW_COLUMNS}
    labels = {name: column[kept] for name, column in table.labels.items()}
    found = EmbeddingTable(
        values=table.values[kept], labels=labels, level=table.level, provenance=table.provenance, **columns
    )
    if lacking := [split for split in SIZES if not (found.split == split).any()]:
        raise ArgumentError(
            f"no video of the split {lacking[0]} has an embedding and an EF; the protocol needs all three"
        )
    return found


def _incomparable(data: Path, sizes: Mapping[str, int]) -> str:
    """Why figures on these videos say nothing of the published ones."""
    if (data / _PHANTOM_MARK).is_file():
        return "these are phantoms"
    for split, count in SIZES.items():
        if abs(sizes[split] - count) > _MISSING_SHARE * count:
            return f"{sizes[split]} videos of the split {split}, and {count} were published"
    return ""


def _document(found: Reproduction, device: torch.device) -> dict[str, Any]:
    return {
        "schema_version": _SCHEMA_VERSION,
        "dataset": _DATASET,
        "version": __version__,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "versions": package_versions(),
        "published_sizes": SIZES,
        **asdict(found),
        # The lines below the first say where the weights were looked for, and a path may name a person.
        "not_run": {name: why.partition("\n")[0] for name, why in found.not_run.items()},
    }
