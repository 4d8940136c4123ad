"""Who may write: what is said where locks outlive their process."""

from __future__ import annotations

import errno
import fcntl

import pytest

from panecho_embed.core.errors import StoreError
from panecho_embed.core.shards import Shard
from panecho_embed.store.lock import RunLock


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize(
    ("name", "shard"), [(".lock", None), (".shard-1-of-2.lock", None), (".shard-1-of-2.lock", Shard(1, 2))]
)
def test_without_flock_the_file_to_remove_and_its_machine_are_named(tmp_path, monkeypatch, name, shard):
    def missing(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    monkeypatch.setattr("panecho_embed.store.lock._MOMENT_SECONDS", 0.2)
    folder = tmp_path / "out.h5.parts"
    folder.mkdir()
    left = folder / name
    left.write_text("4711\nanother-machine\n")
    lock = RunLock(folder, shard)
    with pytest.raises(StoreError, match=r"process 4711 on another-machine .* remove .*\.lock"):
        lock.acquire()
    left.unlink()
    lock.acquire()
    lock.release()


def test_with_flock_nothing_is_to_be_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("panecho_embed.store.lock._MOMENT_SECONDS", 0.2)
    one, other = (RunLock(tmp_path / "out.h5.parts") for _ in range(2))
    one.acquire()
    with pytest.raises(StoreError, match="another run is writing") as caught:
        other.acquire()
    one.release()
    assert "remove" not in str(caught.value)
