"""Inputs made out of earlier ones that led the code somewhere new: guided by coverage, for what is parsed in Python.

An arc is a step from one line of a source file to another. An input that takes an arc that none took before is kept,
and later inputs are made out of it (Zalewski, American Fuzzy Lop, technical whitepaper, 2016). Python's own trace
function tells the arcs, so that this needs nothing else, and the limits of the campaign hold: what crashes its process
ends that child alone.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import numpy as np

from tests.fuzz.mutate import mutated, place
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

PARSERS = {
    "dicom": ("/pydicom/",),
    "array": ("/numpy/lib/_format_impl.py", "/zipfile.py", "/ast.py"),
    "weights": ("/torch/_weights_only_unpickler.py", "/torch/serialization.py", "/pickletools.py", "/zipfile.py"),
    "recipe": ("/tomllib/",),
}
"""Pieces of the names of source files that are watched beside the package's own."""

_MOST_STEPS = 300_000
"""Of one input, after which it is no longer watched: a loop over pixels teaches nothing."""

_MOST_BYTES = 1 << 20
"""Of an input that is kept; out of larger ones come ever larger ones."""

_LONGEST_WORD = 40


class Trace:
    """The arcs that watched code takes inside the `with` block.

    words: the constants of all code met so far, as they may stand in a file: what it compares its input with.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.arcs: set[int] = set()
        self.words: list[bytes] = []
        self._files = ("/panecho_embed/", *files)
        self._numbers: dict[CodeType, int] = {}
        self._left = 0

    def __enter__(self) -> Trace:
        self.arcs, self._left = set(), _MOST_STEPS
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        number = self._numbers.get(code)
        if number is None:
            name = code.co_filename
            watched = any(piece in name for piece in self._files) and "/tests/" not in name
            number = self._numbers[code] = zlib.crc32("/".join(name.split("/")[-3:]).encode()) if watched else 0
            if watched:
                self.words += [word for word in _words(code.co_consts) if word not in self.words]
        if number == 0 or self._left <= 0:
            return None
        before = 0

        def step(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal before
            here = frame.f_lineno if event == "line" else 65535
            self.arcs.add(number << 32 | before << 16 | here)
            before = here
            self._left -= 1
            if self._left <= 0:
                sys.settrace(None)
            return step

        return step


def _words(constants: Iterable[object]) -> Iterator[bytes]:
    for one in constants:
        match one:
            case str() if 0 < len(one) <= _LONGEST_WORD:
                yield one.encode("utf-8", "surrogatepass")
            case bytes() if 0 < len(one) <= _LONGEST_WORD:
                yield one
            case bool():
                continue
            case int() if 255 < one < 1 << 32:
                yield from (one.to_bytes(2 if one < 65536 else 4, order) for order in ("little", "big"))
                yield str(one).encode()
            case tuple() | frozenset():
                # A set has no order of its own.
                yield from sorted(_words(one))


def put_word(data: bytes, chance: Random, words: Sequence[bytes]) -> bytes:
    """A word of the code's in the place of another one, or anywhere."""
    word = chance.choice(words)
    for other in chance.choices(words, k=30):
        if len(other) > 2 and other != word and (found := data.count(other)):
            parts = data.split(other)
            cut = chance.randrange(found) + 1
            return other.join(parts[:cut]) + word + other.join(parts[cut:])
    if not data:
        return word
    start = place(data, chance)
    return data[:start] + word + data[start + chance.choice((0, len(word))) :]


class Corpus:
    """The inputs of a kind that took new arcs, in a folder: it outlives the children that find them.

    guided: later inputs are made out of earlier ones; else out of the whole files alone, as in a campaign that looks at
    no arcs, so that the two can be compared. The same seed and the same code give the same inputs.
    """

    def __init__(self, kind: str, seed: int, folder: Path, *, guided: bool) -> None:
        self.kind, self._seed, self._folder, self._guided = kind, seed, folder, guided
        self._seeds = seeds(kind)
        self._kept: list[tuple[int, bytes]] = []
        self._arcs: set[int] = set()
        self._trace = Trace(PARSERS.get(kind, ()))

    def load(self) -> int:
        """Read what the children before kept; the number of arcs."""
        self._kept, self._arcs = [], set()
        for path in sorted(self._folder.glob("*.arcs"), key=lambda path: int(path.stem)):
            depth, *arcs = np.load(path).tolist()
            self._arcs.update(arcs)
            if path.with_suffix(".input").exists():
                self._kept.append((depth, path.with_suffix(".input").read_bytes()))
        return len(self._arcs)

    def __getitem__(self, number: int) -> bytes:
        chance = Random(f"{self.kind} {self._seed} {number}")
        mutators = TARGETS[self.kind].mutators
        data = chance.choice(self._seeds)
        if not self._guided:
            return mutated(data, chance, mutators)
        if self._kept and chance.random() < 0.7:
            # Of two, the one that came further: most of what is new is a new way to be refused early.
            _, data = max(chance.choices(self._kept, k=2), key=lambda kept: kept[0])
        # One change at a time leaves most inputs readable; what it leads to is changed further.
        if self._trace.words and chance.random() < 0.5:
            return put_word(data, chance, self._trace.words)
        return mutated(data, chance, mutators)

    def watching(self) -> Trace:
        """To feed an input in."""
        return self._trace

    def learn(self, number: int, data: bytes) -> None:
        """Keep the input just fed, if it took arcs that none did before."""
        new = self._trace.arcs - self._arcs
        if not new:
            return
        self._arcs |= new
        if self._guided and len(data) <= _MOST_BYTES:
            self._kept.append((len(self._trace.arcs), data))
            (self._folder / f"{number}.input").write_bytes(data)
        np.save(self._folder / f"{number}.npy", np.array([len(self._trace.arcs), *sorted(new)], dtype=np.uint64))
        (self._folder / f"{number}.npy").replace(self._folder / f"{number}.arcs")
