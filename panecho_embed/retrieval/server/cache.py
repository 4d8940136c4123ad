"""Pictures and clips made once, kept in memory up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from panecho_embed.media.pictures import Picture

Key = tuple[str, str]


class PictureCache:
    """Makes a picture once, however many ask for it, and forgets those longest unused.

    limit_bytes: of all pictures kept. workers: how many are made at the same time.
    """

    def __init__(self, limit_bytes: int, workers: int = 2) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[Key, Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._makers: dict[Key, threading.Lock] = {}
        self._slots = threading.Semaphore(workers)

    def get(self, key: Key, make: Callable[[], Picture]) -> Picture:
        """The picture of `key`, made by `make` if it is not there; what `make` raises is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            maker = self._makers.setdefault(key, threading.Lock())
        with maker:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            try:
                with self._slots:
                    made = make()
            finally:
                with self._lock:
                    self._makers.pop(key, None)
            self._keep(key, made)
            return made

    def _keep(self, key: Key, picture: Picture) -> None:
        size = len(picture.content)
        if size > self._limit:
            return
        with self._lock:
            replaced = self._kept.pop(key, None)
            self._bytes += size - (0 if replaced is None else len(replaced.content))
            self._kept[key] = picture
            while self._bytes > self._limit:
                self._bytes -= len(self._kept.popitem(last=False)[1].content)
