"""A bit that flips, or an end that is lost, anywhere in a file or a part: an error that names it, never a value."""

from __future__ import annotations

import random

import numpy as np
import pytest

from panecho_embed.core.errors import StoreError
from panecho_embed.core.records import Manifest
from panecho_embed.store import EmbeddingFile, Parts, merge, verify
from panecho_embed.store.contents import SealedFile
from tests.conftest import refs


@pytest.fixture
def path(make_file):
    labels = {"EF": np.array([1.0, np.nan, 3.0]), "sex": np.array(["f", "m", ""], dtype=object)}
    return make_file("x.h5", refs("p/s/a", "p/s/b", "q/t/ü"), [2, 0, 300], labels)


def content_of(path):
    """Everything that can be read from a file."""
    with EmbeddingFile(path) as file:
        tables = [file.row_columns, file.video_columns, file.labels, {c: file.failures[c] for c in file.failures}]
        values = [{name: column.tolist() for name, column in table.items()} for table in tables]
        return repr((values, file.provenance, file.created_utc, file.level)), file.embeddings.tobytes()


def check(path, data, before):
    """Read a damaged file: it raises, names itself, and `verify` says the same."""
    path.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{path.name}.* (is damaged|is no embedding file|is empty)") as caught:
        content_of(path)
    assert len(str(caught.value)) < 500
    assert verify(path) == [str(caught.value)]


def flips(data, places):
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        yield bytes(damaged)


def regions(path):
    """First and last byte of every data set, and some of the headers and of the table between and behind them."""
    sealed = SealedFile(path)
    places = [place for place in sealed.contents.places.values() if place.nbytes]
    found = {edge for place in places for edge in (place.at, place.at + place.nbytes - 1)}
    found |= {edge for start, end in sealed.contents.gaps() if end > start for edge in (start, end - 1)}
    size = path.stat().st_size
    return sorted(found | {sealed.contents.size, *range(size - 28, size)})


def test_a_bit_in_every_region(path):
    before, data = content_of(path), path.read_bytes()
    places = regions(path)
    assert len(places) > 80
    for damaged in flips(data, places):
        check(path, damaged, before)
    path.write_bytes(data)
    assert content_of(path) == before


def test_bits_anywhere(path):
    before, data = content_of(path), path.read_bytes()
    for damaged in flips(data, random.Random(0).sample(range(len(data)), 300)):
        check(path, damaged, before)


def test_cuts_anywhere(path):
    before, data = content_of(path), path.read_bytes()
    for length in [0, 1, len(data) - 1, *random.Random(1).sample(range(len(data)), 200)]:
        check(path, data[:length], before)
    check(path, data + b"\0", before)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_2000_bits_and_cuts(path, seed):
    before, data = content_of(path), path.read_bytes()
    chance = random.Random(100 + seed)
    for damaged in flips(data, chance.sample(range(len(data)), 500)):
        check(path, damaged, before)
    for length in chance.sample(range(len(data)), 500):
        check(path, data[:length], before)


def test_what_is_hit_is_named(path):
    data, sealed = path.read_bytes(), SealedFile(path)
    for name, said in (
        ("labels/EF", "/labels/EF does not match its checksum"),
        ("rows/video", "/rows/video does not match its checksum"),
        ("videos/split", "/videos/split does not match its checksum"),
        ("embeddings", "rows 0 to 301 do not match their checksum"),
    ):
        (damaged,) = flips(data, [sealed.contents.places[name].at])
        path.write_bytes(damaged)
        assert verify(path) == [f"{path} is damaged: {said}"]


def test_a_damaged_part_is_left_out_and_made_again(tmp_path, make_file, provenance):
    manifest = Manifest(refs("a", "b"))
    out = tmp_path / "out.h5"
    (tmp_path / "out.h5.parts").mkdir()
    part = make_file("one.h5", refs("a"), [3]).rename(tmp_path / "out.h5.parts" / "part-1.h5")
    data = part.read_bytes()
    for damaged in flips(data, random.Random(2).sample(range(len(data)), 60)):
        part.write_bytes(damaged)
        with Parts(out) as parts:
            parts.begin(manifest, provenance)
            assert parts.todo(manifest) == [0, 1]
            assert "part-1.h5 is damaged and was left out" in parts.notes[0]


def test_a_merge_hands_on_no_damage(tmp_path, make_file, provenance):
    parts = [make_file("one.h5", refs("a"), [200]), make_file("two.h5", refs("b"), [3])]
    data = parts[0].read_bytes()
    for damaged in flips(data, random.Random(3).sample(range(len(data)), 60)):
        parts[0].write_bytes(damaged)
        with pytest.raises(StoreError, match=r"one\.h5"):
            merge(parts, Manifest(refs("a", "b")), provenance, tmp_path / "out.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one.h5", "two.h5"]


def test_a_damaged_finished_file_is_not_extended(tmp_path, make_file, provenance):
    out = make_file("out.h5", refs("a"), [200])
    data, manifest = out.read_bytes(), Manifest(refs("a", "b"))
    for damaged in flips(data, random.Random(4).sample(range(len(data)), 60)):
        out.write_bytes(damaged)
        with Parts(out) as parts, pytest.raises(StoreError, match=r"out\.h5.*begin anew with --overwrite"):
            parts.begin(manifest, provenance)
            assert parts.todo(manifest) == [1]
            parts.check_finished()
        assert out.read_bytes() == damaged
    if data[:8] == damaged[:8]:
        with Parts(out) as parts:
            parts.begin(manifest, provenance, overwrite=True)
            assert parts.todo(manifest) == [0, 1]
