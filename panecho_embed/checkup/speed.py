"""How fast this machine encodes and decodes, by the code that `extract` runs, and what a number of videos would take.

Phantom videos and random weights will do: speed does not depend on what the weights are.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from panecho_embed.checkup.findings import CLIPS_PER_VIDEO, Check, DecodingSpeed, EncodingSpeed, Forecast
from panecho_embed.checkup.machine import file_bytes, gigabytes
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import MediaError
from panecho_embed.core.provenance import Precision
from panecho_embed.core.records import Failure, VideoRef
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings, decode_video
from panecho_embed.extraction.encode import Encoder, default_batch_pictures
from panecho_embed.extraction.image_engine import EagerEngine, PictureBatch
from panecho_embed.media import describe
from panecho_embed.models.backbone import Backbone
from panecho_embed.phantoms import write_studies

_FRAMES_PER_VIDEO = 64


_FRAMES = 16
# Work enough for a trial of engines, too little for one that would have to be compiled first.
_WORTH_SECONDS = 40.0


def phantom_videos(folder: Path) -> dict[str, Path]:
    """A small file of each common kind, written into `folder`: kind -> path. Raises StoreError if it can't be."""
    avi = write_studies(folder / "avi", "echonet-dynamic", patients=1, num_frames=_FRAMES)
    dicom = write_studies(folder / "dicom", "dicom", patients=1, videos_per_study=1, num_frames=_FRAMES)
    return {"AVI": avi[0], "DICOM": dicom[0]}


def decoding_speed(kind: str, path: Path, backbone: Backbone, seconds: float) -> tuple[DecodingSpeed, DecodedVideo]:
    """Decode one file again and again in this process. Raises MediaError if it can't be."""
    settings = DecodeSettings(backbone.feeding, (ClipPlan(frames_per_clip=_FRAMES, num_clips=1),))
    ref = VideoRef("phantom", "phantom", "phantom", str(path))
    video = _decoded(ref, settings)
    frames, started = 0, time.perf_counter()
    while frames == 0 or time.perf_counter() - started < seconds:
        frames += _decoded(ref, settings).facts.num_frames
    rate = frames / (time.perf_counter() - started)
    info = describe(str(path))
    return DecodingSpeed(kind, info.height or 0, info.width or 0, rate), video


def _decoded(ref: VideoRef, settings: DecodeSettings) -> DecodedVideo:
    outcome = decode_video(ref, settings)
    if isinstance(outcome, Failure):
        raise MediaError(outcome.message, stage=outcome.stage)
    return outcome


def encoding_speed(backbone: Backbone, precision: Precision, video: DecodedVideo, seconds: float) -> EncodingSpeed:
    """Encode a decoded video again and again, by the engine that `extract` would choose if it had a minute's work.

    Raises EngineError and NoMemoryError.
    """
    batch_pictures = default_batch_pictures(backbone, precision)
    encoder = Encoder(
        backbone,
        batch_pictures=batch_pictures,
        precision=precision,
        engine="auto",
        expected_videos=_expected_videos(backbone, precision, video, batch_pictures),
    )
    # Chooses the engine.
    _drain(encoder, video, batch_pictures)
    frames, started = 0, time.perf_counter()
    while frames == 0 or time.perf_counter() - started < seconds:
        frames += _drain(encoder, video, batch_pictures)
    rate = frames / (time.perf_counter() - started)
    return EncodingSpeed(precision, ", ".join(encoder.engines), backbone.feeding.crop, rate)


def _drain(encoder: Encoder, video: DecodedVideo, batch_pictures: int) -> int:
    """Encode as many frames as fill a batch; how many those were."""
    videos = -(-batch_pictures // len(video.pixels))
    for position in range(videos):
        for _ in encoder.add(position, replace(video, times=None)):
            pass
    for _ in encoder.flush():
        pass
    return videos * len(video.pixels)


def _expected_videos(backbone: Backbone, precision: Precision, video: DecodedVideo, batch_pictures: int) -> int:
    engine = EagerEngine(backbone, precision)
    batch = PictureBatch.of_frames(torch.from_numpy(video.pixels)[:batch_pictures])
    times = []
    for _ in range(2):
        started = time.perf_counter()
        engine(batch).cpu()
        times.append(time.perf_counter() - started)
    return max(round(_WORTH_SECONDS / (min(times) * len(video.pixels) / len(batch))), 1)


def forecast(
    videos: int, encoding: EncodingSpeed, decoding: DecodingSpeed, dim: int, cores: int, device: str
) -> Forecast:
    """Time and disk for `videos` videos of 64 frames.

    Beside a GPU, decoding by all cores and encoding overlap; on a CPU they share the cores.
    """
    encode = _FRAMES_PER_VIDEO / encoding.frames_per_second
    decode = _FRAMES_PER_VIDEO / decoding.frames_per_second / cores
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
            f"{some.videos:,} videos of {_FRAMES_PER_VIDEO} frames, {CLIPS_PER_VIDEO} clips each: a file of "
            f"{gigabytes(some.disk_bytes)}, twice that while it is being written",
        )
    ]
    checks += [Check("forecast", "ok", f"{one.kind}, {one.precision}: {_duration(one.seconds)}") for one in forecasts]
    return checks


def _duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 5.1 h, 3.2 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
