"""How long work says where it is: lines to whoever listens, and a bar on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

Announce = Callable[[str], object]
"""Called with a line that a person should read while the work goes on."""


class Progress(Protocol):
    """Called with how far a step is."""

    def __call__(self, done: int, total: int, what: str = "") -> object:
        """So much is done, of how much, and of which step."""
        ...


def silent(*_: object, **__: object) -> None:
    """Tell nobody; an `Announce` and a `Progress`."""


def progress_bar(unit: str, shown: bool | None = None, **options: Any) -> Any:
    """A bar of things so called, of tqdm. shown: None shows it on a terminal only. options: more of tqdm's own."""
    from tqdm import tqdm

    return tqdm(unit=unit, disable=None if shown is None else not shown, **options)


@contextmanager
def shown_progress(unit: str, *, leave: bool = False) -> Iterator[Progress]:
    """A bar on a terminal, to be called as a `Progress`. leave: the bar stays in the end."""
    with progress_bar(unit, leave=leave) as bar:

        def show(done: int, total: int, what: str = "") -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)
            if done in (0, total):
                bar.refresh()

        yield show
