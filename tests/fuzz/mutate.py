"""Whole files to damaged and hostile ones. Each mutator is bytes and a source of chance -> bytes, and never fails."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

Mutator = Callable[[bytes, Random], bytes]

LARGE = (0, 1, 2, 3, 7, 15, 127, 128, 255, 256, 32767, 32768, 60_000, 65535, 10**6, 10**9, 2**31 - 1, 2**31, 2**32 - 1)
"""Numbers at which parsers break: around powers of two, and what a header may claim to make a reader allocate."""

_WORDS = ("<H", ">H", "<I", ">I", "<Q", ">Q")


def mutated(data: bytes, chance: Random, mutators: Sequence[Mutator]) -> bytes:
    """`data` after one to three of the mutators; the raw ones, which know no format, are always among the choices."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        # A format's own mutators get further into it than flipped bits.
        pool = mutators if mutators and chance.random() < 0.65 else RAW
        data = chance.choice(pool)(data, chance)
    return data


def number(chance: Random) -> int:
    """A number that parsers break at, or beside one."""
    return max(chance.choice(LARGE) + chance.choice((0, 0, 0, -1, 1)), 0)


def put(data: bytes, position: int, form: str, value: int) -> bytes:
    """`data` with a number, cut to its width, at a position; unchanged where it does not fit in."""
    size = struct.calcsize(form)
    if not 0 <= position <= len(data) - size:
        return data
    return data[:position] + struct.pack(form, value % (1 << 8 * size)) + data[position + size :]


def flip_bits(data: bytes, chance: Random) -> bytes:
    """One to sixteen bits the other way, mostly where something is written."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def random_bytes(data: bytes, chance: Random) -> bytes:
    """A run of chance in place of what stood there."""
    if not data:
        return chance.randbytes(64)
    start = place(data, chance)
    run = chance.randbytes(chance.choice((1, 2, 4, 8, 64)))
    return data[:start] + run + data[start + len(run) :]


def put_number(data: bytes, chance: Random) -> bytes:
    """A number that parsers break at, anywhere, in any width and order."""
    if not data:
        return data
    return put(data, place(data, chance), chance.choice(_WORDS), number(chance))


def cut(data: bytes, chance: Random) -> bytes:
    """The beginning alone."""
    return data[: chance.randrange(len(data) + 1)]


def remove(data: bytes, chance: Random) -> bytes:
    """Without a piece in the middle."""
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.choice((1, 2, 8, 64, 1024)) :]


def repeat(data: bytes, chance: Random) -> bytes:
    """A piece twice, or many times."""
    start = chance.randrange(len(data) + 1)
    piece = data[start : start + chance.choice((1, 8, 64, 1024))]
    return data[:start] + piece * chance.choice((2, 3, 200)) + data[start:]


def swap(data: bytes, chance: Random) -> bytes:
    """A piece over another place."""
    length = chance.choice((1, 4, 16, 256))
    if len(data) <= length:
        return data
    source, target = (chance.randrange(len(data) - length) for _ in range(2))
    return data[:target] + data[source : source + length] + data[target + length :]


def append(data: bytes, chance: Random) -> bytes:
    """Something behind the end."""
    return data + chance.choice((b"\0" * 512, b"\xff" * 16, chance.randbytes(64), data[:256]))


RAW: tuple[Mutator, ...] = (flip_bits, random_bytes, put_number, cut, remove, repeat, swap, append)


def place(data: bytes, chance: Random) -> int:
    """A position, four times in five one where not zero stands: the space between is no news."""
    if chance.random() < 0.8:
        written = np.flatnonzero(np.frombuffer(data, np.uint8))
        if len(written):
            return int(written[chance.randrange(len(written))])
    return chance.randrange(len(data))
