"""Which objects of MIMIC-IV-ECHO are cine loops in B-mode, only by their headers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.errors import MediaError, StoreError
from panecho_embed.core.outputs import written_whole
from panecho_embed.core.records import VideoRef

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "headers"
"""Folder, within the output, of what the headers say: a table for every 5,000 objects."""

_COLUMNS = ("video_id", "size_bytes", "content", "num_frames", "fps", "colour_flow")
_PART = 5_000
# Each waits for the disk, or for the network behind it.
_READERS = 16


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an object says; content and colour_flow as in `MediaInfo`, fps NaN where not known."""

    size_bytes: int
    content: str
    num_frames: int
    fps: float
    colour_flow: float

    @property
    def kind(self) -> str:
        """ "B-mode", the cine loops that are selected; "colour Doppler", other cine loops; else the content."""
        if self.content != "cine":
            return self.content
        return "colour Doppler" if self.colour_flow == 1 else "B-mode"

    @property
    def seconds(self) -> float:
        """Duration of a cine loop; 0 where the header does not say."""
        return self.num_frames / self.fps if self.fps > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Selection:
    """What the headers of all objects say together.

    headers: video_id -> header of every object that could be read. unreadable: a line for every other one. reused: how
    many headers an earlier run had read.
    """

    headers: dict[str, Header]
    unreadable: list[str]
    reused: int

    def chosen(self, videos: Iterable[VideoRef]) -> list[VideoRef]:
        """The cine loops in B-mode, in their order."""
        return [video for video in videos if (one := self.headers.get(video.video_id)) and one.kind == "B-mode"]

    @property
    def counts(self) -> Counter[str]:
        """How many objects there are of each kind."""
        return Counter(one.kind for one in self.headers.values())

    @property
    def hours(self) -> float:
        """Duration of all cine loops in B-mode."""
        return sum(one.seconds for one in self._loops) / 3600

    @property
    def without_rate(self) -> int:
        """How many cine loops in B-mode have no frame rate in their headers, and are not part of `hours`."""
        return sum(not one.fps > 0 for one in self._loops)

    @property
    def size_bytes(self) -> int:
        """Size of the files of all cine loops in B-mode."""
        return sum(one.size_bytes for one in self._loops)

    @property
    def _loops(self) -> list[Header]:
        return [one for one in self.headers.values() if one.kind == "B-mode"]


@dataclass(slots=True)
class _Parts:
    """The tables of headers in a folder; each appears whole or not at all, so a killed run loses at most one."""

    folder: Path
    headers: dict[str, Header] = field(default_factory=dict)
    count: int = 0

    def read(self) -> None:
        import pandas as pd

        for path in sorted(self.folder.glob("*.csv")):
            try:
                table = pd.read_csv(path, dtype={"video_id": str, "content": str}, na_filter=True)
                rows = table[list(_COLUMNS)].itertuples(index=False)
                self.headers |= {row[0]: Header(int(row[1]), row[2], int(row[3]), row[4], row[5]) for row in rows}
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise StoreError(f"{path} is damaged ({error}); remove it, and its headers are read again") from error
            self.count = int(path.stem) + 1

    def write(self, found: dict[str, Header]) -> None:
        if not found:
            return
        self.headers |= found
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.folder / f"{self.count:05d}.csv") as temporary:
            _frame(found).to_csv(temporary, index=False, lineterminator="\n")
        self.count += 1


def _frame(found: dict[str, Header]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (name, one.size_bytes, one.content, one.num_frames, one.fps, one.colour_flow) for name, one in found.items()
    ]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def read_headers(videos: Sequence[VideoRef], out: Path, progress: Callable[[], object] = lambda: None) -> Selection:
    """Read the header of every object, no pixels; what an earlier run read into `out` is not read again.

    Parameters
    ----------
    videos : sequence of VideoRef
    out : Path
        The output folder; the headers are kept in its folder `FOLDER`.
    progress : callable
        Called after each header.

    Returns
    -------
    Selection

    Raises
    ------
    StoreError
        If the folder can't be written, or holds a damaged table.
    """
    parts = _Parts(out / FOLDER)
    parts.read()
    sizes = {video.video_id: _size(video) for video in videos}
    pending = [
        video
        for video in videos
        if (known := parts.headers.get(video.video_id)) is None or known.size_bytes != sizes[video.video_id]
    ]
    reused = len(videos) - len(pending)
    for _ in range(reused):
        progress()
    unreadable: list[str] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(pending), _PART):
            some = pending[start : start + _PART]
            found = {}
            for video, header in zip(some, pool.map(_header, some), strict=True):
                if isinstance(header, Header):
                    found[video.video_id] = header
                else:
                    unreadable.append(f"{video.video_id}: {header}")
                progress()
            parts.write(found)
    unread = {line.partition(":")[0] for line in unreadable}
    headers = {video.video_id: parts.headers[video.video_id] for video in videos if video.video_id not in unread}
    return Selection(headers, unreadable, reused)


def _size(video: VideoRef) -> int:
    try:
        return Path(video.path).stat().st_size
    except OSError:
        return -1


def _header(video: VideoRef) -> Header | str:
    """The header of an object, or why there is none."""
    from panecho_embed.media.dicom import describe_dicom

    try:
        info = describe_dicom(video.path, header_only=True)
    except MediaError as error:
        return str(error)
    fps = math.nan if info.fps is None else info.fps
    return Header(_size(video), info.cine, info.num_frames or 0, fps, info.colour_flow)
