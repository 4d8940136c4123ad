"""What an engine is given to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from panecho_embed.core.progress import Announce
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Manifest
from panecho_embed.core.wording import counted
from panecho_embed.extraction.decode import DecodeSettings
from panecho_embed.extraction.encode import EncodeSettings
from panecho_embed.models.backbones import Backbone
from panecho_embed.store import Parts


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """A file to be made: where its parts go, and how its rows are made."""

    parts: Parts
    provenance: Provenance


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """The videos at the positions `todo` of the manifest, to be embedded into the parts of one file or several.

    outputs: one for every plan of `decoding`, in its order; they differ only in their clips. model: the backbone, in
    memory. device, workers: as asked for, see `extract`. timeout_seconds: that a worker may take for one video.
    announce: told what a person should know while it runs.
    """

    outputs: Sequence[Output]
    manifest: Manifest
    todo: Sequence[int]
    model: Backbone
    decoding: DecodeSettings
    encoding: EncodeSettings
    device: str
    workers: int | None
    timeout_seconds: float
    announce: Announce

    def introduce(self, where: str) -> None:
        """Announce how many videos are embedded with which weights, and where."""
        weights = self.model.weights
        source = f"{weights.source}, licence {weights.licence}"
        if not weights.pretrained:
            source = f"RANDOM WEIGHTS, NOT PRETRAINED ({weights.source})"
        self.announce(
            f"{counted(len(self.todo), 'video')}, {self.model.name} on {where} in {self.encoding.precision}; {source}"
        )
