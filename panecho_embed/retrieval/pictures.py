"""Pictures of a collection's videos by their ids."""

from __future__ import annotations

from panecho_embed.datasets import located
from panecho_embed.media import Cine, open_cine
from panecho_embed.media.pictures import Picture, shown_fps, still_of, thumbnail_of
from panecho_embed.retrieval.collection import Collection


def video_path(collection: Collection, video_id: str) -> str:
    """Where a video of the collection is read from.

    Raises ArgumentError for an id that is not in the file, MediaError for an opaque one without its local table.
    """
    collection.position("video", video_id)
    columns = collection.file.video_columns
    return located(collection.path, str(columns["path"][columns["video_id"] == video_id][0]))


def open_video(collection: Collection, video_id: str) -> Cine:
    """Open a video of the collection.

    Raises ArgumentError for an id that is not in the file, and MediaError, without a path, for a video that has moved
    or can't be read.
    """
    return open_cine(video_path(collection, video_id), include_stills=True)


def known_fps(collection: Collection, video_id: str) -> float:
    """What the embedding file says of a video's frames per second; 0 or NaN where it does not know."""
    return float(collection.videos.columns["fps"][collection.position("video", video_id)])


def thumbnail(collection: Collection, video_id: str, side: int = 160) -> Picture:
    """The first second and a half of a video as an endless animated WebP, `side` pixels at most. Raises MediaError."""
    cine = open_video(collection, video_id)
    return thumbnail_of(cine, shown_fps(known_fps(collection, video_id), cine), side)


def still(collection: Collection, video_id: str, side: int = 480) -> Picture:
    """The first frame of a video as JPEG, `side` pixels at most. Raises MediaError."""
    return still_of(open_video(collection, video_id), side)
