"""What is printed can be printed: no id, label or path of a file moves the cursor, or rewrites what is there."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click

# All control characters but tab and line end, and those that turn the direction of writing round.
_CONTROLS = re.compile(r"(?!\r\n)[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LINE_ENDS = re.compile(r"[\t\n\r\u2028\u2029]")
# Progress bars go up to another's line, in a separate piece.
_UP = re.compile(r"(\x1b\[A)+")


def echo_line(text: str, *, err: bool = False) -> None:
    """Print `text` as one line, for what holds ids, paths or messages of files: their line ends become escapes.

    A file called "a\\n20 of 20 videos done" must not be able to say so.
    """
    click.echo(_escaped(_LINE_ENDS, text), err=err)


@contextmanager
def printable_streams() -> Iterator[None]:
    """Inside the block, control characters on standard output and error become escapes, such as \\x1b.

    Tabs and line ends stay, and on standard error what progress bars need. Names that the terminal's encoding lacks, or
    that are no text at all, become escapes too.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
        stream.write = _escaping(stream, bars=stream is sys.stderr)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for stream in streams:
            with suppress(AttributeError):
                del stream.write


def _escaping(stream: io.TextIOWrapper, *, bars: bool) -> Callable[[str], int]:
    write = type(stream).write

    def escaped(text: str) -> int:
        return write(stream, escape_controls(text, bars=bars))

    return escaped


def escape_controls(text: str, *, bars: bool = False) -> str:
    """`text` with an escape for every control character but tabs and line ends.

    bars: `text` may be what a progress bar writes: it may begin with a carriage return, or be nothing but ways up.
    """
    if bars and _UP.fullmatch(text):
        return text
    if bars and text.startswith("\r"):
        return "\r" + escape_controls(text[1:])
    return _escaped(_CONTROLS, text)


def _escaped(what: re.Pattern[str], text: str) -> str:
    return what.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
