"""How far a long step is, on a terminal alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Show(Protocol):
    """Is told how far a step is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """So much is done, of how much, and of which step."""
        ...


@contextmanager
def progress_bar(unit: str) -> Iterator[Show]:
    """A bar of things so called; it is gone in the end."""
    from tqdm import tqdm

    with tqdm(unit=unit, disable=None, leave=False) as bar:

        def show(done: int, total: int, what: str = "") -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)
            if done in (0, total):
                bar.refresh()

        yield show
