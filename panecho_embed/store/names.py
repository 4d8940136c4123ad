"""How parts are called: by the time they were written at, and by the shard that wrote them."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path

from panecho_embed.core.shards import Shard

PATTERN = "part-*.h5"
"""What the names of all parts match."""

_SHARD_OF_PART = re.compile(r"-(\d+)of(\d+)\.h5$")


def new_part_path(folder: Path, shard: Shard | None, latest_ns: int) -> Path:
    """A path that no other part has, whoever writes it; names sort by time, and behind `latest_ns`.

    A clock that was set back, or another machine's, must not make the latest word on a video look older than the one
    before.
    """
    tag = "" if shard is None else f"-{shard.index}of{shard.count}"
    return folder / f"part-{max(time.time_ns(), latest_ns + 1):020d}-{uuid.uuid4().hex[:8]}{tag}.h5"


def time_ns(name: str) -> int:
    """The time in a part's name, nanoseconds since 1970; 0 where there is none."""
    digits = name.split("-")[1]
    return int(digits) if digits.isdecimal() else 0


def concerns(name: str, shard: Shard | None) -> bool:
    """Whether a part can hold videos of a share: not if another shard of as many has written it."""
    match = _SHARD_OF_PART.search(name)
    if match is None or shard is None or int(match[2]) != shard.count:
        return True
    return int(match[1]) == shard.index
