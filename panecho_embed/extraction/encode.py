"""Decoded videos -> embeddings: every picture encoded once, batches filled across videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from panecho_embed.core.arraytypes import FloatArray, UInt8Array
from panecho_embed.core.errors import NoMemoryError
from panecho_embed.core.planes import CHANNELS, Pictures
from panecho_embed.core.progress import Announce, silent
from panecho_embed.core.provenance import Precision, StoredType
from panecho_embed.core.records import EngineBackend, Failure, VideoFacts
from panecho_embed.core.workers import GoOn
from panecho_embed.extraction.choose import check_backend, choose_engine
from panecho_embed.extraction.clip_engine import ClipEngine
from panecho_embed.extraction.decode import DecodedVideo
from panecho_embed.extraction.image_engine import EagerEngine, ImageEngine, PictureBatch, is_out_of_memory
from panecho_embed.extraction.profile import Profile
from panecho_embed.models.backbones import Backbone


@dataclass(frozen=True, slots=True, eq=False)
class EncodedVideo:
    """The rows of one video.

    values: for every plan (N, D) as stored, or a Failure where they are not finite: half precision can overflow. At
    frame level there is one, (T, D).
    """

    values: tuple[FloatArray | Failure, ...]
    facts: VideoFacts


@dataclass(slots=True)
class _Waiting:
    """A video of which some pictures are encoded."""

    position: int
    video: DecodedVideo
    pictures: Pictures
    features: list[torch.Tensor] = field(default_factory=list)
    encoded: int = 0


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """What every video of a run is encoded with, see Encoder. batch_pictures: None for `default_batch_pictures`."""

    precision: Precision
    dtype: StoredType
    engine: EngineBackend
    batch_pictures: int | None

    def encoder(
        self, backbone: Backbone, expected_videos: int, announce: Announce, profile: Profile | None = None
    ) -> Encoder:
        """An encoder with these settings."""
        return Encoder(
            backbone,
            batch_pictures=self.batch_pictures or default_batch_pictures(backbone, self.precision),
            precision=self.precision,
            dtype=self.dtype,
            engine=self.engine,
            expected_videos=expected_videos,
            profile=profile,
            announce=announce,
        )


class Encoder:
    """Encodes videos one after another; a batch of pictures may hold the end of one and the beginning of the next.

    batch_pictures: pictures in one run of the image encoder. clip_batch: clips in one run of the clip encoder. Both are
    halved, with a word to `announce`, when memory does not suffice. A video decoded without clips has a row per frame,
    and the clip encoder is not used.
    engine: what runs the image encoder, see `choose_engine`; it is chosen and checked on the first batch. "eager" runs
    the clip encoder as well; else see `ClipEngine`.
    expected_videos: that will come, so that "auto" knows what pays. profile: counts the time.
    ahead: batches that a GPU computes while the next is prepared (default: 1 on CUDA, else 0).
    go_on: see `GoOn`; called before every run of an encoder.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        batch_pictures: int,
        precision: Precision = "fp32",
        dtype: StoredType = "float32",
        engine: EngineBackend = "eager",
        expected_videos: int = 0,
        clip_batch: int = 64,
        profile: Profile | None = None,
        announce: Announce = silent,
        ahead: int | None = None,
        go_on: GoOn = lambda: None,
    ) -> None:
        check_backend(backbone, engine)
        self.batch_pictures = batch_pictures
        self._image_engines: list[str] = []
        self._backbone = backbone
        self._precision: Precision = precision
        self._dtype = np.dtype(dtype)
        self._backend: EngineBackend = engine
        self._expected_videos = expected_videos
        self._clips = ClipEngine(backbone, precision, engine, announce, clip_batch, go_on)
        self._profile = profile or Profile()
        self._announce = announce
        self._go_on = go_on
        self._ahead = (1 if backbone.device.type == "cuda" else 0) if ahead is None else ahead
        self._engine: ImageEngine | None = None
        self._waiting: deque[_Waiting] = deque()
        self._to_encode: deque[tuple[_Waiting, torch.Tensor]] = deque()
        self._computing: deque[list[tuple[_Waiting, torch.Tensor]]] = deque()
        self._pending = self._seen_pictures = self._seen_videos = 0

    @property
    def engines(self) -> list[str]:
        """What has run so far, for the provenance."""
        return [*self._image_engines, *self._clips.names]

    def add(self, position: int, video: DecodedVideo) -> Iterator[tuple[int, EncodedVideo]]:
        """Take a video in; give back those that this completes, in order.

        Raises NoMemoryError if memory does not suffice for a single picture or clip.
        """
        waiting = _Waiting(position, video, self._backbone.pictures(video.clips, len(video.pixels)))
        planes = torch.from_numpy(waiting.pictures.planes)
        self._waiting.append(waiting)
        self._to_encode.append((waiting, planes))
        self._pending += len(planes)
        self._seen_pictures += len(planes)
        self._seen_videos += 1
        while self._pending >= self.batch_pictures:
            self._encode_batch()
            yield from self._completed(self._ahead)

    def flush(self) -> Iterator[tuple[int, EncodedVideo]]:
        """Encode what waits for a full batch."""
        while self._pending:
            self._encode_batch()
            yield from self._completed(self._ahead)
        yield from self._completed(0)

    def _encode_batch(self) -> None:
        self._go_on()
        shares: list[tuple[_Waiting, torch.Tensor]] = []
        room = self.batch_pictures
        while room and self._to_encode:
            waiting, planes = self._to_encode.popleft()
            shares.append((waiting, planes[:room]))
            if len(planes) > room:
                self._to_encode.appendleft((waiting, planes[room:]))
            room -= len(shares[-1][1])
        with self._profile.measure("transfer"):
            batch = _batch([(waiting.video.pixels, planes) for waiting, planes in shares])
        self._pending -= len(batch)
        features = self._features(batch).split([len(planes) for _, planes in shares])
        self._computing.append([(waiting, share) for (waiting, _), share in zip(shares, features, strict=True)])

    def _features(self, batch: PictureBatch) -> torch.Tensor:
        try:
            if self._engine is None:
                with self._profile.measure("choose"):
                    self._engine = self._choose(batch)
            with self._profile.measure("encode"):
                return self._engine(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = error
        # Outside the handler: the traceback holds on to the tensors that did not fit.
        self._shrink(len(batch), reason)
        encoded: list[torch.Tensor] = []
        while len(batch):
            # Each piece as small as the one before it had to become.
            part, batch = batch[: self.batch_pictures], batch[self.batch_pictures :]
            encoded.append(self._features(part))
        return torch.cat(encoded)

    def _choose(self, batch: PictureBatch) -> ImageEngine:
        expected = self._expected_videos * self._seen_pictures / self._seen_videos
        engine = choose_engine(
            self._backbone, self._backend, self._precision, self.batch_pictures, batch, expected, self._announce
        )
        self._image_engines.append(engine.name)
        return engine

    def _shrink(self, tried: int, reason: Exception) -> None:
        if tried == 1:
            raise NoMemoryError(
                f"memory does not suffice to encode a single picture on {self._backbone.device} "
                f"({str(reason).splitlines()[0]}); a smaller --image-size or another --device may do"
            ) from reason
        self.batch_pictures = tried // 2
        # A compiled engine takes only one number of pictures. One that is yet to be chosen is chosen by fewer.
        if self._engine is not None and self._engine.batch_pictures is not None:
            self._engine = EagerEngine(self._backbone, self._precision)
            self._image_engines.append(self._engine.name)
        if self._backbone.device.type == "cuda":
            torch.cuda.empty_cache()
        self._announce(
            f"memory does not suffice for {tried} pictures at once: {self.batch_pictures} from now on"
            + (f", by the engine {self._engine.name}" if self._engine else "")
            + " (--batch-pictures)"
        )

    def _completed(self, ahead: int) -> Iterator[tuple[int, EncodedVideo]]:
        while len(self._computing) > ahead:
            for waiting, share in self._computing.popleft():
                waiting.features.append(share)
                waiting.encoded += len(share)
        while self._waiting and self._waiting[0].encoded == len(self._waiting[0].pictures.planes):
            done = self._waiting.popleft()
            with self._profile.measure("clip"):
                encoded = self._encoded(torch.cat(done.features or [torch.zeros(0, 1)]), done)
            yield done.position, encoded

    def _encoded(self, pictures: torch.Tensor, waiting: _Waiting) -> EncodedVideo:
        video = waiting.video
        if video.clips is None:
            rows = [pictures]
        else:
            none = pictures.new_zeros(0, self._backbone.dim)
            rows = [self._clips(pictures, clips) if len(clips) else none for clips in waiting.pictures.clips]
        return EncodedVideo(tuple(self._stored(some, video) for some in rows), video.facts)

    def _stored(self, rows: torch.Tensor, video: DecodedVideo) -> FloatArray | Failure:
        values = stored(rows, self._dtype)
        if np.isfinite(values).all():
            return values
        return not_finite(video.video_id, video.path, self._precision, self._dtype)


def _batch(shares: list[tuple[UInt8Array, torch.Tensor]]) -> PictureBatch:
    """The pictures of some videos: frames (U, 3, S, S) of each, and planes (P, 3) of its pictures."""
    planes = [torch.from_numpy(frames).flatten(0, 1)[wanted] for frames, wanted in shares]
    return PictureBatch(torch.cat(planes), torch.cat([wanted for _, wanted in shares]) % CHANNELS)


def stored(embeddings: torch.Tensor, dtype: np.dtype[Any]) -> FloatArray:
    """Embeddings as they are stored; what that type can't hold becomes infinite."""
    with np.errstate(over="ignore"):
        return embeddings.float().cpu().numpy().astype(dtype, copy=False)


def not_finite(video_id: str, path: str, precision: Precision, dtype: np.dtype[Any]) -> Failure:
    """What is said of a video whose embeddings are not finite numbers, computed and stored as that."""
    message = (
        f"the embedding is not finite, computed in {precision} and stored as {dtype} "
        "(--precision fp32 and --dtype float32 have the widest range)"
    )
    return Failure(video_id, path, "encode", message)


def default_batch_pictures(model: Backbone, precision: Precision) -> int:
    """Pictures per run of the encoder that are fast on most machines: 256, and on a CPU what its caches hold.

    There it is 16 pictures of 112 pixels, or as many pixels in pictures of another size, and twice that in half
    precision (benchmarks/encoder_peak.py measures them).
    """
    if model.device.type != "cpu":
        return 256
    frames = 16 * (112 / model.feeding.crop) ** 2 * (1 if precision == "fp32" else 2)
    return min(max(round(frames), 4), 64)
