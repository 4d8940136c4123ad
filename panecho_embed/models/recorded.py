"""What a weights file says of itself: its licence, and the pixels and clips that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panecho_embed.clips import ClipPlan
from panecho_embed.errors import WeightsError
from panecho_embed.provenance import Preprocess

KEY = "panecho_embed"
"""The entry beside the state dict under which `finetune` writes what a model is, as plain values."""

PANECHO_LAYOUT, OWN_LAYOUT = "panecho", "own"
"""How a model of `finetune` names its tensors: as the released checkpoint, or, of another shape, as its own modules."""

_LICENCE_KEYS = ("licence", "license")
_LONGEST = 300
_PAIRS = ("mean", "std")


@dataclass(frozen=True, slots=True)
class Recorded:
    """licence: "" where the file states none. preprocess, clips: None where it says nothing of them."""

    licence: str = ""
    preprocess: Preprocess | None = None
    clips: ClipPlan | None = None


def read_recorded(content: Mapping[Any, Any], path: Path) -> Recorded:
    """What the dict of a weights file holds besides its state dict.

    Raises WeightsError where it describes pixels or clips that there can't be, and for a fine-tuned model of another
    shape than PanEcho's, which no backbone reads.
    """
    about = content.get(KEY)
    if not isinstance(about, Mapping):
        return Recorded(_licence(content))
    if about.get("layout") == OWN_LAYOUT:
        raise WeightsError(
            f"{path}: a model that `finetune` made from {about.get('init')!r} and whose shape is not PanEcho's. Only "
            "those with PanEcho's frame encoder and a transformer over frames are loaded again (made from panecho, "
            "random, imagenet). Its predictions stand beside it, in predictions.csv; docs/finetuning.md says how to "
            "read its tensors"
        )
    return Recorded(
        _licence(about) or _licence(content),
        _made(Preprocess, about.get("preprocess"), "preprocess", path),
        _made(ClipPlan, about.get("clips"), "clips", path),
    )


def _licence(content: Mapping[Any, Any]) -> str:
    for key in _LICENCE_KEYS:
        value = content.get(key)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:_LONGEST]
    return ""


def _made(kind: Any, fields: Any, name: str, path: Path) -> Any:
    if fields is None:
        return None
    try:
        values = {key: tuple(value) if key in _PAIRS else value for key, value in fields.items()}
        return kind(**values)
    # A file from anybody may hold values of any type there.
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: what it records as its {name} can't be ({error}); it was not written by this release"
        ) from error
