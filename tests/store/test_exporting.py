from __future__ import annotations

import json
import zipfile

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import panecho_embed
from panecho_embed.cli.main import main
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, NotInstalledError, StoreError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingFile, EmbeddingWriter

NAMES = ("emb.parquet", "emb.npz", "emb.h5ad", "emb")


def write(path, dtype="float32", labels=None, units=None):
    """Three videos of two clips each, one of no split, one with an id that is no UTF-8."""
    weights = WeightsInfo("random (seed 0)", "ab" * 32, "none", pretrained=False)
    provenance = Provenance("random", weights, Feeding(), ClipPlan(4), "clip", dim=5, dtype=dtype)
    videos = tuple(
        VideoRef(name, f"S{i}", f"P{i}", f"/secret/{i}.avi", "A4C", split)
        for i, (name, split) in enumerate((("a", "train"), ("b", "test"), ("c\udcff", "")))
    )
    labels = labels or {"EF": np.array([55.25, np.nan, 61.0]), "sex": np.array(["F", "", "M"], dtype=object)}
    with EmbeddingWriter(path, provenance) as writer:
        for i in range(3):
            values = np.random.default_rng(i).normal(size=(2, 5)).astype(dtype)
            writer.add(i, values, np.array([0, 4]), 1, 4)
        writer.finish(Manifest(videos, labels, units=units or {}), [VideoFacts("done", fps=30.0)] * 3, [])
    return path


@pytest.fixture(params=["float32", "float16"])
def emb(request, tmp_path):
    return write(tmp_path / "emb.h5", request.param)


def read(out):
    """Embeddings, columns as lists, and what they are, of an export."""
    if out.suffix == ".npz":
        with np.load(out, allow_pickle=False) as arrays:
            made = {name.removeprefix("made/"): str(arrays[name]) for name in arrays.files if name.startswith("made/")}
            columns = {n: arrays[n].tolist() for n in arrays.files if n != "embedding" and not n.startswith("made/")}
            return arrays["embedding"], columns, made
    if out.suffix == ".h5ad":
        with h5py.File(out) as root:
            made = {name: text[()].decode() for name, text in root["uns/panecho_embed"].items()}
            columns = {
                name: root["obs"][name].asstr()[:].tolist()
                if root["obs"][name].attrs["encoding-type"] == "string-array"
                else root["obs"][name][:].tolist()
                for name in root["obs"].attrs["column-order"]
            }
            return root["X"][:], columns, made
    table = pq.read_table(out)
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "embedding"}
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    made = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    return flat.reshape(len(table), -1), columns, made


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_file_comes_back_as_it_was(emb, tmp_path, name):
    out = panecho_embed.export(emb, tmp_path / name)
    values, columns, made = read(out)
    file = EmbeddingFile(emb)
    assert values.dtype == file.dtype
    assert values.tobytes() == file.embeddings.tobytes()
    last = "c\udcff" if name.endswith("npz") else "c\\xff"
    assert columns["video_id"] == ["a", "a", "b", "b", last, last]
    for column in ("study_id", "patient_id", "view", "split", "first_frame", "frame_step", "frames_per_clip", "sex"):
        assert columns[column] == file.rows[column].tolist()
    assert np.array(columns["EF"], dtype=float) == pytest.approx(file.rows["EF"], nan_ok=True)
    assert "path" not in columns
    assert made["provenance"] == file.provenance.to_json()
    assert (made["settings_id"], made["level"]) == (file.settings_id, "clip")
    assert json.loads(made["units"]) == {"EF": "%", "fps": "1/s"} | dict.fromkeys(
        ("first_frame", "frame_step", "frames_per_clip"), "frame"
    )


def test_a_folder_holds_a_table_per_split_and_a_card_that_names_them(emb, tmp_path):
    out = panecho_embed.export(emb, tmp_path / "emb")
    card = (out / "README.md").read_text()
    head = card.split("---\n")[1]
    file = EmbeddingFile(emb)
    for word, split, at in (("train", "train", 0), ("test", "test", 2), ("unsplit", "", 4)):
        values, columns, _ = read(out / "data" / f"{word}.parquet")
        assert values.tobytes() == file.read(at, at + 2).tobytes()
        assert columns["split"] == [split] * 2
        assert f"  - split: {word}\n    path: data/{word}.parquet\n" in head
    assert "random (seed 0)" in card
    assert json.loads((out / "export.json").read_text())["provenance"] == json.loads(file.provenance.to_json())
    assert "/secret" not in card + (out / "export.json").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_replaced_unasked(emb, tmp_path, name):
    run = CliRunner().invoke(main, ["export", str(emb), "-o", str(tmp_path / name)])
    assert (run.exit_code, run.output) == (0, f"wrote {tmp_path / name}\n")
    again = CliRunner().invoke(main, ["export", str(emb), "-o", str(tmp_path / name)])
    assert again.exit_code == 1
    assert "already" in again.output
    assert CliRunner().invoke(main, ["export", str(emb), "-o", str(tmp_path / name), "--overwrite"]).exit_code == 0


@pytest.mark.parametrize("there", ["README.md", "data/mine.csv"])
def test_a_folder_of_other_files_loses_none_of_them(emb, tmp_path, there):
    out = tmp_path / "repository"
    (out / there).parent.mkdir(parents=True)
    (out / there).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"is no export and holds (README.md|data), which would be lost"):
            panecho_embed.export(emb, out, overwrite=overwrite)
    assert [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()] == [there]
    assert (out / there).read_text() == "mine"


def test_units_are_those_of_the_embedding_file(tmp_path):
    labels = {"volume": np.array([80.0, 90.0, 100.0]), "EF": np.array([0.5, 0.6, 0.7])}
    emb = write(tmp_path / "emb.h5", labels=labels, units={"volume": "mL", "EF": "1"})
    units = json.loads(read(panecho_embed.export(emb, tmp_path / "emb.npz"))[2]["units"])
    assert (units["volume"], units["EF"]) == ("mL", "1")


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_leaves_nothing(emb, tmp_path, name):
    content = bytearray(emb.read_bytes())
    at = content.index(EmbeddingFile(emb).read(3, 4).tobytes())
    content[at] ^= 1
    emb.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        panecho_embed.export(emb, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["emb.h5"]


def test_the_embedding_file_is_never_its_own_export(tmp_path):
    emb = write(tmp_path / "emb.npz")
    with pytest.raises(StoreError, match="what is read"):
        panecho_embed.export(emb, emb, overwrite=True)


def test_what_no_form_can_hold_is_refused(emb, tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match=r"'.csv'; allowed are .parquet, .npz, .h5ad, and a folder \(-o\)"):
        panecho_embed.export(emb, tmp_path / "emb.csv")
    other = write(tmp_path / "other.h5", labels={"a/b": np.zeros(3), "embedding": np.zeros(3)})
    with pytest.raises(ArgumentError, match="has a label called 'embedding'"):
        panecho_embed.export(other, tmp_path / "emb.npz")
    slash = write(tmp_path / "slash.h5", labels={"a/b": np.zeros(3)})
    with pytest.raises(ArgumentError, match="no columns called 'a/b'"):
        panecho_embed.export(slash, tmp_path / "emb.h5ad")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(NotInstalledError, match=r"panecho-embed\[export\]"):
        panecho_embed.export(emb, tmp_path / "emb.parquet")


def test_an_archive_holds_no_pickles(emb, tmp_path):
    with zipfile.ZipFile(panecho_embed.export(emb, tmp_path / "emb.npz")) as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "emb.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind != "O" for name in arrays.files)
