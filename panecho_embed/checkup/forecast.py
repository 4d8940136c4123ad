"""What a number of videos would take on this machine."""

from __future__ import annotations

from panecho_embed.checkup.findings import (
    CLIPS_PER_VIDEO,
    FRAMES_PER_VIDEO,
    Check,
    DecodingSpeed,
    EncodingSpeed,
    Forecast,
)
from panecho_embed.checkup.space import file_bytes, gigabytes


def forecast(
    videos: int, encoding: EncodingSpeed, decoding: DecodingSpeed, dim: int, cores: int, device: str
) -> Forecast:
    """Time and disk for `videos` videos of 64 frames.

    Beside a GPU, decoding by all cores and encoding overlap; on a CPU they share the cores.
    """
    encode = FRAMES_PER_VIDEO / encoding.frames_per_second
    decode = FRAMES_PER_VIDEO / decoding.frames_per_second / cores
    seconds = videos * (encode + decode if device == "cpu" else max(encode, decode))
    return Forecast(videos, decoding.kind, encoding.precision, seconds, file_bytes(videos, dim))


def forecast_checks(forecasts: list[Forecast]) -> list[Check]:
    """The forecasts in words."""
    if not forecasts:
        return []
    some = forecasts[0]
    checks = [
        Check(
            "forecast",
            "ok",
            f"{some.videos:,} videos of {FRAMES_PER_VIDEO} frames, {CLIPS_PER_VIDEO} clips each: a file of "
            f"{gigabytes(some.disk_bytes)}, twice that while it is being written",
        )
    ]
    checks += [Check("forecast", "ok", f"{one.kind}, {one.precision}: {duration(one.seconds)}") for one in forecasts]
    return checks


def duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 5.1 h, 3.2 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
