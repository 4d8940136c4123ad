"""What a pickle would unfold into, found out before anything unpickles it.

`torch.load(weights_only=True)` runs no code, but it builds what it is told to: a tuple of tuples that is small in the
file and endless to hash, or millions of objects out of a few compressed bytes. Formats: pickletools of the standard
library; a .pt file is a zip archive with a `data.pkl`, or (before torch 1.6) five pickles in a row.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import IO, Any, BinaryIO

MOST_PICKLE_BYTES = 8 << 20
"""Of the pickle of one weights file; one that lists ten thousand arrays has less than two."""

MOST_PARTS = 1_000_000
"""Of one tuple, counted as often as they stand in it."""

MOST_OPCODES = 2_000_000
"""Of one pickle: thirty or so make an array."""

_LEGACY_PICKLES = 5
_ZIP = b"PK\x03\x04"


def check_pickles(stream: BinaryIO) -> None:
    """Raise ValueError if a .pt file's pickles unfold into more than any weights do; the stream is rewound.

    Other damage is left to the reader to find.
    """
    try:
        # As torch tells them apart: a file can be both at once.
        if stream.read(len(_ZIP)) == _ZIP:
            _check_archive(stream)
        else:
            stream.seek(0)
            # In memory, since a stream makes room for as many bytes as a text claims to have.
            head = io.BytesIO(stream.read(MOST_PICKLE_BYTES))
            for _ in range(_LEGACY_PICKLES):
                _check(head)
    finally:
        stream.seek(0)


def _check_archive(stream: BinaryIO) -> None:
    with zipfile.ZipFile(stream) as archive:
        for item in archive.infolist():
            if not item.filename.endswith(".pkl"):
                continue
            if item.file_size > MOST_PICKLE_BYTES:
                raise ValueError(f"its {item.filename} has {item.file_size:,} bytes, more than any list of arrays")
            _check(io.BytesIO(archive.read(item)))


def _check(file: IO[bytes]) -> None:
    """Follow the sizes of what a pickle builds, by the stack effect of each of its opcodes."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MOST_OPCODES:
            raise ValueError(f"its pickle has more than {MOST_OPCODES:,} steps, more than any list of arrays")
        name = opcode.name
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1] if stack else 1
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo.get(int(argument), 1))
        elif name == "DUP":
            stack.append(stack[-1] if stack else 1)
        else:
            parts = _taken(stack, marks, opcode)
            if "TUPLE" in name and parts > MOST_PARTS:
                raise ValueError(f"its pickle holds a tuple of more than {MOST_PARTS:,} parts within parts")
            stack += [1 + parts] * len(opcode.stack_after)


def _taken(stack: list[int], marks: list[int], opcode: pickletools.OpcodeInfo) -> int:
    """Take from the stack what an opcode takes; the sum of the sizes."""
    before = opcode.stack_before
    below = len(before)
    parts = 0
    if pickletools.markobject in before:
        below = before.index(pickletools.markobject)
        start = marks.pop() if marks else 0
        parts += sum(stack[start:])
        del stack[start:]
    for _ in range(min(below, len(stack))):
        parts += stack.pop()
    return min(parts, 1 << 62)
