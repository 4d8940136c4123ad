"""Buckets of a server that a test starts, by the scheme of their URLs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from panecho_embed.core import remote


@contextmanager
def bucket_of(scheme: str, studies: Path) -> Iterator[str]:
    """SCHEME://echos-N, with the studies in `videos`."""
    forget(scheme)
    system = fsspec.filesystem(scheme)
    name = f"echos-{os.urandom(4).hex()}"
    system.mkdir(name)
    system.put(f"{studies}/", f"{name}/videos/", recursive=True)
    yield f"{scheme}://{name}"
    forget(scheme)


def forget(scheme: str) -> None:
    """fsspec keeps a connection for as long as a process; another server needs another."""
    fsspec.get_filesystem_class(scheme).clear_instance_cache()
    remote.sizes_and_times.cache_clear()


def names_in(bucket: str) -> list[str]:
    """What is in it beside the videos."""
    system = fsspec.filesystem(bucket.partition("://")[0])
    system.invalidate_cache()
    return sorted(name.partition("/")[2] for name in system.find(bucket) if "/videos/" not in name)
