"""What a checkup of the machine found."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from panecho_embed.core.provenance import Precision

Status = Literal["ok", "warning", "problem"]
_Topic = Literal["device", "precision", "engine", "decoder", "weights", "space", "speed", "forecast"]

CLIPS_PER_VIDEO = 4
"""Of the videos that a forecast counts: what `extract` takes of a video by default, four clips of 16 frames."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    status: "problem" if `extract` can't run because of it, "warning" if it would be slower or would not read some
    files. text: what was found. mend: the command, or the step, that mends it; "" with "ok".
    """

    topic: _Topic
    status: Status
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class EncodingSpeed:
    """How fast frames are encoded, clips included. engine: that ran the image encoder; image_size: pixels a side."""

    precision: Precision
    engine: str
    image_size: int
    frames_per_second: float


@dataclass(frozen=True, slots=True)
class DecodingSpeed:
    """How fast one process reads frames of a kind of file, resizing included. height, width: of the file's frames."""

    kind: str
    height: int
    width: int
    frames_per_second: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What `videos` videos of 64 frames would take, four clips each. disk_bytes: of the file only."""

    videos: int
    kind: str
    precision: Precision
    seconds: float
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that was found."""

    checks: tuple[Check, ...]
    encoding: tuple[EncodingSpeed, ...]
    decoding: tuple[DecodingSpeed, ...]
    forecasts: tuple[Forecast, ...]

    @property
    def problems(self) -> tuple[Check, ...]:
        """What makes `extract` impossible."""
        return tuple(check for check in self.checks if check.status == "problem")

    @property
    def exit_code(self) -> int:
        """0 if `extract` can run here, else 1."""
        return 1 if self.problems else 0

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists, texts and numbers."""
        return {**dataclasses.asdict(self), "exit_code": self.exit_code}
