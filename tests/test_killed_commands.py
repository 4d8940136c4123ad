"""SIGKILL at random moments: the same command again gives the same result, and nothing else is left.

`extract` has a test of its own, tests/test_kill.py.
"""

from __future__ import annotations

import multiprocessing
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.store import EmbeddingFile
from tests.finetuning.conftest import NARROW, SMALL
from tests.preloaded import run
from tests.search.conftest import vectors_file
from tests.test_extraction import moving

pytestmark = pytest.mark.slow
KILLS = 20
# Children that have everything imported already: a kill should hit the work.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])

Words = Callable[[Path], list[object]]
"""The command, for the folder that it works in."""


def child(words: list[object], kill_after: float | None = None) -> tuple[float, bool]:
    """Run a command in a process of its own, perhaps killed; the seconds that it took, and whether it was."""
    process = CONTEXT.Process(target=run, args=([str(word) for word in words],))
    started = time.monotonic()
    process.start()
    process.join(kill_after)
    if kill_after is not None:
        process.kill()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    assert killed or process.exitcode == 0, words
    return time.monotonic() - started, killed


def files(folder: Path) -> dict[str, bytes]:
    """What a command left: tensorboard's files bear the moment in their names, locks are nobody's."""
    paths = [path for path in folder.rglob("*") if path.name != ".lock" and path.parent.name != "tensorboard"]
    return {path.relative_to(folder).as_posix(): content(path) for path in paths}


def content(path: Path) -> bytes:
    """Bytes of a file, of a report without durations; an embedding file's rows and tables; of a folder none."""
    if path.is_dir():
        return b""
    if path.name == "report.html":
        # A training says how long it took.
        return re.sub(rb"\b[\d.]+ (s|min)\b", b"", path.read_bytes())
    if path.suffix != ".h5":
        return path.read_bytes()
    with EmbeddingFile(path) as file:
        tables = "".join(table.to_csv() for table in (file.rows, file.videos, file.failures))
        return file.embeddings.tobytes() + file.settings_id.encode() + tables.encode()


def index(start: Path, sources: Path) -> Words:
    vectors_file(start / "emb.h5", patients=400, dim=32)
    return lambda place: ["index", place / "emb.h5", "--kind", "ivf"]


def atlas(start: Path, sources: Path) -> Words:
    # The map is kept beside the embeddings.
    vectors_file(start / "emb.h5", patients=200, dim=32)
    return lambda place: ["atlas", place / "emb.h5", "-o", place / "a.parquet", "--method", "pca", "--no-thumbnails"]


def search_page(start: Path, sources: Path) -> Words:
    source = vectors_file(sources / "emb.h5", patients=40)
    return lambda place: ["search", source, "--study", "P3-S0", "--html", place / "near.html"]


def probe_command(source: Path, out: Path) -> list[object]:
    options = ["--folds", 3, "--trainings", 1, "--draws", 20]
    return ["probe", "linear", source, "--target", "EF", *options, "-o", out]


def probe(start: Path, sources: Path) -> Words:
    source = vectors_file(sources / "emb.h5", patients=30)
    return lambda place: probe_command(source, place / "run")


def probe_apply(start: Path, sources: Path) -> Words:
    source = vectors_file(sources / "emb.h5", patients=30)
    child(probe_command(source, sources / "run"))
    return lambda place: ["probe", "apply", sources / "run", source, "-o", place / "predictions.csv"]


def probe_compare(start: Path, sources: Path) -> Words:
    named = [vectors_file(sources / f"{seed}.h5", patients=30, seed=seed) for seed in (0, 1)]
    options = ["--folds", 3, "--draws", 20, "--trainings", 1]
    return lambda place: ["probe", "compare", *named, "--target", "EF", *options, "-o", place / "run"]


def compare(start: Path, sources: Path) -> Words:
    for seed in (0, 1):
        child(probe_command(vectors_file(sources / f"{seed}.h5", patients=30, seed=seed), sources / f"run-{seed}"))
    runs = [f"{seed}={sources / f'run-{seed}'}" for seed in (0, 1)]
    return lambda place: ["compare", *runs, "--draws", 20, "-o", place / "compared"]


def _films(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        np.save(folder / f"v{i}.npy", moving(24, seed=i))
    return folder


def _extract(films: Path, *options: object) -> list[object]:
    return ["extract", films, "--backbone", "tiny", "--workers", 0, *options]


def pool(start: Path, sources: Path) -> Words:
    child(_extract(_films(sources / "films", 4), "-o", sources / "clips.h5"))
    return lambda place: ["pool", sources / "clips.h5", "--by", "video", "-o", place / "videos.h5"]


def reclip(start: Path, sources: Path) -> Words:
    child(_extract(_films(sources / "films", 4), "--level", "frame", "-o", sources / "frames.h5"))
    return lambda place: ["reclip", sources / "frames.h5", "--stride", 4, "-o", place / "clips.h5"]


def merge(start: Path, sources: Path) -> Words:
    films = _films(sources / "films", 6)
    for shard in ("1/2", "2/2"):
        child(_extract(films, "--shard", shard, "-o", start / "out.h5"))
    return lambda place: ["merge", place / "out.h5"]


def manifest(start: Path, sources: Path) -> Words:
    films = _films(sources / "films", 6)
    return lambda place: ["manifest", films, "-o", place / "list.csv"]


def predict(start: Path, sources: Path) -> Words:
    films = _films(sources / "films", 4)
    words = ["extract", films, "--backbone", "random", "--image-size", 32, "--workers", 0, "--clips", 1]
    child([*words, "-o", sources / "clips.h5"])
    return lambda place: ["predict", sources / "clips.h5", "--backbone", "random", "-o", place / "predicted"]


def predict_videos(start: Path, sources: Path) -> Words:
    films = _films(sources / "films", 2)
    words = ["predict", films, "--backbone", "random", "--image-size", 32, "--workers", 0, "--clips", 1]
    return lambda place: [*words, "-o", place / "predicted"]


def finetune(start: Path, sources: Path) -> Words:
    data = sources / "data"
    child(["phantom", data, "--layout", "echonet-dynamic", "--patients", 16, "--frames", 8])
    chosen = SMALL | {"model.width": NARROW}
    settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    options = ["--init", "random", "--data", data, "--checkpoint-minutes", 0, *settings]
    return lambda place: ["finetune", "echonet-dynamic", *options, "-o", place / "run"]


COMMANDS: dict[str, tuple[Callable[[Path, Path], Words], str]] = {
    "index": (index, "emb.h5.index/index.faiss"),
    "atlas": (atlas, "a.parquet"),
    "search --html": (search_page, "near.html"),
    "probe": (probe, "run/predictions.csv"),
    "probe apply": (probe_apply, "predictions.csv"),
    "probe compare": (probe_compare, "run/differences.csv"),
    "compare": (compare, "compared/comparison.json"),
    "pool": (pool, "videos.h5"),
    "reclip": (reclip, "clips.h5"),
    "merge": (merge, "out.h5"),
    "manifest": (manifest, "list.csv"),
    "predict": (predict, "predicted/studies.csv"),
    "predict videos": (predict_videos, "predicted/studies.csv"),
    "finetune": (finetune, "run/predictions.csv"),
}
"""How a command is prepared, and a file of its result."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_that_is_run_again_ends_as_one_that_was_not_killed(name, tmp_path):
    prepared, result = COMMANDS[name]
    start, sources = tmp_path / "start", tmp_path / "sources"
    start.mkdir()
    sources.mkdir()
    words = prepared(start, sources)
    read = files(sources)
    whole = []
    for number in range(2):
        place = shutil.copytree(start, tmp_path / f"whole-{number}")
        seconds, _ = child(words(place))
        whole.append(files(place))
    assert whole[0].keys() == whole[1].keys()
    # The others hold the moment, or their own path.
    same = {path for path, content in whole[0].items() if content == whole[1][path]}
    assert result in same
    chance, kills = random.Random(name), 0
    while kills < KILLS:
        place = shutil.copytree(start, tmp_path / "killed")
        kill_after = chance.uniform(0, seconds)
        needed, killed = child(words(place), kill_after)
        if killed:
            kills += 1
            child(words(place))
        else:
            # It had ended before; by that it is known how long it takes.
            seconds = needed
        left = files(place)
        assert left.keys() == whole[0].keys(), kill_after
        assert {path for path in same if left[path] != whole[0][path]} == set(), kill_after
        shutil.rmtree(place)
    assert files(sources) == read
