"""The workers of the Ray engine that decode. Imports no torch: they start in a moment and hold no model.

What travels between the machines are rows of Ray Data that each hold a few videos, pickled: Ray Data would take every
video's columns apart and put them together again at each step, and nothing here looks into them on the way.
"""

from __future__ import annotations

import pickle
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from panecho_embed.core.errors import EngineError
from panecho_embed.core.provenance import Provenance, package_versions
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings
from panecho_embed.extraction.pool import DecodingLine, Outcome

_COLUMN = "pickled"
# Long videos go on one by one rather than fill the memory together.
_BYTES_TOGETHER = 128 << 20


@dataclass(frozen=True, slots=True)
class DecodingWork:
    """The instructions to the decoders of a run. videos_together: that go on to an encoder in one row."""

    settings: DecodeSettings
    timeout_seconds: float
    videos_together: int
    provenance: Provenance


class RayDecoder:
    """Decodes videos, in a process beside its own: one that hangs or crashes is a Failure."""

    def __init__(self, work: DecodingWork) -> None:
        check_versions(work.provenance)
        self._work = work
        self._line = DecodingLine(work.settings, 1, work.timeout_seconds)

    def __call__(self, batch: Any) -> Iterator[Any]:
        """A list of (position, VideoRef) a row -> lists of (position, DecodedVideo or Failure), a row at a time."""
        together: list[Outcome] = []
        size = 0
        for position, outcome in self._line.outcomes(chain.from_iterable(items(batch))):
            together.append((position, outcome))
            if isinstance(outcome, DecodedVideo):
                size += outcome.pixels.nbytes
            if len(together) == self._work.videos_together or size >= _BYTES_TOGETHER:
                yield table([together])
                together, size = [], 0
        if together:
            yield table([together])


def check_versions(provenance: Provenance) -> None:
    """Raise EngineError if this machine has other packages than the one that began the run."""
    here, asked = package_versions(), provenance.versions
    if other := [f"{name} {here.get(name)}, not {asked[name]}" for name in asked if here.get(name) != asked[name]]:
        raise EngineError(
            f"the machine {platform.node()} of the Ray cluster has {'; '.join(other)}: install the same versions on "
            "all machines"
        )


def table(items: Iterable[object]) -> Any:
    """A pyarrow.Table with a row for each item."""
    import pyarrow as pa

    pickled = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
    # "large": the frames of a long video have more bytes than an offset of 32 bits counts.
    return pa.table({_COLUMN: pa.array(pickled, pa.large_binary())})


def items(table: Any) -> Iterator[Any]:
    """What is in the rows of a table. Only what this package has written is read: pickles are code."""
    for cell in table.column(_COLUMN):
        yield pickle.loads(cell.as_buffer())
