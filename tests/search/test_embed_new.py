from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from pydicom.data import get_testdata_file

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError, MediaError, WeightsError
from panecho_embed.datasets import LocalIds
from panecho_embed.extraction.pooling import pool
from panecho_embed.models.backbones import load_backbone
from panecho_embed.retrieval import Collection, search, vector_query
from panecho_embed.retrieval.embed_new import Embedder
from panecho_embed.retrieval.recognition import recognised_files


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("random", image_size=32)


@pytest.fixture
def collection(film_emb):
    return Collection(film_emb)


def test_a_file_of_the_collection_embeds_to_its_own_vector(collection, films, backbone):
    new = Embedder(collection.provenance, backbone=backbone).embed(
        films.with_name("PHANTOM-0001-PLAX-0.npy"), workers=0
    )
    found = search(collection, vector_query(collection, new.vectors, "new"), 1)
    assert found.records()[0]["video_id"] == "PHANTOM-0001-S1/PLAX-0"
    assert found.similarity[0] == pytest.approx(1, abs=1e-5)


def test_a_file_that_the_collection_has_under_another_name_counts_as_its_patient(collection, films, backbone, tmp_path):
    shutil.copy(films.with_name("PHANTOM-0001-PLAX-0.npy"), tmp_path / "new.npy")
    new = Embedder(collection.provenance, backbone=backbone).embed(tmp_path / "new.npy", workers=0)
    query = recognised_files(collection, vector_query(collection, new.vectors, "new"), new.videos)
    assert (query.patients, query.videos) == (("PHANTOM-0001",), ("PHANTOM-0001-S1/PLAX-0",))
    found = search(collection, query, 99)
    assert "PHANTOM-0001" not in {record["patient_id"] for record in found.records()}
    assert "shows PHANTOM-0001-S1/PLAX-0 of films.h5, and counts as patient PHANTOM-0001" in found.note


def test_the_weights_are_found_by_the_files_own_words(collection):
    Embedder(collection.provenance)


def test_a_folder_is_a_study_and_what_can_not_be_read_is_told(collection, films, backbone, tmp_path):
    for loop in ("A4C-0", "A4C-1", "PLAX-0"):
        shutil.copy(films.with_name(f"PHANTOM-0004-{loop}.npy"), tmp_path)
    (tmp_path / "broken.avi").write_bytes(b"RIFF")
    new = Embedder(collection.provenance, backbone=backbone).embed(tmp_path, workers=0)
    assert len(new.vectors) == 3
    assert "broken.avi" in " ".join(new.notes)
    query = vector_query(collection, new.vectors, "new", new.views)
    assert search(collection, query, 1).records()[0]["study_id"] == "PHANTOM-0004-S1"


@pytest.mark.parametrize("how", ["mean", "max", "mean+std"])
def test_a_pooled_file_is_asked_with_vectors_pooled_alike(film_emb, films, backbone, tmp_path, how):
    pooled = Collection(pool(film_emb, "video", tmp_path / "pooled.h5", how))
    new = Embedder(pooled.provenance, backbone=backbone).embed(films.with_name("PHANTOM-0001-A4C-1.npy"), workers=0)
    assert search(pooled, vector_query(pooled, new.vectors, "new"), 1).similarity[0] == pytest.approx(1, abs=1e-5)


def test_nothing_readable_is_an_error_with_the_reason(collection, backbone, tmp_path):
    (tmp_path / "broken.avi").write_bytes(b"RIFF")
    with pytest.raises(MediaError, match=r"broken\.avi"):
        Embedder(collection.provenance, backbone=backbone).embed(tmp_path / "broken.avi", workers=0)


def test_other_weights_are_refused(collection):
    with pytest.raises(WeightsError, match="can't be compared"):
        Embedder(collection.provenance, backbone=load_backbone("random", seed=1, image_size=32))


def test_another_normalisation_is_refused(collection, backbone):
    other = dataclasses.replace(collection.provenance.feeding, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ArgumentError, match="extract anew"):
        Embedder(dataclasses.replace(collection.provenance, feeding=other), backbone=backbone)


def test_a_table_hashed_with_another_salt_is_refused(collection, backbone, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(get_testdata_file("examples_ybr_color.dcm"), tmp_path / "in" / "a.dcm")
    result = CliRunner().invoke(main, ["manifest", str(tmp_path / "in"), "-o", str(tmp_path / "t.csv")])
    assert result.exit_code == 0, result.output
    known = LocalIds(tmp_path / "collection.h5.ids.csv", "the salt of the collection", {})
    embedder = Embedder(collection.provenance, backbone=backbone, known=known)
    with pytest.raises(ArgumentError, match=r"t\.csv: its ids are hashed with another salt .* \(--file\)"):
        embedder.embed(tmp_path / "t.csv", workers=0)


def test_searching_what_is_stored_imports_neither_torch_nor_faiss_nor_a_web_framework():
    modules = "collection, evaluate, filters, find, curation, index, pictures, projection, sheet, similarity, vectors"
    code = f"import sys; from panecho_embed.retrieval import {modules}; print([m for m in sys.modules if m in " \
           "('torch', 'timm', 'faiss', 'fastapi', 'starlette', 'umap', 'pyarrow')])"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
