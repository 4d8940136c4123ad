"""Look at everything that `extract` needs on this machine, and try out how fast it is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from panecho_embed.checkup.findings import Check, Checkup, DecodingSpeed, EncodingSpeed, Forecast, Status
from panecho_embed.checkup.machine import (
    check_decoders,
    check_device,
    check_engines,
    check_precisions,
    check_space,
    check_weights,
    fast_precisions,
    file_bytes,
)
from panecho_embed.checkup.speed import decoding_speed, encoding_speed, forecast, forecast_checks, phantom_videos
from panecho_embed.core.cores import usable_cores
from panecho_embed.core.errors import ArgumentError, EngineError, MediaError, NoMemoryError, StoreError
from panecho_embed.extraction.decode import DecodedVideo
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.backbones import load_backbone

_MEND_MEDIA = "pip install --force-reinstall opencv-python-headless av pydicom"


def doctor(
    out: str | Path = ".",
    *,
    videos: int = 1000,
    seconds: float = 10.0,
    device: str = "auto",
    told: Callable[[Check], object] = lambda check: None,
) -> Checkup:
    """Check whether this machine can run `extract`, how fast, and what is missing. Uses no network.

    Parameters
    ----------
    out : str or Path
        Folder, or file, that would be written.
    videos : int
        Number of videos to forecast time and disk space for.
    seconds : float
        Duration of the trial of encoding and decoding, 0 to 3600; 0 skips it and the forecast of time.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    told : callable
        Called with every finding as soon as it is known.

    Returns
    -------
    Checkup
        The findings; every warning and problem says what to do about it.

    Raises
    ------
    ArgumentError
        For numbers that are not allowed.
    """
    if videos < 1:
        raise ArgumentError(f"videos is {videos}; it must be 1 or more (--videos)")
    if not 0 <= seconds <= 3600:
        raise ArgumentError(f"seconds is {seconds:g}; allowed are 0 to 3600 (--seconds)")
    checks: list[Check] = []

    def tell(found: Iterable[Check]) -> None:
        for check in found:
            checks.append(check)
            told(check)

    where, found = check_device(device)
    tell(found)
    if where is not None:
        tell(check_precisions(where))
        tell(check_engines(where))
    tell(check_decoders())
    tell(check_weights())
    backbone = load_backbone("random")
    tell(check_space(out, file_bytes(videos, backbone.dim)))
    trial = _Trial(tell)
    forecasts: list[Forecast] = []
    if seconds and where is not None:
        trial.run(backbone.to(where), seconds)
        forecasts = [
            forecast(videos, encoding, decoding, backbone.dim, usable_cores(), where.type)
            for decoding in trial.decoding
            for encoding in trial.encoding
        ]
        tell(forecast_checks(forecasts))
    return Checkup(tuple(checks), tuple(trial.encoding), tuple(trial.decoding), tuple(forecasts))


class _Trial:
    """Encodes and decodes for a while, and keeps how fast that was."""

    def __init__(self, tell: Callable[[Iterable[Check]], object]) -> None:
        self.encoding: list[EncodingSpeed] = []
        self.decoding: list[DecodingSpeed] = []
        self._tell = tell

    def run(self, backbone: Backbone, seconds: float) -> None:
        """A fifth of the time goes to decoding, the rest to encoding in fp32 and the fastest half precision."""
        try:
            with tempfile.TemporaryDirectory(prefix="panecho-embed-doctor-") as folder:
                video = self._decode(phantom_videos(Path(folder)), backbone, seconds / 10)
        except (OSError, StoreError) as error:
            text = f"not tried: phantom videos can't be written for it: {error}"
            self._tell([Check("speed", "warning", text, "set $TMPDIR to a folder with room")])
            return
        if video is not None:
            self._encode(backbone, video, 0.8 * seconds)

    def _decode(self, files: dict[str, Path], backbone: Backbone, seconds: float) -> DecodedVideo | None:
        last, failed = None, []
        for kind, path in files.items():
            try:
                speed, last = decoding_speed(kind, path, backbone, seconds)
            except MediaError as error:
                failed.append(f"{kind}: a phantom video can't be decoded: {error}")
                continue
            self.decoding.append(speed)
            text = f"decoding {kind}, {speed.width} x {speed.height}: {speed.frames_per_second:,.0f} frames/s a core"
            self._tell([Check("speed", "ok", text)])
        status: Status = "warning" if last is not None else "problem"
        self._tell(Check("speed", status, text, _MEND_MEDIA) for text in failed)
        return last

    def _encode(self, backbone: Backbone, video: DecodedVideo, seconds: float) -> None:
        precisions = list(fast_precisions(backbone.device))[:2]
        for precision in precisions:
            try:
                speed = encoding_speed(backbone, precision, video, seconds / len(precisions))
            except (EngineError, NoMemoryError, torch.OutOfMemoryError) as error:
                bad: Status = "problem" if precision == "fp32" else "warning"
                mend = "take another --device, or a machine with more memory"
                self._tell([Check("speed", bad, f"encoding in {precision}: {error}", mend)])
                continue
            self.encoding.append(speed)
            text = (
                f"encoding {speed.image_size} x {speed.image_size} in {precision}: {speed.frames_per_second:,.1f} "
                f"frames/s by the engine {speed.engine}"
            )
            self._tell([Check("speed", "ok", text)])
