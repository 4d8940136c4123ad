"""Echocardiogram videos to embeddings, and embeddings to answers.

The names below load on first use, so that `import panecho_embed` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from panecho_embed._version import __version__

if TYPE_CHECKING:
    from panecho_embed.checkup.run import doctor
    from panecho_embed.core.clips import ClipPlan
    from panecho_embed.extraction.merging import merge
    from panecho_embed.extraction.pooling import pool
    from panecho_embed.extraction.reclipping import reclip
    from panecho_embed.extraction.run import extract
    from panecho_embed.models.backbones import load_backbone, register_backbone
    from panecho_embed.models.panecho import PanEcho
    from panecho_embed.prediction.run import predict
    from panecho_embed.store import EmbeddingFile

_HOME = {
    "ClipPlan": "core.clips",
    "EmbeddingFile": "store",
    "PanEcho": "models.panecho",
    "doctor": "checkup.run",
    "extract": "extraction.run",
    "load_backbone": "models.backbones",
    "merge": "extraction.merging",
    "pool": "extraction.pooling",
    "predict": "prediction.run",
    "reclip": "extraction.reclipping",
    "register_backbone": "models.backbones",
}

__all__ = [
    "ClipPlan",
    "EmbeddingFile",
    "PanEcho",
    "__version__",
    "doctor",
    "extract",
    "load_backbone",
    "merge",
    "pool",
    "predict",
    "reclip",
    "register_backbone",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
