"""The workers of the Ray engine that encode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Failure
from panecho_embed.extraction.encode import EncodeSettings
from panecho_embed.extraction.ray_decoder import check_versions
from panecho_embed.extraction.ray_rows import items, table
from panecho_embed.extraction.writing import Result
from panecho_embed.models.backbones import Backbone


@dataclass(frozen=True, slots=True)
class EncodingWork:
    """What the encoders of a run are told. device: "cpu" or "cuda". videos_an_encoder: that each may expect."""

    settings: EncodeSettings
    device: str
    videos_an_encoder: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a few videos. engines: that the encoder has used. said: what it would announce, each once."""

    results: list[Result]
    engines: tuple[str, ...]
    said: tuple[str, ...]


class RayEncoder:
    """Encodes videos; holds the model, and the engine that it chose for it."""

    def __init__(self, work: EncodingWork, model: Any) -> None:
        import ray
        import torch

        check_versions(work.provenance)
        if work.device == "cpu":
            # As many encoders as CPUs: threads would only fight.
            torch.set_num_threads(1)
        self._said: list[str] = []
        backbone: Backbone = ray.get(model).to(work.device)
        self._encoder = work.settings.encoder(backbone, work.videos_an_encoder, self._said.append)

    def __call__(self, batch: Any) -> Any:
        """Rows of a list of (position, DecodedVideo or Failure) -> as many rows of Encoded."""
        return table(self._encoded(outcomes) for outcomes in items(batch))

    def _encoded(self, outcomes: list[tuple[int, Any]]) -> Encoded:
        results: list[Result] = []
        for position, outcome in outcomes:
            if isinstance(outcome, Failure):
                results.append((position, outcome))
            else:
                results.extend(self._encoder.add(position, outcome))
        results.extend(self._encoder.flush())
        said = tuple(self._said)
        self._said.clear()
        return Encoded(results, tuple(self._encoder.engines), said)
