"""A disk that fills up at any moment: one short error, the former result untouched, nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from panecho_embed.cli.main import main
from panecho_embed.core.digests import problems_of_folder
from panecho_embed.extraction import writing
from panecho_embed.models import backbones
from panecho_embed.retrieval.index import index_path
from panecho_embed.store import verify
from tests.finetuning.conftest import NARROW, SMALL
from tests.search.conftest import vectors_file
from tests.test_extraction import moving
from tests.tiny import tiny

pytestmark = pytest.mark.slow
LEVELS = 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount an empty disk of so many bytes; the one before goes."""
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(size: int) -> Path:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
        return place

    yield mounted
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def used(place: Path) -> int:
    return shutil.disk_usage(place).used


def levels(disk: Callable[[int], Path], command: Callable[[Path], Result], before: Callable[[Path], None]) -> int:
    """Run a command with 20 sizes of disk up to what it needs; how many of them were too small."""
    place = disk(1 << 30)
    before(place)
    least = used(place)
    result = command(place)
    assert result.exit_code == 0, result.output
    need = used(place) - least
    failed = 0
    for level in range(LEVELS):
        place = disk(least + need * level // (LEVELS - 1) + 8192)
        before(place)
        there = {path.relative_to(place): path.stat().st_size for path in place.rglob("*") if path.is_file()}
        result = command(place)
        if result.exit_code == 0:
            continue
        failed += 1
        assert isinstance(result.exception, SystemExit), result.exception
        told = [line for line in result.output.splitlines() if line.startswith("Error")]
        assert len(told) == 1, result.output
        assert "no space left on the device" in told[0]
        left = {path.relative_to(place): path.stat().st_size for path in place.rglob("*") if path.is_file()}
        assert all(left.get(name) == size for name, size in there.items())
        assert not [path for path in place.rglob("*") if path.name.endswith((".tmp", ".room"))]
    return failed


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Videos for a small backbone, in parts of two videos."""
    monkeypatch.setitem(backbones._factories, "tiny", lambda weights, seed: tiny())
    monkeypatch.setattr(writing, "PART_VIDEOS", 2)
    folder = tmp_path / "studies"
    folder.mkdir()
    for i in range(6):
        np.save(folder / f"v{i}.npy", moving(40, seed=i))
    return folder


def test_extract(disk, studies):
    words = ["extract", studies, "--backbone", "tiny", "--workers", 0, "-o"]

    def command(place: Path) -> Result:
        result = run(*words, place / "out.h5")
        left = sorted(path.name for path in place.iterdir())
        assert left in ([], ["out.h5"], ["out.h5.parts"])
        if result.exit_code == 0:
            assert verify(place / "out.h5") == []
        return result

    assert levels(disk, command, lambda place: None) > LEVELS // 2


@pytest.mark.parametrize("command", ["pool", "reclip"])
def test_files_made_of_a_file(disk, studies, command):
    frames = studies.parent / "frames.h5"
    words = ["extract", studies, "--backbone", "tiny", "--workers", 0, "--level", "frame", "-o", frames]
    assert run(*words).exit_code == 0
    options = ["--by", "video"] if command == "pool" else []

    def made(place: Path) -> Result:
        result = run(command, frames, *options, "-o", place / "out.h5")
        assert [path.name for path in place.iterdir()] == (["out.h5"] if result.exit_code == 0 else [])
        return result

    assert levels(disk, made, lambda place: None) >= LEVELS // 2


def test_index(disk, tmp_path):
    source = vectors_file(tmp_path / "emb.h5", patients=300, dim=64)
    result = levels(
        disk, lambda place: run("index", place / "emb.h5", "--kind", "ivf"), lambda place: shutil.copy(source, place)
    )
    assert result > LEVELS // 2


def test_probe(disk, tmp_path):
    source = vectors_file(tmp_path / "emb.h5", patients=40)
    words = ["probe", "linear", source, "--target", "EF", "--folds", 3, "--trainings", 1, "--draws", 20, "--overwrite"]
    former = tmp_path / "former"
    assert run(*words, "--level", "study", "-o", former).exit_code == 0

    def before(place: Path) -> None:
        shutil.copytree(former, place / "run")

    def command(place: Path) -> Result:
        result = run(*words, "-o", place / "run")
        assert not problems_of_folder(place / "run")
        return result

    assert levels(disk, command, before) > LEVELS // 2


def test_finetune(disk, tmp_path):
    data = tmp_path / "data"
    words = ["phantom", data, "--layout", "echonet-dynamic", "--patients", 16, "--frames", 8]
    assert run(*words).exit_code == 0
    settings = [
        word for key, value in (SMALL | {"model.width": NARROW}).items() for word in ("--set", f"{key}={value}")
    ]

    def command(place: Path) -> Result:
        words = ["finetune", "echonet-dynamic", "--init", "random", "--data", data, "--set", "schedule.epochs=1"]
        return run(*words, *settings, "-o", place / "run")

    assert levels(disk, command, lambda place: None) > LEVELS // 2


def test_an_index_that_did_not_fit_is_built_when_there_is_room(disk, tmp_path):
    source = vectors_file(tmp_path / "emb.h5", patients=300, dim=64)
    place = disk(source.stat().st_size + 100_000)
    shutil.copy(source, place)
    assert run("index", place / "emb.h5").exit_code == 1
    assert not index_path(place / "emb.h5").exists()
    subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
    assert run("index", place / "emb.h5").exit_code == 0
