"""Embeddings of uploads, kept in memory for a while: another question needs no second upload."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from panecho_embed.search.collection import UnknownIdError

if TYPE_CHECKING:
    from panecho_embed.search.embed_new import NewVideos

KEPT_SECONDS = 1800.0
KEPT_AT_MOST = 64


class KeptUploads:
    """The embeddings of the newest uploads under names that can't be guessed; of their files there is nothing."""

    def __init__(self, seconds: float = KEPT_SECONDS, at_most: int = KEPT_AT_MOST) -> None:
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
