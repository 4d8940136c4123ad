"""What a weights file says of itself: its licence, its order of planes, how it was fed in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from panecho_embed.core.errors import EARLIER_FEEDING, ArgumentError, WeightsError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.planes import PlaneOrder

KEY = "panecho_embed"
"""The entry beside the state dict that says what a model is, as plain values; released files have none."""

PANECHO_LAYOUT, SAME_SHAPE_LAYOUT, OWN_LAYOUT = "panecho", "panecho-embed", "own"
"""How a file of ours names its tensors.

"panecho": as the released checkpoint, for PanEcho's own code too: published order of planes, PanEcho's pixels.
"panecho-embed": a model of PanEcho's shape under our names, of another order or other pixels, which are recorded.
"own": a fine-tuned model of another shape, which nothing loads again.
"""

_LICENCE_KEYS = ("licence", "license")
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Recorded:
    """licence: "" where the file states none. feeding: pixels and clips, None where it says nothing of them.

    plane_order: of released files "published". layout: how the file names its tensors. thresholds: of the yes-or-no
    decisions of a fine-tuned model, by task. init: what a fine-tuned model was trained from; "" for any other.
    patients: that a fine-tuned model was trained on.
    """

    licence: str = ""
    feeding: Feeding | None = None
    plane_order: PlaneOrder = "published"
    layout: str = PANECHO_LAYOUT
    thresholds: Mapping[str, float] = field(default_factory=dict)
    init: str = ""
    patients: TrainingPatients = field(default_factory=TrainingPatients)


def read_recorded(content: Mapping[Any, Any], path: Path) -> Recorded:
    """What the dict of a weights file holds besides its state dict.

    Raises WeightsError where it describes pixels or clips that there can't be, for a fine-tuned model of another shape
    than PanEcho's, which no backbone reads, and for one of an earlier release, which was trained on RGB frames.
    """
    about = content.get(KEY)
    if not isinstance(about, Mapping):
        return Recorded(_licence(content))
    if about.get("layout") == OWN_LAYOUT:
        raise WeightsError(
            f"{path}: a model that `finetune` made from {about.get('init')!r} and whose shape is not PanEcho's. Only "
            "those with PanEcho's image encoder and a transformer over pictures are loaded again (made from panecho, "
            "random, imagenet). Its predictions stand beside it, in predictions.csv; docs/finetuning.md says how to "
            "read its tensors"
        )
    order, layout = about.get("plane_order"), about.get("layout")
    if order is None:
        raise WeightsError(
            f"{path}: an earlier release trained this model on RGB frames, where PanEcho's published forward pass "
            'takes three consecutive planes ("Order of planes" in docs/models.md); fine-tune again'
        )
    if order not in get_args(PlaneOrder) or layout not in (PANECHO_LAYOUT, SAME_SHAPE_LAYOUT):
        raise WeightsError(
            f"{path}: its order of planes is {str(order)[:80]!r} and its layout {str(layout)[:80]!r}; known are "
            f"{', '.join(get_args(PlaneOrder))} and {PANECHO_LAYOUT}, {SAME_SHAPE_LAYOUT}"
        )
    return Recorded(
        _licence(about) or _licence(content),
        _feeding(about, path),
        order,
        layout,
        _thresholds(about.get("thresholds"), path),
        str(about.get("init") or ""),
        _patients(about.get("patients"), path),
    )


def _patients(record: Any, path: Path) -> TrainingPatients:
    try:
        return TrainingPatients.from_record(record)
    except ArgumentError as error:
        raise WeightsError(f"{path}: {error}") from error


def _thresholds(given: Any, path: Path) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(
        isinstance(value, float) and 0 <= value <= 1 for value in given.values()
    ):
        raise WeightsError(f"{path}: its decision thresholds are {str(given)[:80]!r}; numbers from 0 to 1 are needed")
    return {str(name): float(value) for name, value in given.items()}


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a dataclass with lists in place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _licence(content: Mapping[Any, Any]) -> str:
    for key in _LICENCE_KEYS:
        value = content.get(key)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:_LONGEST]
    return ""


def _feeding(about: Mapping[Any, Any], path: Path) -> Feeding | None:
    if "preprocess" in about:
        raise WeightsError(f"{path}: {EARLIER_FEEDING}")
    record = about.get("feeding")
    if record is None:
        return None
    try:
        return Feeding.from_record(record)
    # A file from anybody may hold values of any type there.
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise WeightsError(
            f"{path}: what it records as its feeding can't be ({error}); it was not written by this release"
        ) from error
