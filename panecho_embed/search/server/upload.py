"""A video that comes with a request: taken in within limits, embedded, and gone again."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from panecho_embed.errors import MediaError
from panecho_embed.media import VIDEO_SUFFIXES, open_cine
from panecho_embed.pictures import DEFAULT_FPS, thumbnail_of

if TYPE_CHECKING:
    from panecho_embed.search.embed_new import Embedder, NewVideos

SUFFIXES = frozenset({*VIDEO_SUFFIXES, ".dcm"})
"""The part of a file's name that is used; everything else is recognised by content."""


_MOST_AT_ONCE = 3
"""One that is answered and two that wait for it; each holds a thread, of which the page needs some too."""


class UploadError(Exception):
    """An upload that is refused. status: of the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What an upload may take: its size, the time it may take to arrive, and the time to decode it."""

    megabytes: float = 256.0
    receive_seconds: float = 120.0
    decode_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded video: its embedding, and a moving picture of it as a data: address."""

    new: NewVideos
    preview: str


class Uploads:
    """Takes videos in, one at a time on the model.

    embedder: makes the model at the first upload; weights may be large, and a page that is only looked at needs none.
    """

    def __init__(self, embedder: Callable[[], Embedder], limits: UploadLimits) -> None:
        self.limits = limits
        self._make = embedder
        self._embedder: Embedder | None = None
        self._lock = threading.Lock()
        self._taken = 0

    async def take(self, request: Request, name: str) -> Upload:
        """Receive the body of a request and embed it; nothing of it is left afterwards.

        Raises UploadError for what is too large, too slow or no video, and where two others wait already.
        """
        if self._taken >= _MOST_AT_ONCE:
            raise UploadError(503, "another upload is being answered; try again in a while")
        self._taken += 1
        try:
            return await self._take(request, name)
        finally:
            self._taken -= 1

    async def _take(self, request: Request, name: str) -> Upload:
        limit = int(self.limits.megabytes * 2**20)
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise self._too_large()
        suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
        with tempfile.TemporaryDirectory(prefix="panecho-embed-upload-") as folder:
            # The name is ours; of the client's, only a known suffix is used.
            path = Path(folder) / f"upload{suffix if suffix in SUFFIXES else ''}"
            try:
                async with asyncio.timeout(self.limits.receive_seconds):
                    size = await self._receive(request, path, limit)
            except TimeoutError as error:
                raise UploadError(408, f"the upload took longer than {self.limits.receive_seconds:g} s") from error
            except ClientDisconnect as error:
                raise UploadError(400, "the upload broke off") from error
            if size == 0:
                raise UploadError(422, "the upload holds 0 bytes")
            return await run_in_threadpool(self._embed, path)

    async def _receive(self, request: Request, path: Path, limit: int) -> int:
        size = 0
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise self._too_large()
                file.write(chunk)
        return size

    def _too_large(self) -> UploadError:
        return UploadError(413, f"the upload is larger than {self.limits.megabytes:g} MB")

    def _embed(self, path: Path) -> Upload:
        try:
            with self._lock:
                if self._embedder is None:
                    self._embedder = self._make()
                new = self._embedder.embed(path, timeout_seconds=self.limits.decode_seconds)
            cine = open_cine(path, include_stills=True)
            picture = thumbnail_of(cine, cine.fps or DEFAULT_FPS, side=320)
        except MediaError as error:
            reason = str(error).removeprefix(f"{path.name}: ").removesuffix(f" [{error.stage}]")
            raise UploadError(422, f"no video could be read from the upload: {reason}") from error
        data = base64.b64encode(picture.content).decode("ascii")
        return Upload(new, f"data:{picture.media_type};base64,{data}")
