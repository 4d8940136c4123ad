"""What the workers of the Ray engine do with a few videos: decode, encode, write them.

A row of Ray Data is a video and what became of it so far.
"""

from __future__ import annotations

import pickle
import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.engines.decode import DecodeSettings
from panecho_embed.engines.encode import EncodedVideo, EncodeSettings
from panecho_embed.engines.pool import DecodingLine
from panecho_embed.engines.writing import write_part
from panecho_embed.errors import EngineError
from panecho_embed.models.backbones import Backbone
from panecho_embed.provenance import Provenance
from panecho_embed.records import Failure, Manifest
from panecho_embed.shards import Shard
from panecho_embed.store import new_part_path
from panecho_embed.versions import package_versions

Batch = Mapping[str, Any]
"""Columns, a row a video: position in the manifest; pickled, video (VideoRef) and what became of it, outcome."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the workers of a run are told, beside the videos.

    folder, shard, latest_ns: of the parts, see `new_part_path`; folder None if no other machine sees it.
    """

    decoding: DecodeSettings
    timeout_seconds: float
    encoding: EncodeSettings
    device: str
    videos_an_encoder: int
    provenance: Provenance
    folder: Path | None
    shard: Shard | None
    latest_ns: int


class RayDecoder:
    """Decodes videos, in a process beside its own: one that hangs or crashes is a Failure."""

    def __init__(self, work: Work) -> None:
        check_versions(work.provenance)
        self._line = DecodingLine(work.decoding, 1, work.timeout_seconds)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """video -> outcome, DecodedVideo or Failure; a row at a time, as pixels are large."""
        videos = enumerate(map(pickle.loads, batch["video"]))
        for place, outcome in self._line.outcomes(videos):
            yield {
                "position": batch["position"][place : place + 1],
                "video": batch["video"][place : place + 1],
                "outcome": [pickle.dumps(outcome)],
            }


class RayEncoder:
    """Encodes videos; holds the model, and the engine that it chose for it."""

    def __init__(self, work: Work, model: Any) -> None:
        import ray
        import torch

        check_versions(work.provenance)
        if work.device == "cpu":
            # As many encoders as CPUs: threads would only fight.
            torch.set_num_threads(1)
        self._said: list[str] = []
        backbone: Backbone = ray.get(model).to(work.device)
        self._encoder = work.encoding.encoder(backbone, work.videos_an_encoder, self._said.append)

    def __call__(self, batch: Batch) -> Batch:
        """outcome, DecodedVideo or Failure -> EncodedVideo or Failure; engine: which ran, said: what is announced."""
        outcomes: list[Any] = [None] * len(batch["outcome"])
        for place, outcome in enumerate(map(pickle.loads, batch["outcome"])):
            if isinstance(outcome, Failure):
                outcomes[place] = outcome
                continue
            for done, encoded in self._encoder.add(place, outcome):
                outcomes[done] = encoded
        for done, encoded in self._encoder.flush():
            outcomes[done] = encoded
        said = "\n".join(self._said)
        self._said.clear()
        count = len(outcomes)
        return {
            "position": batch["position"],
            "video": batch["video"],
            "outcome": [pickle.dumps(outcome) for outcome in outcomes],
            "engine": [", ".join(self._encoder.engines)] * count,
            "said": [said] + [""] * (count - 1),
        }


def write_batch(batch: Batch, work: Work) -> Batch:
    """Write a part: its name, positions of its videos, content if it travels, host, said (a line each).

    Labels are left to the merge, which takes them from the manifest.
    """
    order = np.argsort(batch["position"])
    outcomes: list[EncodedVideo | Failure] = [pickle.loads(batch["outcome"][i]) for i in order]
    engines = {name for engine in batch["engine"] for name in engine.split(", ") if name}
    manifest = Manifest(tuple(pickle.loads(batch["video"][i]) for i in order))
    with tempfile.TemporaryDirectory() as scratch:
        path = new_part_path(work.folder or Path(scratch), work.shard, work.latest_ns)
        write_part(path, manifest, outcomes, replace(work.provenance, engine=", ".join(sorted(engines))))
        content = path.read_bytes() if work.folder is None else b""
    said = "\n".join(filter(None, batch["said"]))
    return {
        "name": [path.name],
        "content": [content],
        "host": [platform.node()],
        "positions": [pickle.dumps([int(position) for position in batch["position"]])],
        "said": [said],
    }


def check_versions(provenance: Provenance) -> None:
    """Raise EngineError if this machine has other packages than the one that began the run."""
    here, asked = package_versions(), provenance.versions
    if other := [f"{name} {here.get(name)}, not {asked[name]}" for name in asked if here.get(name) != asked[name]]:
        raise EngineError(
            f"the machine {platform.node()} of the Ray cluster has {'; '.join(other)}: install the same versions on "
            "all machines"
        )
