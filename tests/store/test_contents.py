"""Embedding files from anybody: a table of contents that fits its checksum, and says what it likes."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from panecho_embed.core.errors import EarlierReleaseError, StoreError
from panecho_embed.store import EmbeddingFile, merge, verify
from panecho_embed.store.contents import Place, SealedFile
from tests.conftest import refs
from tests.resealed import reseal, reseal_attributes, write_contents, write_table


@pytest.fixture
def path(make_file):
    return make_file("x.h5", refs("p/s/a", "p/s/b", "q/t/c"), [2, 0, 3], {"EF": np.array([1.0, 2.0, 3.0])})


def assert_refused(path, match):
    with pytest.raises(StoreError, match=match) as caught:
        EmbeddingFile(path)
    assert len(str(caught.value)) < 1000
    assert len(verify(path)) == 1


def exchange(path, name, **changes):
    contents = SealedFile(path).contents
    places = dict(contents.places)
    places[name] = replace(places.get(name, Place(0, np.dtype("<f8"), (0,))), **changes)
    write_contents(path, replace(contents, places=places))


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("embeddings", {"shape": (10**9, 5)}, "reaches beyond its end"),
        ("embeddings", {"shape": (2**61, 5)}, "reaches beyond its end|lies at no place"),
        ("embeddings", {"shape": (5, 0)}, "has shape"),
        ("embeddings", {"shape": (0, 2**40)}, "has shape"),
        ("embeddings", {"shape": (25,)}, "do not match their checksum|/embeddings has shape"),
        ("videos/path", {"at": 2**61}, "reaches beyond its end"),
        ("videos/path", {"at": -1}, "lies at no place"),
        ("videos/path", {"at": 0}, "overlap|headers do not match"),
        ("videos/path", {"dtype": np.dtype("O")}, "holds"),
        ("videos/path", {"dtype": np.dtype("V5")}, "holds"),
        ("videos/path", {"dtype": np.dtype("<M8[s]")}, "holds"),
        ("videos/path", {"checksum": 1}, "/videos/path does not match its checksum"),
        ("videos/path", {"checksum": "x"}, "table of contents"),
    ],
)
def test_a_table_of_contents_that_points_elsewhere(path, name, changes, match):
    exchange(path, name, **changes)
    assert_refused(path, match)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("places"),
        lambda record: record.update(places=[]),
        lambda record: record.update(places={"embeddings": [1]}),
        lambda record: record.update(places={"embeddings": [1, "<f4,<f4", [1], 1]}),
        lambda record: record.update(places={"embeddings": [True, "<f4", [1, 1], 1]}),
        lambda record: record.update(attributes=3),
        lambda record: record.update(attributes={"level": []}),
        lambda record: record.update(headers="x"),
        lambda record: record.update(headers=1e999),
    ],
)
def test_a_table_of_contents_that_is_none(path, change):
    table = SealedFile(path).contents.to_bytes()
    # Its digest follows it, and may hold any byte.
    record, _ = json.JSONDecoder().raw_decode(table.decode("latin-1"))
    change(record)
    write_table(path, json.dumps(record).encode())
    assert_refused(path, "table of contents is none")


@pytest.mark.parametrize("table", [b"", b"[]", b"[" * 100_000, b"\xff" * 100])
def test_a_table_that_is_no_record(path, table):
    write_table(path, table)
    assert_refused(path, "table of contents is none")


@pytest.mark.parametrize("name", ["videos/view", "rows/first_frame", "failures/stage", "checksums"])
def test_a_file_without_one_of_its_columns(path, name):
    file = SealedFile(path)
    places = {key: place for key, place in file.contents.places.items() if key != name}
    lacking = replace(file.contents, places=places)
    write_contents(path, replace(lacking, headers=file.checksum_of_headers(lacking)))
    assert_refused(path, f"not whole, {name} missing")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dim": "5"}, "dim is '5'; it must be int"),
        ({"weights": 3}, "no record of settings"),
        ({"feeding": {"resize": "x"}}, "no record of settings"),
        ({"versions": 3}, "no record of settings"),
        ({"level": "x"}, "level is 'x'"),
        ({"include_stills": 1}, "include_stills is '1'; it must be bool"),
    ],
)
def test_a_provenance_that_is_none(path, change, match):
    made = json.loads(SealedFile(path).contents.attributes["provenance"])
    reseal_attributes(path, provenance=json.dumps(made | change))
    assert_refused(path, match)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 20_000, '{"weights": 1e999}'])
def test_a_provenance_that_is_no_record(path, text):
    reseal_attributes(path, provenance=text)
    assert_refused(path, "its provenance can't be read")


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"level": 7}, "attribute level is no text"),
        ({"level": None}, "attribute level is no text"),
        ({"level": "beat"}, "level is 'beat'; known are"),
        ({"format": "other"}, "format is 'other'"),
        ({"schema_version": 2}, "version 2; this release reads 'panecho-embed', version 3"),
    ],
)
def test_attributes_of_another_kind(path, attributes, match):
    reseal_attributes(path, **attributes)
    assert_refused(path, match)


@pytest.mark.parametrize("content", [b"", b"x", b"not HDF5 " * 100_000])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    assert_refused(tmp_path / "x.h5", r"x\.h5 is (empty|damaged: it is cut|no embedding file)")


def test_a_file_of_the_earlier_format_is_to_be_made_again(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("embeddings", data=np.zeros((70_000, 8), "f4"), chunks=(1000, 8), fletcher32=True)
        file.attrs.update(format="panecho-embed", schema_version=1, level="clip", tables_sha256="ab" * 32)
    with pytest.raises(EarlierReleaseError, match=r"x\.h5 was written by an earlier release, .*extract again"):
        EmbeddingFile(tmp_path / "x.h5")


def test_a_failure_without_a_reason_stops_the_merge(path, provenance, tmp_path):
    file = EmbeddingFile(path)
    reseal(path, "failures/video_id", lambda values: values.__setitem__(0, b"c"))
    with pytest.raises(StoreError, match="b is 'failed', and /failures says not why"):
        merge([path], file.manifest(), provenance, tmp_path / "merged.h5")


def test_names_that_are_no_utf8_have_their_tables(make_file):
    file = EmbeddingFile(make_file("y.h5", refs("v\udcff"), [1]))
    assert file.rows["video_id"].tolist() == ["v\udcff"]
    assert file.videos["video_id"].tolist() == ["v\udcff"]
