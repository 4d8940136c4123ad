"""Many inputs of a kind, each under limits, in children that may crash: what was found, and what was normal.

    python -m tests.fuzz.campaign dicom --inputs 2000 --seed 1 --keep found/
    python -m tests.fuzz.campaign dicom --guided

Input number i of a seed is always the same one (of a guided campaign, with the same code). Children are forked, so that
an input costs milliseconds; the parent sees which input a child died on, or hangs on, and starts the next child behind
it.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.guided import Corpus
from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import KINDS, seeds
from tests.fuzz.targets import TARGETS, feed

MOST_BYTES = 1 << 30
"""Memory that one input may cost beyond what the process has already: some frames of the largest size allowed."""

CPU_SECONDS = 20.0
WALL_SECONDS = 120.0
"""After which an input counts as hanging. The wall's is wide, for busy machines."""

_AT_WORK = struct.Struct("<q")
"""Shared with the child: the number of the input that it works on."""


@dataclass(slots=True)
class Report:
    """What came of a campaign.

    outcomes: how often. findings: input number -> what it did. found: the inputs themselves, those that could be made.
    arcs: how many the code took, 0 where nobody watched.
    """

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[int, str] = field(default_factory=dict)
    found: dict[int, bytes] = field(default_factory=dict)
    arcs: int = 0

    def __str__(self) -> str:
        normal = ", ".join(f"{count} {word}" for word, count in self.outcomes.most_common())
        arcs = f", {self.arcs} arcs" if self.arcs else ""
        lines = [f"{self.kind}: {self.outcomes.total()} inputs ({normal}){arcs}, {len(self.findings)} findings"]
        return "\n".join(lines + [f"  {number}: {text}" for number, text in sorted(self.findings.items())])


class Inputs:
    """The inputs of a kind, by number."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self._seeds = seeds(kind)

    def __getitem__(self, number: int) -> bytes:
        chance = Random(f"{self.kind} {self.seed} {number}")
        return mutated(chance.choice(self._seeds), chance, TARGETS[self.kind].mutators)


def run(kind: str, count: int, seed: int = 0, *, first: int = 0, traced: bool = False, guided: bool = False) -> Report:
    """Feed the inputs `first` ... first+count-1.

    traced: count the arcs of the code that they take. guided: make them out of those that took new ones.
    """
    with tempfile.TemporaryDirectory() as kept:
        memory = Path(kept)
        corpus = Corpus(kind, seed, memory, guided=guided) if traced or guided else None
        report = _run(corpus or Inputs(kind, seed), count, first, memory)
        if corpus:
            report.arcs = corpus.load()
        report.found = {int(path.stem): path.read_bytes() for path in memory.glob("*.found")}
    return report


def _run(inputs: Inputs | Corpus, count: int, first: int, memory: Path) -> Report:
    report = Report(inputs.kind)
    shared = mmap.mmap(-1, 8)
    number = first
    while number < first + count:
        _AT_WORK.pack_into(shared, 0, number)
        with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryDirectory() as scratch:
            child = os.fork()
            if child == 0:
                _work(inputs, number, first + count, shared, log.fileno(), Path(scratch), memory)
            fate = _watch(child, shared)
            log.seek(0)
            for line in log.read().split("\0")[:-1]:
                at, word, text = line.split("\t", 2)
                report.outcomes[word] += 1
                if text:
                    report.findings[int(at)] = text
        (number,) = _AT_WORK.unpack_from(shared)
        if fate:
            made = (memory / "now").exists()
            if made:
                (memory / "now").replace(memory / f"{number}.found")
            report.findings[number] = fate if made else f"{fate}, while the input was made: a fault of the fuzzer's"
            report.outcomes["killed"] += 1
            number += 1
    return report


def _watch(child: int, shared: mmap.mmap) -> str:
    """Wait for the child; what ended it, "" if it came to its end."""
    at, since, last = -1, time.monotonic(), time.monotonic()
    while True:
        # Who was stopped here for a while was stopped together with the child.
        since += max(time.monotonic() - last - 1.0, 0.0)
        last = time.monotonic()
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
            return f"exit code {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else ""
        if _AT_WORK.unpack_from(shared)[0] != at:
            at, since = _AT_WORK.unpack_from(shared)[0], time.monotonic()
        if time.monotonic() - since > WALL_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"no end after {WALL_SECONDS:g} s"
        time.sleep(0.02)


def _work(
    inputs: Inputs | Corpus, number: int, end: int, shared: mmap.mmap, log: int, scratch: Path, memory: Path
) -> None:
    """The child's life: feed input after input, each in a folder of its own."""
    try:
        devnull = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(devnull, stream)
        _limit_memory()
        if isinstance(inputs, Corpus):
            inputs.load()
        for at in range(number, end):
            _AT_WORK.pack_into(shared, 0, at)
            (memory / "now").unlink(missing_ok=True)
            data = inputs[at]
            (memory / "now").write_bytes(data)
            folder = scratch / "input"
            word, text = _fed(inputs, at, data, folder)
            if text:
                (memory / "now").replace(memory / f"{at}.found")
            os.write(log, f"{at}\t{word}\t{text}\0".encode("utf-8", "backslashreplace"))
        _AT_WORK.pack_into(shared, 0, end)
        os._exit(0)
    except BaseException:
        os._exit(70)


def _fed(inputs: Inputs | Corpus, at: int, data: bytes, folder: Path) -> tuple[str, str]:
    if not isinstance(inputs, Corpus):
        return _alone(data, inputs.kind, folder)
    with inputs.watching():
        word, text = _alone(data, inputs.kind, folder)
    inputs.learn(at, data)
    # Being watched takes time, and memory; what is wrong without it counts.
    return _alone(data, inputs.kind, folder) if text else (word, text)


def _alone(data: bytes, kind: str, folder: Path) -> tuple[str, str]:
    folder.mkdir()
    os.chdir(folder)
    try:
        return one(data, kind, folder)
    finally:
        os.chdir(folder.parent)
        shutil.rmtree(folder, ignore_errors=True)


def one(data: bytes, kind: str, folder: Path) -> tuple[str, str]:
    """A word for what came of an input, and what is wrong with that, "" for nothing."""
    before, began = _peak_bytes(reset=True), time.process_time()
    try:
        word, text = feed(kind, data, folder), ""
    except BaseException as error:
        where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        word, text = "finding", f"{type(error).__name__}: {str(error)[:300]} ({' '.join(where[-4:])})"
    grown, seconds = _peak_bytes() - before, time.process_time() - began
    if not text and grown > MOST_BYTES:
        word, text = "finding", f"{grown >> 20} MiB of memory ({word})"
    if not text and seconds > CPU_SECONDS:
        word, text = "finding", f"{seconds:.1f} s of computing ({word})"
    return word, text


def _limit_memory() -> None:
    """A child that takes far more than an input may is stopped before the machine is."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + 4 * MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _peak_bytes(*, reset: bool = False) -> int:
    """Highest resident memory of this process since the last reset."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> int:
    """Run from the command line; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="default: all")
    parser.add_argument("--inputs", type=int, default=2000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--traced", action="store_true", help="count the arcs of the code that the inputs take")
    parser.add_argument("--guided", action="store_true", help="make inputs out of those that took new arcs")
    parser.add_argument("--keep", type=Path, help="folder to write the inputs into that found something")
    arguments = parser.parse_args()
    found = 0
    for kind in arguments.kinds or KINDS:
        began = time.monotonic()
        report = run(
            kind,
            arguments.inputs,
            arguments.seed,
            first=arguments.first,
            traced=arguments.traced,
            guided=arguments.guided,
        )
        print(report, f"[{time.monotonic() - began:.0f} s]", flush=True)
        found += len(report.findings)
        if arguments.keep and report.found:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for number, data in report.found.items():
                (arguments.keep / f"{kind}-{arguments.seed}-{number}-{TARGETS[kind].name_of(data)}").write_bytes(data)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
