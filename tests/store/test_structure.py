"""Embedding files from anybody: what HDF5 can do beyond holding numbers is refused before anything is read."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from panecho_embed.errors import StoreError
from panecho_embed.store import EmbeddingFile, merge, verify
from panecho_embed.store.heaps import check_heaps
from tests.conftest import refs


@pytest.fixture
def path(make_file):
    return make_file("x.h5", refs("p/s/a", "p/s/b", "q/t/c"), [2, 0, 3], {"EF": np.array([1.0, 2.0, 3.0])})


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_bytes(b"of another file " * 1000)
    return file


def exchange(path, name, **how):
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, **how)


def assert_refused(path, match):
    with pytest.raises(StoreError, match=match):
        EmbeddingFile(path)
    assert len(verify(path)) == 1


def test_values_in_another_file_are_not_read(path, secret):
    exchange(path, "embeddings", shape=(5, 5), dtype="f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    assert_refused(path, "/embeddings keeps its values in another file")


def test_a_virtual_data_set_is_not_read(path, secret):
    layout = h5py.VirtualLayout((5, 5), "f4")
    layout[...] = h5py.VirtualSource(str(secret), "embeddings", (5, 5), "f4")
    with h5py.File(path, "r+") as file:
        del file["embeddings"]
        file.create_virtual_dataset("embeddings", layout)
    assert_refused(path, "/embeddings keeps its values in another file")


@pytest.mark.parametrize("name", ["embeddings", "videos", "videos/path", "labels/EF"])
@pytest.mark.parametrize("link", [h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/rows/frame_step")])
def test_links_are_not_followed(path, name, link):
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = link
    with pytest.raises(StoreError, match=r"x\.h5"):
        EmbeddingFile(path)


@pytest.mark.parametrize("chunks", [None, (1024, 5)])
def test_rows_that_are_claimed_and_not_there(path, chunks):
    exchange(path, "embeddings", shape=(10**9, 5), dtype="f4", chunks=chunks)
    assert_refused(path, "/embeddings claims 20000000000 bytes, of which the file holds 0")


def test_a_text_that_unfolds_beyond_the_file(path):
    """Many entries that all point to one long text."""
    with h5py.File(path, "r+") as file:
        del file["failures/message"]
        column = file.create_dataset("failures/message", shape=(1,), dtype=h5py.string_dtype("utf-8"))
        column[0] = "a" * 60_000
        entry, offset = column.id.get_storage_size(), column.id.get_offset()
        many = file.create_dataset("failures/many", shape=(100_000,), dtype=h5py.string_dtype("utf-8"))
        many[0] = "b"
        target = many.id.get_offset()
    data = bytearray(path.read_bytes())
    data[target : target + 1_600_000] = data[offset : offset + entry] * 100_000
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        del file["failures/message"]
        file.move("failures/many", "failures/message")
    assert_refused(path, "/failures/message claims 6000000000 bytes of text")


@pytest.mark.parametrize("filters", [{"compression": "lzf"}, {"scaleoffset": 3}])
def test_filters_that_are_not_ours(path, filters):
    exchange(path, "embeddings", data=np.zeros((5, 5), "f4"), chunks=True, **filters)
    assert_refused(path, "/embeddings is packed with filters")


def test_compressed_rows_are_read(path):
    exchange(path, "embeddings", data=np.ones((5, 5), "f4"), compression="gzip", shuffle=True)
    assert verify(path) == []


@pytest.mark.parametrize("dtype", [h5py.ref_dtype, h5py.vlen_dtype(np.int32), "S12", "c8", [("a", "f4")]])
def test_types_that_are_not_ours(path, dtype):
    exchange(path, "videos/view", shape=(3,), dtype=dtype)
    assert_refused(path, "/videos/view holds")


def test_a_loop_in_the_heap_of_the_texts_is_no_endless_loop(path):
    """A flipped bit can leave an object of no size, at which the HDF5 library turns on the spot for ever."""
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 18] = b"\0\0"
    data[heap + 24 : heap + 32] = bytes(8)
    path.write_bytes(data)
    code = "import sys; from panecho_embed.store import verify; print(verify(sys.argv[1]))"
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert "its texts are damaged" in found.stdout


def test_a_heap_beyond_the_file(path):
    with pytest.raises(ValueError, match="point to places where none are"):
        check_heaps(path, np.array([path.stat().st_size - 4], dtype=np.uint64))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dim": "5"}, "dim is '5'; it must be int"),
        ({"weights": 3}, "no record of settings"),
        ({"preprocess": {"resize": "x"}}, "no record of settings"),
        ({"versions": 3}, "no record of settings"),
        ({"level": "x"}, "level is 'x'"),
        ({"include_stills": 1}, "include_stills is '1'; it must be bool"),
    ],
)
def test_a_provenance_that_is_none(path, change, match):
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = json.dumps(json.loads(file.attrs["provenance"]) | change)
    assert_refused(path, match)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 20_000, '{"weights": 1e999}'])
def test_a_provenance_that_is_no_record(path, text):
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = text
    assert_refused(path, "its provenance can't be read")


@pytest.mark.parametrize("value", [7, np.zeros(3), np.array(["clip"], dtype=object), b"\xff"])
def test_attributes_of_another_type(path, value):
    with h5py.File(path, "r+") as file:
        file.attrs["level"] = value
    assert_refused(path, r"attribute level is no text")


def test_a_failure_without_a_reason_stops_the_merge(path, provenance, tmp_path):
    file = EmbeddingFile(path)
    exchange(path, "failures/video_id", data=np.array(["other"], dtype=object), dtype=h5py.string_dtype("utf-8"))
    with pytest.raises(StoreError, match="b is 'failed', and /failures says not why"):
        merge([path], file.manifest(), provenance, tmp_path / "merged.h5")


def test_names_that_are_no_utf8_have_their_tables(make_file):
    videos = refs("v\udcff")
    file = EmbeddingFile(make_file("y.h5", videos, [1]))
    assert file.videos["video_id"].tolist() == file.rows["video_id"].tolist() == ["v\udcff"]
