"""How embeddings were made: feeding, weights and the whole record, whose settings id says what may be mixed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal, get_args

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import EARLIER_FEEDING, EARLIER_ORDER, ArgumentError, EarlierReleaseError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.planes import PlaneOrder

Level = Literal["frame", "clip", "video", "study"]
Precision = Literal["fp32", "bf16", "fp16"]
StoredType = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Which weights a model carries.

    source: a file name, an address, or "random (seed 0)". sha256: of the file's bytes, or of the tensors when random.
    licence: of the weights. pretrained: False for random weights, which every file and report must say.
    """

    source: str
    sha256: str
    licence: str
    pretrained: bool


@dataclass(frozen=True, slots=True)
class Provenance:
    """How embeddings were made. Two files with the same `settings_id` may be merged; others may not.

    feeding: what was done to frames; its `clips` are the model's own. clips: those that were made, None at frame level.
    overrides: what differs from the model's own feeding and clips, a line each, for people. l2_normalised: whether the
    vector of every picture was scaled to unit length before clips, or rows of frames, were made of it. plane_order:
    which pictures a clip is made of, a property of the weights; at frame level every frame is one all the same.
    precision: of the encoder's arithmetic. dtype: of the stored numbers. include_stills: whether DICOM stills were
    taken in. versions: of the packages that could matter. engine: what ran the encoders, "" where not known. patients:
    those whom the weights record as trained on. These three and the overrides are recorded, but no part of the
    settings id: engines of one precision differ by its rounding, and neither they nor an upgrade of numpy may stop a
    resume.
    """

    backbone: str
    weights: WeightsInfo
    feeding: Feeding
    clips: ClipPlan | None
    level: Level
    dim: int
    precision: Precision = "fp32"
    dtype: StoredType = "float32"
    include_stills: bool = False
    pooling: str = ""
    l2_normalised: bool = False
    plane_order: PlaneOrder = "frames"
    versions: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""
    overrides: tuple[str, ...] = ()
    patients: TrainingPatients = field(default_factory=TrainingPatients)

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise ArgumentError(f"level is {self.level!r}; allowed are {', '.join(get_args(Level))}")
        if self.precision not in get_args(Precision):
            raise ArgumentError(f"precision is {self.precision!r}; allowed are {', '.join(get_args(Precision))}")
        if self.dtype not in get_args(StoredType):
            raise ArgumentError(f"dtype is {self.dtype!r}; allowed are {', '.join(get_args(StoredType))}")
        if self.plane_order not in get_args(PlaneOrder):
            raise ArgumentError(f"plane_order is {self.plane_order!r}; allowed are {', '.join(get_args(PlaneOrder))}")

    def settings(self) -> dict[str, Any]:
        """What decides the values, flat: {"feeding.crop": 224, ...}. Of the weights: content, not source."""
        flat: dict[str, Any] = {}
        whole = dataclasses.asdict(self._without_patients())
        for recorded in ("versions", "engine", "overrides", "patients"):
            whole.pop(recorded)
        # What the model would take unasked decides nothing.
        whole["feeding"].pop("clips")
        whole["weights"].pop("source")
        whole["weights"].pop("licence")
        for name, value in whole.items():
            if isinstance(value, dict):
                flat |= {f"{name}.{key}": list(v) if isinstance(v, tuple) else v for key, v in value.items()}
            else:
                flat[name] = value
        return flat

    @property
    def model(self) -> str:
        """What to call the model in a report: a fine-tuned one is not the backbone as released."""
        if self.patients.trainings:
            return f"a model fine-tuned in the architecture of {self.backbone} ({self.weights.source})"
        return self.backbone

    @property
    def settings_id(self) -> str:
        """SHA-256 of `settings`, 64 hexadecimal digits."""
        settings = self.settings()
        if not self.l2_normalised:
            # Files from before it was recorded lack it, and nothing was normalised then: theirs stays the same.
            del settings["l2_normalised"]
        if not settings.get("clips.ed_es"):
            settings.pop("clips.ed_es", None)  # As above.
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Provenance) -> list[str]:
        """Every setting that differs, as "name: mine, not theirs"."""
        mine, theirs = self.settings(), other.settings()
        return [
            f"{name}: {mine.get(name)}, not {theirs.get(name)}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def to_json(self) -> str:
        """As JSON text, to be read back by `from_json`, without `patients`: they can be many, and are kept apart."""
        whole = dataclasses.asdict(self._without_patients())
        whole.pop("patients")
        record = whole | {"feeding": self.feeding.record(), "versions": dict(self.versions)}
        return json.dumps(record, sort_keys=True)

    def _without_patients(self) -> Provenance:
        return dataclasses.replace(self, versions={}, patients=TrainingPatients())

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what `to_json` wrote. Raises EarlierReleaseError if an earlier release did, else ArgumentError."""
        try:
            raw = json.loads(text)
            if isinstance(raw, dict) and "backbone" in raw and "plane_order" not in raw:
                raise EarlierReleaseError(EARLIER_ORDER)
            if isinstance(raw, dict) and "backbone" in raw and "feeding" not in raw:
                raise EarlierReleaseError(EARLIER_FEEDING)
            clips = raw.pop("clips")
            read = cls(
                weights=WeightsInfo(**raw.pop("weights")),
                feeding=Feeding.from_record(raw.pop("feeding")),
                clips=None if clips is None else ClipPlan(**clips),
                overrides=tuple(map(str, raw.pop("overrides"))),
                versions={str(name): str(version) for name, version in dict(raw.pop("versions")).items()},
                **raw,
            )
        except ArgumentError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise ArgumentError(f"no record of settings ({type(error).__name__}: {error})") from error
        for record in (read, read.weights, read.feeding, read.feeding.clips, *([read.clips] if read.clips else [])):
            _check_types(record)
        return read


_PLAIN_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "bool": bool}


def _check_types(record: Any) -> None:
    """Raise ArgumentError for a field of a plain type that holds another, as a record from a file can."""
    for entry in dataclasses.fields(record):
        value, plain = getattr(record, entry.name), _PLAIN_TYPES.get(str(entry.type))
        if plain is not None and not (isinstance(value, plain) and (plain is bool or not isinstance(value, bool))):
            raise ArgumentError(f"{entry.name} is {str(value)[:80]!r}; it must be {entry.type}")


def package_versions() -> dict[str, str]:
    """Python's own, and those of the packages that are installed here."""
    encode = ("panecho-embed", "torch", "timm", "torchvision", "numpy", "h5py")
    plugins = ("python-gdcm", "pyjpegls", "pylibjpeg-openjpeg", "pylibjpeg-rle")
    decode = ("opencv-python-headless", "av", "pydicom", *plugins)
    found = {name: metadata.version(name) for name in (*encode, *decode) if _installed(name)}
    return {"python": platform.python_version(), **found}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
