from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from panecho_embed.cli.weights import weights
from panecho_embed.core.errors import ArgumentError, WeightsNotFoundError
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.models.weights import MIRROR_VARIABLE, PLACE_VARIABLE
from tests.models.server import Behaviour, serve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with PanEcho's file in the released layout, and nothing else."""
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(PanEcho(pretrained=False), folder / "panecho.pt")
    return folder


@pytest.fixture(autouse=True)
def nowhere_else(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv(PLACE_VARIABLE, str(folder))
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(weights, [str(argument) for argument in arguments])


def test_list_shows_what_is_here_and_under_which_licence(folder):
    done = run("list")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith(f"panecho    {folder / 'panecho.pt'} (1")
    assert lines[1].strip() == "licence: CC BY-NC-SA 4.0; also serves panecho-image"
    assert "imagenet   not here (convnext_tiny-983f1562.pth)" in lines


@pytest.fixture
def mirror(monkeypatch) -> Iterator[Behaviour]:
    with serve(Behaviour(b"weights")) as server:
        monkeypatch.setenv(MIRROR_VARIABLE, server.url)
        yield server


def test_fetch_puts_files_where_told_and_names_the_licence(mirror, tmp_path):
    done = run("fetch", "panecho", "echoprime", "--to", tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "new" / "panecho.pt").read_bytes() == b"weights"
    assert (tmp_path / "new" / "echo_prime_encoder.pt").exists()
    assert "Licence: CC BY-NC-SA 4.0" in done.output


def test_fetch_of_an_unknown_name_downloads_nothing(mirror):
    done = run("fetch", "panecho", "panechoo")
    assert isinstance(done.exception, ArgumentError)
    assert mirror.requests == []


def test_fetch_that_fails_is_an_error(mirror, tmp_path):
    mirror.status[:] = [404]
    assert isinstance(run("fetch", "panecho", "--to", tmp_path).exception, WeightsNotFoundError)


def test_verify_loads_all_that_is_here_and_shows_the_hash(folder):
    done = run("verify")
    assert done.exit_code == 0, done.output
    digest = hashlib.sha256((folder / "panecho.pt").read_bytes()).hexdigest()
    assert done.output.startswith("panecho: whole: panecho with 40 heads")
    assert digest in done.output


@pytest.mark.parametrize(
    ("mode", "words"),
    [({"tasks": ["EF", "GLS"]}, "panecho with 2 heads"), ({"backbone_only": True}, "panecho with 0 heads")],
)
def test_verify_knows_a_fine_tuned_file_by_its_content(tmp_path, mode, words):
    save_checkpoint(PanEcho(pretrained=False, **mode), tmp_path / "mine.pt")
    done = run("verify", tmp_path / "mine.pt")
    assert done.exit_code == 0, done.output
    assert words in done.output


def test_verify_knows_other_models_by_their_content(tmp_path):
    from torchvision.models.video import r3d_18

    torch.save(r3d_18().state_dict(), tmp_path / "mine.pt")
    done = run("verify", tmp_path / "mine.pt")
    assert done.exit_code == 0, done.output
    assert "whole: kinetics" in done.output


def test_verify_goes_on_after_a_failure_and_exits_with_1(folder, tmp_path):
    (tmp_path / "cut.pt").write_bytes((folder / "panecho.pt").read_bytes()[:5000])
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "foreign.pt")
    done = run("verify", tmp_path / "cut.pt", tmp_path / "foreign.pt", "imagenet", "nonsense", "panecho")
    assert done.exit_code == 1
    assert f"{tmp_path / 'cut.pt'}: FAILED" in done.output
    assert "5,000 bytes" in done.output
    assert "the weights of none of panecho" in done.output
    assert "imagenet: FAILED: not here; fetch them" in done.output
    assert "nonsense: FAILED: neither a file nor one of the names panecho" in done.output
    assert "panecho: whole" in done.output


def test_verify_of_nothing_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv(PLACE_VARIABLE, str(tmp_path))
    assert isinstance(run("verify").exception, WeightsNotFoundError)
