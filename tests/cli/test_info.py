from __future__ import annotations

import json

import numpy as np
from click.testing import CliRunner

from panecho_embed.cli.info import info
from panecho_embed.extraction.describing import mean_cosine
from panecho_embed.store import EmbeddingFile
from tests.search.conftest import vectors_file


def said(*words):
    result = CliRunner().invoke(info, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def file_of(path, values):
    patients = len(values)
    return EmbeddingFile(vectors_file(path, patients=patients, dim=4, rows=1, views=("A4C",), values=values))


def test_the_mean_cosine_is_that_of_all_pairs_of_rows(tmp_path):
    values = np.random.default_rng(0).normal(1, 1, size=(12, 4))
    units = values / np.linalg.norm(values, axis=1, keepdims=True)
    by_hand = (units @ units.T)[np.triu_indices(12, 1)].mean()
    file = file_of(tmp_path / "x.h5", values)
    assert abs(mean_cosine(file) - by_hand) < 1e-4
    assert json.loads(said(file.path, "--json"))["mean_cosine"] == mean_cosine(file)


def test_a_sample_of_the_rows_is_drawn_with_a_fixed_seed(tmp_path):
    file = file_of(tmp_path / "x.h5", np.random.default_rng(0).normal(1, 1, size=(40, 4)))
    assert mean_cosine(file, rows=10) == mean_cosine(file, rows=10) != mean_cosine(file)


def test_centring_is_suggested_where_the_cosine_is_high(tmp_path):
    noise = np.random.default_rng(0).normal(size=(20, 4))
    assert "kNN may want centring" in said(file_of(tmp_path / "high.h5", noise + 10).path)
    assert "kNN may want centring" not in said(file_of(tmp_path / "low.h5", noise).path)


def test_rows_of_zeros_have_no_direction(tmp_path):
    values = np.zeros((3, 4))
    values[0] = 1
    assert mean_cosine(file_of(tmp_path / "x.h5", values)) is None
