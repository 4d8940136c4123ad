"""SIGKILL at random moments: the same command again gives the same result, and nothing else is left."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.digests import SUMS
from tests.finetuning.conftest import NARROW, SMALL
from tests.search.conftest import vectors_file

pytestmark = pytest.mark.slow
KILLS = 20
# Children that have everything imported already: a kill should hit the work.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])


def run(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    if result.exit_code and "fits; replace it" not in result.output and "finished run already" not in result.output:
        raise SystemExit(result.output)


def child(words: list[object], kill_after: float | None = None) -> float:
    """Run a command in a process of its own, perhaps killed; returns the seconds that it took."""
    process = CONTEXT.Process(target=run, args=([str(word) for word in words],))
    started = time.monotonic()
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
    process.join()
    assert kill_after is not None or process.exitcode == 0
    return time.monotonic() - started


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != ".lock"}


def killed(
    tmp_path: Path, before: Callable[[Path], None], words: Callable[[Path], list[object]], kept: list[str], seed: int
) -> None:
    """kept: files that must be the same as those of an undisturbed run."""
    whole = tmp_path / "whole"
    whole.mkdir()
    before(whole)
    child(words(whole))  # imports what is imported late
    shutil.rmtree(whole)
    whole.mkdir()
    before(whole)
    seconds = child(words(whole))
    chance = random.Random(seed)
    for number in range(KILLS):
        place = tmp_path / f"killed-{number}"
        place.mkdir()
        before(place)
        child(words(place), chance.uniform(0, seconds))
        child(words(place))
        assert tree(place) == tree(whole)
        for name in kept:
            assert (place / name).read_bytes() == (whole / name).read_bytes(), name
        shutil.rmtree(place)


def test_index(tmp_path):
    source = vectors_file(tmp_path / "emb.h5", patients=800, dim=64)
    names = [f"emb.h5.index/{name}" for name in ("units.npy", "studies.npy", "index.faiss", SUMS)]
    killed(
        tmp_path,
        lambda place: shutil.copy(source, place),
        lambda place: ["index", place / "emb.h5", "--kind", "ivf"],
        names,
        1,
    )


def test_atlas(tmp_path):
    source = vectors_file(tmp_path / "emb.h5", patients=400, dim=64)

    def words(place: Path) -> list[object]:
        options = ["-o", place / "a.parquet", "--method", "pca", "--no-thumbnails", "--overwrite"]
        return ["atlas", place / "emb.h5", *options]

    killed(tmp_path, lambda place: shutil.copy(source, place), words, ["a.parquet"], 2)


def test_probe(tmp_path):
    source = vectors_file(tmp_path / "emb.h5", patients=60)

    def words(place: Path) -> list[object]:
        options = ["--target", "EF", "--folds", 3, "--trainings", 1, "--draws", 20, "-o", place / "run"]
        return ["probe", "linear", source, *options]

    killed(tmp_path, lambda place: None, words, ["run/predictions.csv"], 3)


def test_finetune(tmp_path):
    data = tmp_path / "data"
    child(["phantom", data, "--layout", "echonet-dynamic", "--patients", 16, "--frames", 8])
    chosen = SMALL | {"model.width": NARROW}
    settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]

    def words(place: Path) -> list[object]:
        options = ["--init", "random", "--data", data, "--checkpoint-minutes", 0, *settings, "-o", place / "run"]
        return ["finetune", "echonet-dynamic", *options]

    def without_events(folder: Path) -> set[str]:
        return {name for name in tree(folder) if "tensorboard" not in name}

    whole, seconds = tmp_path / "whole", 0.0
    for _ in range(2):
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        seconds = child(words(whole))
    chance = random.Random(4)
    for number in range(KILLS):
        place = tmp_path / f"killed-{number}"
        place.mkdir()
        child(words(place), chance.uniform(0, seconds))
        child(words(place))
        assert without_events(place) == without_events(whole)
        assert (place / "run" / "predictions.csv").read_bytes() == (whole / "run" / "predictions.csv").read_bytes()
        shutil.rmtree(place)
