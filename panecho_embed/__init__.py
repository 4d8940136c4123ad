"""Echocardiogram videos to embeddings, and embeddings to answers.

Every command of `panecho-embed` that is of use in Python is a function here, or in `probes`, under its own name. The
names below load on first use, so that `import panecho_embed` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from panecho_embed._version import __version__

if TYPE_CHECKING:
    from panecho_embed.checkup.reproduce import reproduce
    from panecho_embed.checkup.run import doctor
    from panecho_embed.checkup.whole import verify
    from panecho_embed.core.clips import ClipPlan
    from panecho_embed.datasets.listing import manifest
    from panecho_embed.datasets.mimic_prepare import prepare_mimic as mimic
    from panecho_embed.evaluation.compare_runs import compare
    from panecho_embed.extraction.describing import info
    from panecho_embed.extraction.merging import merge
    from panecho_embed.extraction.pooling import pool
    from panecho_embed.extraction.reclipping import reclip
    from panecho_embed.extraction.run import extract
    from panecho_embed.finetuning.grid_report import grid
    from panecho_embed.finetuning.recipe_files import load_recipe, recipes
    from panecho_embed.finetuning.run import finetune
    from panecho_embed.models.backbones import load_backbone, register_backbone
    from panecho_embed.models.panecho import PanEcho
    from panecho_embed.models.verify import verify_weights
    from panecho_embed.models.weights import fetch as fetch_weights
    from panecho_embed.models.weights import weights
    from panecho_embed.phantoms.studies import write_studies as phantom
    from panecho_embed.prediction.run import predict
    from panecho_embed.retrieval.asking import search
    from panecho_embed.retrieval.atlas import write_atlas as atlas
    from panecho_embed.retrieval.index import build_index as index
    from panecho_embed.store import EmbeddingFile
    from panecho_embed.store.exporting import export

_HOME = {
    "ClipPlan": "core.clips:ClipPlan",
    "EmbeddingFile": "store.read:EmbeddingFile",
    "PanEcho": "models.panecho:PanEcho",
    "atlas": "retrieval.atlas:write_atlas",
    "compare": "evaluation.compare_runs:compare",
    "doctor": "checkup.run:doctor",
    "export": "store.exporting:export",
    "extract": "extraction.run:extract",
    "fetch_weights": "models.weights:fetch",
    "finetune": "finetuning.run:finetune",
    "grid": "finetuning.grid_report:grid",
    "index": "retrieval.index:build_index",
    "info": "extraction.describing:info",
    "load_backbone": "models.backbones:load_backbone",
    "load_recipe": "finetuning.recipe_files:load_recipe",
    "manifest": "datasets.listing:manifest",
    "merge": "extraction.merging:merge",
    "mimic": "datasets.mimic_prepare:prepare_mimic",
    "phantom": "phantoms.studies:write_studies",
    "pool": "extraction.pooling:pool",
    "predict": "prediction.run:predict",
    "recipes": "finetuning.recipe_files:recipes",
    "reclip": "extraction.reclipping:reclip",
    "register_backbone": "models.backbones:register_backbone",
    "reproduce": "checkup.reproduce:reproduce",
    "search": "retrieval.asking:search",
    "verify": "checkup.whole:verify",
    "verify_weights": "models.verify:verify_weights",
    "weights": "models.weights:weights",
}

__all__ = [
    "ClipPlan",
    "EmbeddingFile",
    "PanEcho",
    "__version__",
    "atlas",
    "compare",
    "doctor",
    "export",
    "extract",
    "fetch_weights",
    "finetune",
    "grid",
    "index",
    "info",
    "load_backbone",
    "load_recipe",
    "manifest",
    "merge",
    "mimic",
    "phantom",
    "pool",
    "predict",
    "recipes",
    "reclip",
    "register_backbone",
    "reproduce",
    "search",
    "verify",
    "verify_weights",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
