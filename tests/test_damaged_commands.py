"""One bit flipped in a file that a command reads, as the command itself meets it: an error of one line, or the same.

The calls behind the commands are looked at in tests/test_damage.py and tests/store, with many more bits.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from panecho_embed.cli.main import main
from tests.preloaded import run
from tests.search.conftest import vectors_file
from tests.test_damage import flipped
from tests.test_killed_commands import CONTEXT, child, content, files, finetune, merge, probe_command

pytestmark = pytest.mark.slow
FLIPS = 100
HANGS_AFTER_SECONDS = 600

Words = list[object]


def _as_command(words: list[str], said: str) -> None:
    """What `python -m panecho_embed` does, in a process that has imported it; what it says goes to a file."""
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main(words)


def command(words: Words, place: Path, *, start: bool) -> tuple[int | None, str]:
    """Run a command in `place`; its exit code, None if it hangs, and what it said. start: an interpreter of its own."""
    said, texts = place.with_suffix(".said"), [str(word) for word in words]
    if start:
        with said.open("wb") as stream:
            process = subprocess.Popen([sys.executable, "-m", "panecho_embed", *texts], stdout=stream, stderr=stream)
        try:
            code: int | None = process.wait(HANGS_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
    else:
        forked = CONTEXT.Process(target=_as_command, args=(texts, str(said)))
        forked.start()
        forked.join(HANGS_AFTER_SECONDS)
        code = forked.exitcode
        forked.kill()
        forked.join()
    return code, said.read_text(errors="replace")


def embeddings(start: Path) -> list[Words]:
    source = vectors_file(start / "emb.h5", patients=30)
    return [
        probe_command(source, start / "out"),
        ["search", source, "--study", "P3-S0", "--json"],
        ["pool", source, "--by", "video", "-o", start / "out.h5"],
        ["info", source],
    ]


def index(start: Path) -> list[Words]:
    source = vectors_file(start / "emb.h5", patients=200)
    child(["index", source, "--kind", "ivf"])
    return [["search", source, "--video", "P3/S0/A4C", "--index", "--json"]]


def probe(start: Path) -> list[Words]:
    source = vectors_file(start.with_name("unharmed.h5"), patients=30)
    child(probe_command(source, start / "run"))
    return [["probe", "apply", start / "run", source, "-o", start / "out.csv"]]


def runs(start: Path) -> list[Words]:
    for seed in (0, 1):
        source = vectors_file(start.with_name(f"unharmed-{seed}.h5"), patients=30, seed=seed)
        child(probe_command(source, start / f"run-{seed}"))
    return [["compare", start / "run-0", start / "run-1", "--draws", 20, "-o", start / "out"]]


def parts(start: Path) -> list[Words]:
    sources = start.with_name("films")
    sources.mkdir()
    return [merge(start, sources)(start)]


def begun(start: Path) -> list[Words]:
    """A training that was killed after its first checkpoint, and goes on."""
    sources = start.with_name("data")
    sources.mkdir()
    words = finetune(start, sources)(start)
    checkpoint, done = start / "run" / "checkpoints" / "last.pt", start / "run" / "predictions.csv"
    while not checkpoint.exists() or done.exists():
        shutil.rmtree(start / "run", ignore_errors=True)
        training = CONTEXT.Process(target=run, args=([str(word) for word in words],))
        training.start()
        while training.is_alive() and not checkpoint.exists():
            time.sleep(0.01)
        training.kill()
        training.join()
    return [words]


KINDS: dict[str, tuple[Callable[[Path], list[Words]], int]] = {
    "embeddings": (embeddings, 32),
    "index": (index, 20),
    "probe": (probe, 16),
    "runs": (runs, 12),
    "parts": (parts, 12),
    "begun": (begun, 8),
}
"""How the files are made and which commands read them, and how many bits are flipped."""


def test_a_hundred_bits_are_flipped():
    assert sum(count for _, count in KINDS.values()) == FLIPS


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_on_a_damaged_file_says_an_error_or_the_same(kind, tmp_path):
    prepare, flips = KINDS[kind]
    place, whole = tmp_path / "place", tmp_path / "whole"
    place.mkdir()
    commands = prepare(place)
    shutil.copytree(place, whole)

    def afresh() -> None:
        shutil.rmtree(place)
        shutil.copytree(whole, place)

    before = files(whole)
    # What each command says, where that is not the moment's, and what it makes.
    truths: list[tuple[str | None, dict[str, bytes]]] = []
    for words in commands:
        first, left = command(words, place, start=False), files(place)
        afresh()
        second, again = command(words, place, start=True), files(place)
        afresh()
        assert first[0] == second[0] == 0, first[1] + second[1]
        made = {name: one for name, one in left.items() if one == again[name] and one != before.get(name)}
        assert made or first == second
        truths.append((first[1] if first == second else None, made))
    chance, errors = random.Random(kind), 0
    names = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    for number in range(flips):
        name, (words, (told, made)) = (
            chance.choice(names),
            [*zip(commands, truths, strict=True)][number % len(commands)],
        )
        (place / name).write_bytes(flipped((place / name).read_bytes(), chance))
        code, said = command(words, place, start=number % 10 == 0)
        what = f"{words[:2]}, a bit of {name}, exit code {code}: {said}"
        assert code in (0, 1), what
        assert "Traceback" not in said, what
        if code:
            errors += 1
            assert sum(line.startswith("Error: ") for line in said.splitlines()) == 1, what
        else:
            assert told in (None, said), what
            assert [output for output, one in made.items() if content(place / output) != one] == [], what
        afresh()
    print(f"{kind}: {flips} bits, {errors} errors, {flips - errors} without a difference")
    assert errors
