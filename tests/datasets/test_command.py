"""`panecho-embed manifest` writes a table that comes back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.datasets import read_manifest


def run(*words, expect=0):
    result = CliRunner().invoke(main, ["manifest", *map(str, words)])
    assert result.exit_code == expect, result.output
    return result


@pytest.fixture
def studies(tmp_path):
    (tmp_path / "studies").mkdir()
    np.save(tmp_path / "studies" / "v.npy", np.zeros((2, 32, 40), np.uint8))
    return tmp_path / "studies"


def test_the_description_has_names_of_its_own(studies, tmp_path):
    run(studies, "-o", tmp_path / "list.csv")
    table = pd.read_csv(tmp_path / "list.csv")
    assert table.loc[0, ["content", "num_frames", "frame_height", "frame_width"]].tolist() == ["cine", 2, 32, 40]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["list.csv"]


def test_an_edited_table_is_not_replaced_unless_asked(studies, tmp_path):
    (tmp_path / "list.csv").write_text("mine")
    assert "--overwrite" in run(studies, "-o", tmp_path / "list.csv", expect=1).stderr
    assert (tmp_path / "list.csv").read_text() == "mine"
    run(studies, "-o", tmp_path / "list.csv", "--overwrite")
    assert (tmp_path / "list.csv").read_text().startswith("path,")


def test_a_table_that_can_not_be_written_leaves_the_old_one(studies, tmp_path, monkeypatch):
    (tmp_path / "list.csv").write_text("mine")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    result = run(studies, "-o", tmp_path / "list.csv", "--overwrite", expect=1)
    assert "no space left" in result.stderr
    assert (tmp_path / "list.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.csv", "studies"]


def test_a_folder_is_no_output(studies, tmp_path):
    assert "no regular file (-o)" in run(studies, "-o", tmp_path, "--overwrite", expect=1).stderr


def test_names_that_are_not_utf8_come_back(studies, tmp_path):
    folder = os.fsdecode(b"M\xfcller")
    (studies / folder).mkdir()
    np.save(studies / folder / os.fsdecode(b"caf\xe9.npy"), np.zeros((2, 32, 40), np.uint8))
    result = run(studies, "-o", tmp_path / "list.csv")
    assert "2 files (2 cine) of 2 studies and 2 patients" in result.stdout
    assert b"M\xfcller/caf\xe9.npy" in (tmp_path / "list.csv").read_bytes()
    assert read_manifest(tmp_path / "list.csv").videos == read_manifest(studies).videos
