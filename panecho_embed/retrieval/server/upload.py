"""A video that comes with a request: taken in within limits, embedded, and gone again."""

from __future__ import annotations

import asyncio
import base64
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from panecho_embed.core.errors import MediaError
from panecho_embed.media import VIDEO_SUFFIXES
from panecho_embed.retrieval.collection import UnknownIdError
from panecho_embed.retrieval.server.preview import previewed

if TYPE_CHECKING:
    from panecho_embed.retrieval.embed_new import Embedder, NewVideos

SUFFIXES = frozenset({*VIDEO_SUFFIXES, ".dcm"})
"""The part of a file's name that is used; everything else is recognised by content."""


_MOST_AT_ONCE = 3
"""One that is answered and two that wait for it; each holds a thread, of which the page needs some too."""

_LOOK_SECONDS = 0.25
"""Between two looks at whether somebody still waits for the answer."""

_GRACE_SECONDS = 5.0
"""After the time of an upload is over, until a decoder that does not heed it is ended by force."""


_KEPT_SECONDS = 1800.0
_KEPT_AT_MOST = 64
"""How long, and how many, embeddings of uploads are kept in memory: another question needs no second upload."""


class UploadError(Exception):
    """An upload that is refused. status: of the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What an upload may take.

    megabytes: its size. frames: that have to be encoded. seconds: to arrive, and again to be decoded, encoded and
    pictured once its turn has come; loading the model does not count.
    """

    megabytes: float = 256.0
    frames: int = 2000
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded video: its embedding, and a moving picture of it as a data: address."""

    new: NewVideos
    preview: str


class _Patience:
    """Ends the work on an upload, when called, once its time is over or nobody waits for it; see `GoOn`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = float("inf")
        self.gone = threading.Event()

    def begin(self) -> None:
        """The time begins to run."""
        self._end = time.monotonic() + self._seconds

    def __call__(self) -> None:
        if self.gone.is_set():
            raise UploadError(400, "the upload broke off")
        if time.monotonic() > self._end:
            raise UploadError(
                408,
                f"decoding and encoding the upload took longer than {self._seconds:g} s, the most that is allowed; "
                "cut the video, or let `serve --max-upload-seconds` allow more",
            )


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

        Raises UploadError for what is too large, too long, too slow or no video, and where two others wait already.
        What nobody waits for any more is given up.
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
                async with asyncio.timeout(self.limits.seconds):
                    size = await self._receive(request, path, limit)
            except TimeoutError as error:
                raise UploadError(
                    408,
                    f"the upload took longer than {self.limits.seconds:g} s to arrive, the most that is allowed; "
                    "`serve --max-upload-seconds` allows more",
                ) from error
            except ClientDisconnect as error:
                raise UploadError(400, "the upload broke off") from error
            if size == 0:
                raise UploadError(422, "the upload holds 0 bytes")
            patience = _Patience(self.limits.seconds)
            watch = asyncio.create_task(_watch(request, patience.gone))
            try:
                return await run_in_threadpool(self._embed, path, patience)
            finally:
                watch.cancel()

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
        return UploadError(
            413,
            f"the upload is larger than {self.limits.megabytes:g} MB, the most that is taken; "
            "`serve --max-upload-mb` takes more",
        )

    def _embed(self, path: Path, patience: _Patience) -> Upload:
        with self._turn(patience):
            if self._embedder is None:
                self._embedder = self._make()
            patience.begin()
            longest = self.limits.seconds + _GRACE_SECONDS
            try:
                # The picture is made by another process, beside the embedding.
                with previewed(path, longest, patience) as picture:
                    new = self._embedder.embed(
                        path, timeout_seconds=longest, most_frames=self.limits.frames, go_on=patience
                    )
                    shown = picture()
            except MediaError as error:
                reason = str(error).removeprefix(f"{path.name}: ").removesuffix(f" [{error.stage}]")
                if error.stage == "frames":
                    raise UploadError(
                        413, f"the upload is too long: {reason}; cut it, or let `serve --max-upload-frames` take more"
                    ) from error
                raise UploadError(422, f"no video could be read from the upload: {reason}") from error
        data = base64.b64encode(shown.content).decode("ascii")
        return Upload(new, f"data:{shown.media_type};base64,{data}")

    @contextmanager
    def _turn(self, patience: _Patience) -> Iterator[None]:
        """The model, for one upload at a time; abandoned uploads leave the line."""
        while not self._lock.acquire(timeout=_LOOK_SECONDS):
            patience()
        try:
            yield
        finally:
            self._lock.release()


async def _watch(request: Request, gone: threading.Event) -> None:
    """Note when the client is gone."""
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOK_SECONDS)
    gone.set()


class KeptUploads:
    """The embeddings of the newest uploads under names that can't be guessed; of their files there is nothing."""

    def __init__(self, seconds: float = _KEPT_SECONDS, at_most: int = _KEPT_AT_MOST) -> None:
        self._seconds = seconds
        self._at_most = at_most
        self._kept: OrderedDict[str, tuple[float, NewVideos]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, new: NewVideos) -> str:
        """A new name for an upload's embedding."""
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._forget()
            self._kept[name] = (time.monotonic() + self._seconds, new)
            if len(self._kept) > self._at_most:
                self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> NewVideos:
        """The embedding of that name. Raises UnknownIdError for what is not kept, or not any more."""
        with self._lock:
            self._forget()
            if name not in self._kept:
                raise UnknownIdError("the upload is not kept any more; send it again")
            return self._kept[name][1]

    def _forget(self) -> None:
        now = time.monotonic()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)
