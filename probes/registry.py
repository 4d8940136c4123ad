"""Probes by name: those of this package, and those that installed packages register as entry points."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from panecho_embed.errors import ArgumentError

if TYPE_CHECKING:
    from probes.base import BaseProbe

GROUP = "panecho_embed.probes"

OWN = {
    "linear": "probes.linear:LinearProbe",
    "knn": "probes.knn:KNNProbe",
    "faiss": "probes.faiss_knn:FaissKNNProbe",
    "attentive": "probes.attentive:AttentiveProbe",
}
ADAPTED = "sklearn"  # the kind of a probe made by `adapted`; not a name that a command can ask for
_ADAPTER = "probes.foreign:SklearnProbe"


class KnownProbes(Mapping[str, "type[BaseProbe]"]):
    """Probe classes by name, each imported when it is asked for.

    Asking for one raises ArgumentError when its package can't be imported, or when it is not a `BaseProbe`; the others
    are not affected.
    """

    def __init__(self, found: Mapping[str, EntryPoint]) -> None:
        self._found = dict(found)

    def __getitem__(self, name: str) -> type[BaseProbe]:
        from probes.base import BaseProbe

        entry = self._found[name]
        try:
            kind = entry.load()
        except Exception as error:  # whatever a package raises on import
            raise ArgumentError(
                f"the probe {name!r} ({entry.value}{_origin(entry)}) can't be loaded: {type(error).__name__}: {error}"
            ) from error
        if not (isinstance(kind, type) and issubclass(kind, BaseProbe)):
            raise ArgumentError(f"the probe {name!r} ({entry.value}{_origin(entry)}) is not a subclass of BaseProbe")
        return kind

    def __contains__(self, name: object) -> bool:
        return name in self._found  # without importing it

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def value(self, name: str) -> str:
        """Where the class is, "module:Class", without importing it."""
        return self._found[name].value


def known_probes() -> KnownProbes:
    """The probes of this package, then those of the entry-point group `panecho_embed.probes`.

    A name of this package can't be taken by another one.
    """
    found = {name: EntryPoint(name, value, GROUP) for name, value in OWN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, entry)
    return KnownProbes(found)


def probe_id(probe: BaseProbe) -> str:
    """The name under which the class of a probe is found by `probe_class`; "" if it is not registered."""
    value = f"{type(probe).__module__}:{type(probe).__qualname__}"
    if value == _ADAPTER:
        return ADAPTED
    known = known_probes()
    return next((name for name in known if known.value(name) == value), "")


def probe_class(kind: str) -> type[BaseProbe]:
    """The class of a kind given by `probe_id`. Raises ArgumentError when nothing of that name is installed."""
    if kind == ADAPTED:
        module, _, name = _ADAPTER.partition(":")
        found: type[BaseProbe] = getattr(importlib.import_module(module), name)
        return found
    known = known_probes()
    if kind not in known:
        raise ArgumentError(
            f"no probe is called {kind!r}; installed are {', '.join(known)} (others register under the entry-point "
            f"group {GROUP})"
        )
    return known[kind]


def _origin(entry: EntryPoint) -> str:
    return f" of the package {entry.dist.name}" if entry.dist is not None else ""
