"""Probes by name: those of this package, and those that installed packages register as entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from panecho_embed.core.errors import ArgumentError

if TYPE_CHECKING:
    from probes.base import BaseProbe

_GROUP = "panecho_embed.probes"

_OWN = {
    "linear": "probes.linear:LinearProbe",
    "knn": "probes.knn:KNNProbe",
    "faiss": "probes.knn:FaissKNNProbe",
    "attentive": "probes.attentive:AttentiveProbe",
}
# The kind of a probe made by `adapted`; not a name that a command can ask for.
_ADAPTER = EntryPoint("sklearn", "probes.foreign:SklearnProbe", _GROUP)


def known_probes() -> dict[str, EntryPoint]:
    """Probes by name, none of them imported: those of this package, then the entry points of `panecho_embed.probes`.

    A name of this package can't be taken by another one. `probe_class` imports one.
    """
    found = {name: EntryPoint(name, value, _GROUP) for name, value in _OWN.items()}
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, entry)
    return found


def probe_id(probe: BaseProbe) -> str:
    """The name under which the class of a probe is found by `probe_class`; "" if it is not registered."""
    value = f"{type(probe).__module__}:{type(probe).__qualname__}"
    if value == _ADAPTER.value:
        return _ADAPTER.name
    return next((name for name, entry in known_probes().items() if entry.value == value), "")


def probe_class(kind: str) -> type[BaseProbe]:
    """The class of a kind given by `probe_id`.

    Raises ArgumentError when nothing of that name is installed, when its package can't be imported, or when it is not a
    `BaseProbe`.
    """
    from probes.base import BaseProbe

    known = known_probes()
    if kind not in known and kind != _ADAPTER.name:
        raise ArgumentError(
            f"no probe is called {kind!r}; installed are {', '.join(known)} (others register under the entry-point "
            f"group {_GROUP})"
        )
    entry = known.get(kind, _ADAPTER)
    origin = f" of the package {entry.dist.name}" if entry.dist is not None else ""
    try:
        found = entry.load()
    except Exception as error:  # whatever a package raises on import
        raise ArgumentError(
            f"the probe {kind!r} ({entry.value}{origin}) can't be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseProbe)):
        raise ArgumentError(f"the probe {kind!r} ({entry.value}{origin}) is not a subclass of BaseProbe")
    return found
