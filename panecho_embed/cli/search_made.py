"""What results of a search must say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panecho_embed.search import Collection


def made(collection: Collection, **settings: Any) -> dict[str, Any]:
    """What the embeddings were made with, and how they were compared; the block `made` of every JSON."""
    provenance = collection.provenance
    return {
        "file": str(collection.path),
        "backbone": provenance.backbone,
        "weights": provenance.weights.source,
        "pretrained": provenance.weights.pretrained,
        "fingerprint": provenance.fingerprint,
        **settings,
    }


def warning(collection: Collection) -> str | None:
    """What a person must know before reading any result; None where the weights are trained."""
    weights = collection.provenance.weights
    if weights.pretrained:
        return None
    return f"RANDOM WEIGHTS, NOT PRETRAINED ({weights.source}): results say nothing about a trained model"
