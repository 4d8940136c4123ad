"""Which share of the videos one job of a job array does."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from panecho_embed.core.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` of `count`, 1 <= index <= count; written "3/8"."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ArgumentError(f"shard is {self}; it must be one of 1/{self.count} ... n/n, as 3/8 (--shard)")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "3/8". Raises ArgumentError."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if match is None:
            raise ArgumentError(f"shard is {text!r}; it must be written i/n, as 3/8 for the third of eight (--shard)")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, video_id: str, count: int) -> Self:
        """The share of `count` that a video belongs to: only by its id, whatever other videos there are."""
        digest = hashlib.sha256(video_id.encode("utf-8", "surrogateescape")).digest()
        return cls(int.from_bytes(digest[:8], "big") % count + 1, count)

    def takes(self, video_id: str) -> bool:
        """Whether a video belongs to this share."""
        return Shard.of(video_id, self.count) == self
