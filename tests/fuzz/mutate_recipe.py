"""Mutators that know the structure of recipes."""

from __future__ import annotations

import re
from random import Random

from tests.fuzz.mutate import number

_VALUES = (
    "inf",
    "-inf",
    "nan",
    "-1",
    "0",
    "1e400",
    "1e-400",
    "true",
    '""',
    '"x"',
    "[]",
    "[[]]",
    '["a", "a"]',
    "[1, 2]",
    "{}",
    "{a = 1}",
    "1979-05-27",
    "07:32:00",
    "0xff",
    "1_000",
    '"\\ud800"',
    '"\\u0000"',
    '"""\n"""',
    "'x'",
    "9" * 400,
    "9" * 5000,
    '"' + "a" * 70_000 + '"',
    "[" + "1," * 20_000 + "]",
)
_LINE = re.compile(rb"^([\w.-]+)\s*=\s*(.*)$", re.MULTILINE)


def setting(data: bytes, chance: Random) -> bytes:
    """Another value, name or place of a setting."""
    found = list(_LINE.finditer(data))
    if not found:
        return bomb(data, chance)
    one, other = chance.choice(found), chance.choice(found)
    value = chance.choice((*_VALUES, str(number(chance)))).encode()
    match chance.randrange(6):
        case 0 | 1 | 2:
            return data[: one.start(2)] + value + data[one.end(2) :]
        case 3:
            return data[: one.start(1)] + other[1] + data[one.end(1) :]
        case 4:
            return data[: one.start()] + data[one.end() :]
        case _:
            return data[: one.start()] + b"[" + one[1] + b"]\n" + data[one.start() :]


def bomb(data: bytes, chance: Random) -> bytes:
    """Small, and long to read."""
    depth = chance.choice((100, 2000, 100_000))
    return data + chance.choice(
        (
            b"\nx = " + b"[" * depth,
            b"\nx = " + b"{a=" * depth,
            b"\n" + b"a." * depth + b"b = 1",
            b"\n[" + b"a." * depth + b"b]",
            b"\n[[a]]" * depth,
            b"".join(b"\nkey%d = 1" % i for i in range(depth)),
            b"\n" + b"k" * depth + b" = 1",
            b"\n# \xff",
            b"\n# \xed\xa0\x80",
        )
    )
