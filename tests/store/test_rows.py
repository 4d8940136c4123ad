from __future__ import annotations

import dataclasses
import os
import threading

import fsspec
import h5py
import numpy as np
import pytest

from panecho_embed.core.errors import StoreError
from panecho_embed.core.records import Manifest, VideoFacts
from panecho_embed.core.remote import cached
from panecho_embed.store import EmbeddingFile, EmbeddingWriter
from panecho_embed.store.contents import SealedFile, checksum
from panecho_embed.store.rows import npy_rows
from tests.conftest import refs
from tests.resealed import reseal

DIM, ROWS = 16_384, 150


@pytest.fixture(scope="module")
def values():
    # 32 float32 rows a block, 64 of float16: whole blocks and a part of one.
    return np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)


@pytest.fixture
def write(tmp_path, provenance, values):
    def make(dtype="float32", count=ROWS):
        made = dataclasses.replace(provenance, dim=DIM, dtype=dtype)
        with EmbeddingWriter(tmp_path / "x.h5", made) as writer:
            for start in range(0, count, 40):
                rows = values[start : min(start + 40, count)]
                writer.add(0, rows, np.arange(start, start + len(rows)), 1, 16)
            status = "done" if count else "skipped"
            return writer.finish(Manifest(refs("a")), [VideoFacts(status, num_frames=150)], [])

    return make


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_those_of_the_whole_array(write, dtype):
    path = write(dtype)
    with h5py.File(path) as file:
        expected = file["embeddings"][:]
    rows = EmbeddingFile(path).rows_on_disk
    assert rows.shape == expected.shape
    assert rows.dtype == expected.dtype
    assert len(rows) == len(expected)
    for some in (5, -1, np.int64(7), slice(None), slice(30, 70), slice(140, 999), slice(70, 30), slice(100, None, -7)):
        np.testing.assert_array_equal(rows[some], expected[some])
    for some in ([7, 3, 3, -1, 149], [], np.array([[0, 1], [64, 63]]), expected[:, 0] > 0):
        np.testing.assert_array_equal(rows[some], expected[np.asarray(some, dtype=None if len(some) else int)])
    np.testing.assert_array_equal(np.asarray(rows), expected)
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64


def test_an_empty_file_has_no_rows(write):
    rows = EmbeddingFile(write(count=0)).rows_on_disk
    assert np.asarray(rows).shape == rows[:].shape == rows[[]].shape == (0, DIM)


@pytest.mark.parametrize(("some", "message"), [(150, "there are 150"), ([-151], "150"), ([0.5], "whole numbers")])
def test_rows_that_are_not_there_are_refused(write, some, message):
    with pytest.raises(IndexError, match=message):
        EmbeddingFile(write()).rows_on_disk[some]


def test_a_mask_of_another_length_is_refused(write):
    with pytest.raises(IndexError, match=r"\(3,\); there are 150 rows"):
        EmbeddingFile(write()).rows_on_disk[np.ones(3, dtype=bool)]


def test_a_file_cut_while_it_is_in_use_is_an_error_and_no_crash(write, values):
    path = write()
    rows = EmbeddingFile(path).rows_on_disk
    np.testing.assert_array_equal(rows[:], values)
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(rows[3], values[3])
    with pytest.raises(StoreError, match=r"x\.h5 is damaged: it ends at byte"):
        rows[149]
    with pytest.raises(StoreError, match=r"x\.h5 is damaged: it ends at byte"):
        rows[[1, 149]]


@pytest.mark.parametrize("some", [40, slice(30, 50), [149, 40, 2], slice(None)])
def test_a_flipped_bit_is_an_error_and_no_other_number(write, values, some):
    path = write()
    place = SealedFile(path).contents.places["embeddings"].at + 40 * 4 * DIM
    content = bytearray(path.read_bytes())
    content[place + 5] ^= 1
    path.write_bytes(content)
    rows = EmbeddingFile(path).rows_on_disk
    with pytest.raises(StoreError, match=r"x\.h5 is damaged: rows 32 to 63 do not match their checksum"):
        rows[some]
    np.testing.assert_array_equal(rows[[1, 149]], values[[1, 149]])


def test_a_block_is_read_whole_once_and_rows_alone_afterwards(write, values, monkeypatch):
    rows = EmbeddingFile(write()).rows_on_disk
    read = []
    monkeypatch.setattr(
        SealedFile, "read", lambda self, into, at, was=SealedFile.read: read.append(into.nbytes) or was(self, into, at)
    )
    np.testing.assert_array_equal(rows[40], values[40])
    np.testing.assert_array_equal(rows[41], values[41])
    np.testing.assert_array_equal(rows[[45, 33, 62]], values[[45, 33, 62]])
    assert read == [32 * 4 * DIM, *[4 * DIM] * 4]


def test_threads_share_it(write, values):
    rows, bad = EmbeddingFile(write()).rows_on_disk, []

    def read(seed):
        for row in np.random.default_rng(seed).integers(0, ROWS, 300):
            if not np.array_equal(rows[row], values[row]):
                bad.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not bad


def test_rows_stay_those_of_their_file_when_it_is_replaced(write, values, tmp_path):
    path = write()
    rows = EmbeddingFile(path).rows_on_disk
    other = tmp_path / "other.h5"
    other.write_bytes(b"nothing")
    other.replace(path)
    np.testing.assert_array_equal(rows[-3:], values[-3:])


def test_a_closed_file_reads_nothing(write):
    with EmbeddingFile(write()) as file:
        rows = file.rows_on_disk
    with pytest.raises(StoreError, match="was closed"):
        rows[0]


def test_rows_that_are_not_finite_are_found(write):
    path = write()
    reseal(path, "embeddings", lambda v: v.__setitem__(([3, 149], [7, 0]), [np.nan, np.inf]))
    assert EmbeddingFile(path).rows_on_disk.not_finite().tolist() == [3, 149]


def test_rows_of_a_fetched_file_stay_when_another_is_fetched_for_it(write, values, tmp_path, monkeypatch):
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "cache"))
    url, there = "memory://rows/x.h5", fsspec.filesystem("memory")
    there.pipe("/rows/x.h5", write().read_bytes())
    copy = cached(url)
    rows = EmbeddingFile(copy).rows_on_disk
    there.pipe("/rows/x.h5", write(count=10).read_bytes())
    assert len(EmbeddingFile(cached(url)).rows_on_disk) == 10
    assert not copy.exists()
    np.testing.assert_array_equal(rows[-3:], values[-3:])


@pytest.mark.parametrize("count", [1, 7, 8, 4095, 4096, 4097, 50_000])
def test_a_checksum_sees_bits_moves_and_lengths(count):
    chance = np.random.default_rng(count)
    data = chance.integers(0, 256, count, dtype=np.uint8)
    whole = checksum(data)
    for place in chance.integers(0, count, 50):
        data[place] ^= np.uint8(1 << chance.integers(8))
        assert checksum(data) != whole
        data[:] = data
        whole = checksum(data)
    assert checksum(np.append(data, np.uint8(0))) != whole
    assert checksum(data[:-1]) != whole
    if count > 8192:
        assert checksum(np.roll(data, 8)) != whole
        assert checksum(np.roll(data, 4096)) != whole


@pytest.mark.parametrize("damage", [b"((40, 8), }", b"(40, 8), '''", b"(40, 8), ]"])
def test_a_damaged_header_of_an_array_is_told(tmp_path, damage):
    path = tmp_path / "vectors.npy"
    np.save(path, np.ones((40, 8), np.float32))
    content = path.read_bytes()
    place = content.index(b"(40, 8), }")
    path.write_bytes(content[:place] + damage.ljust(20) + content[place + 20 :])
    with pytest.raises(StoreError, match=r"its header is none of a \.npy file"):
        npy_rows(path)
