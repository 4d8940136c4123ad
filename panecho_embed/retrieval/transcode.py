"""Videos of any source format as MP4 that every browser plays."""

from __future__ import annotations

import io
import itertools
from fractions import Fraction

import av
import av.error

from panecho_embed.core.errors import MediaError
from panecho_embed.media import Cine
from panecho_embed.media.pictures import Picture, fitted

MAX_FRAMES = 600
"""A longer video is cut: what is looked at is a few beats."""


def mp4(cine: Cine, fps: float, side: int = 640) -> Picture:
    """H.264 in MP4, at most 600 frames of at most `side` pixels, at `fps` frames per second. Raises MediaError."""
    stream = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1000)
    try:
        with av.open(stream, "w", format="mp4") as container:
            # A key frame every quarter of a second or so makes stepping and looping smooth.
            options = {"preset": "veryfast", "crf": "22", "g": "12"}
            video = container.add_stream("libx264", rate=rate, options=options)
            video.pix_fmt = "yuv420p"
            empty = True
            for frame in itertools.islice(cine.frames(), MAX_FRAMES):
                picture = fitted(frame, side)
                if empty:
                    video.height, video.width = picture.shape[:2]
                    empty = False
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if empty:
                raise MediaError("no frame could be decoded")
            container.mux(video.encode())
    except av.error.FFmpegError as error:
        raise MediaError(f"it can't be turned into a clip for the browser: {error}", stage="transcode") from error
    return Picture(stream.getvalue(), "video/mp4")
