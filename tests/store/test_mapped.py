from __future__ import annotations

import dataclasses

import fsspec
import h5py
import numpy as np
import pytest

from panecho_embed.errors import StoreError
from panecho_embed.records import Manifest, VideoFacts
from panecho_embed.remote import cached
from panecho_embed.store import EmbeddingFile, EmbeddingWriter
from panecho_embed.store.mapped import fletcher32, gather_by_reading, rows_on_disk
from tests.conftest import refs

DIM, ROWS = 2048, 150


@pytest.fixture(scope="module")
def values():
    # 32 float32 rows a chunk, 64 of float16: whole chunks and a part of one.
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


def repacked(path, **layout):
    """The same file with its embeddings laid out in another way."""
    with h5py.File(path, "a") as file:
        values = file["embeddings"][...]
        del file["embeddings"]
        file.create_dataset("embeddings", data=values, **layout)
    return path


LAYOUTS = {
    "one piece": {},
    "no checksum": {"chunks": (7, DIM)},
    "packed": {"chunks": (32, DIM), "compression": "gzip"},
    "halves of rows": {"chunks": (32, DIM // 2), "fletcher32": True},
}


def check(rows, expected):
    assert rows.shape == expected.shape
    assert rows.dtype == expected.dtype
    assert len(rows) == len(expected)
    for some in (5, -1, slice(None), slice(30, 70), slice(140, 999), slice(70, 30), slice(100, None, -7)):
        np.testing.assert_array_equal(rows[some], expected[some])
    for some in ([7, 3, 3, -1, 149], [], np.array([[0, 1], [64, 63]]), expected[:, 0] > 0):
        np.testing.assert_array_equal(rows[some], expected[np.asarray(some, dtype=None if len(some) else int)])
    np.testing.assert_array_equal(np.asarray(rows), expected)
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_of_a_map_are_those_that_are_read(write, dtype):
    file = EmbeddingFile(write(dtype))
    assert file.mapped().mapped
    check(file.mapped(), file.embeddings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_give_the_same_rows(write, values, layout):
    rows = EmbeddingFile(repacked(write(), **LAYOUTS[layout])).mapped()
    assert rows.mapped == (layout in ("one piece", "no checksum"))
    check(rows, values)


def test_numbers_of_the_other_byte_order_stay_so(write, values):
    path = repacked(write())
    with h5py.File(path, "a") as file:
        del file["embeddings"]
        file.create_dataset("embeddings", data=values.astype(">f4"), chunks=(32, DIM))
    file = EmbeddingFile(path)
    assert file.mapped().mapped
    check(file.mapped(), file.embeddings)


def test_chunks_that_were_never_written_are_zeros(write):
    path = write()
    with h5py.File(path, "a") as file:
        del file["embeddings"]
        file.create_dataset("embeddings", (150, DIM), "f4", chunks=(32, DIM))[40:50] = 1
    with h5py.File(path) as file:
        assert not rows_on_disk(file["embeddings"], lambda *_: None).mapped


def test_an_empty_file_has_no_rows(write):
    rows = EmbeddingFile(write(count=0)).mapped()
    assert np.asarray(rows).shape == rows[:].shape == rows[[]].shape == (0, DIM)
    assert not rows.mapped


@pytest.mark.parametrize(("some", "message"), [(150, "there are 150"), ([-151], "150"), ([0.5], "whole numbers")])
def test_rows_that_are_not_there_are_refused(write, some, message):
    with pytest.raises(IndexError, match=message):
        EmbeddingFile(write()).mapped()[some]


def test_a_mask_of_another_length_is_refused(write):
    with pytest.raises(IndexError, match=r"\(3,\); there are 150 rows"):
        EmbeddingFile(write()).mapped()[np.ones(3, dtype=bool)]


def test_a_file_cut_short_is_an_error_and_no_crash(write):
    path = write()
    with EmbeddingFile(path) as file:
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size // 2)
        with pytest.raises(StoreError, match=r"x\.h5: .*damaged.*its rows go to byte"):
            file.mapped()


def test_a_place_beyond_the_end_is_an_error_and_no_crash(write):
    path = write()
    with h5py.File(path) as file:
        place = file["embeddings"].id.get_chunk_info(1).byte_offset
    content = path.read_bytes()
    assert content.count(place.to_bytes(8, "little")) == 1
    path.write_bytes(content.replace(place.to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")))
    with pytest.raises(StoreError, match="damaged"):
        EmbeddingFile(path).mapped()


def test_a_place_near_the_end_of_all_numbers_is_an_error_and_no_crash(write):
    path = write()
    with h5py.File(path) as file:
        place = file["embeddings"].id.get_chunk_info(1).byte_offset
    content = path.read_bytes().replace(place.to_bytes(8, "little"), ((1 << 63) - 200).to_bytes(8, "little"))
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        EmbeddingFile(path).mapped()


@pytest.mark.parametrize("some", [40, slice(30, 50), [149, 40, 2], slice(None)])
def test_a_flipped_bit_is_an_error_and_no_other_number(write, values, some):
    path = write()
    with h5py.File(path) as file:
        place = file["embeddings"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 8 * 4 * DIM + 5] ^= 1
    path.write_bytes(content)
    rows = EmbeddingFile(path).mapped()
    with pytest.raises(StoreError, match=r"x\.h5 is damaged: rows 32 to 63 do not match their checksum"):
        rows[some]
    np.testing.assert_array_equal(rows[[1, 149]], values[[1, 149]])


@pytest.mark.parametrize("words", [1, 359, 360, 361, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("kind", ["random", "zeros", "ones"])
def test_checksums_are_those_of_hdf5(tmp_path, words, kind):
    data = np.random.default_rng(words).integers(0, 256, 2 * words, dtype=np.uint8)
    data = {"random": data, "zeros": 0 * data, "ones": 0 * data + 255}[kind]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=data, chunks=data.shape, fletcher32=True)
        _, stored = file["x"].id.read_direct_chunk((0,))
    checksum = int.from_bytes(stored[-4:], "little")
    assert fletcher32(data) == (checksum % 2**16 % 65_535, (checksum >> 16) % 65_535)


def test_a_map_stays_when_the_file_is_replaced(write, values, tmp_path):
    path = write()
    rows = EmbeddingFile(path).mapped()
    other = tmp_path / "other.h5"
    other.write_bytes(b"nothing")
    other.replace(path)
    np.testing.assert_array_equal(rows[-3:], values[-3:])


def test_another_file_in_its_place_is_noticed(write):
    file = EmbeddingFile(write())
    write(count=10)
    with pytest.raises(StoreError, match="replaced by another file"):
        file.mapped()


def test_rows_that_are_not_finite_are_found(write):
    path = write()
    with h5py.File(path, "a") as file:
        file["embeddings"][3, 7] = np.nan
        file["embeddings"][149, 0] = np.inf
    assert EmbeddingFile(path).mapped().not_finite().tolist() == [3, 149]


def test_reading_asks_for_neighbours_together(values):
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return values[start:stop]

    gather = gather_by_reading(read, values.shape, values.dtype)
    np.testing.assert_array_equal(gather(np.array([9, 4, 3, 9])), values[[9, 4, 3, 9]])
    assert asked == [(3, 5), (9, 10)]


def test_a_map_of_a_fetched_file_stays_when_another_is_fetched_for_it(write, values, tmp_path, monkeypatch):
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "cache"))
    url, there = "memory://mapped/x.h5", fsspec.filesystem("memory")
    there.pipe("/mapped/x.h5", write().read_bytes())
    copy = cached(url)
    rows = EmbeddingFile(copy).mapped()
    there.pipe("/mapped/x.h5", write(count=10).read_bytes())
    assert len(EmbeddingFile(cached(url)).mapped()) == 10
    assert not copy.exists()
    np.testing.assert_array_equal(rows[-3:], values[-3:])
