"""What `from probes import ...` offers."""

from __future__ import annotations

import importlib
import types

import pytest

import probes


@pytest.mark.parametrize("name", probes.__all__)
def test_every_name_is_the_thing_itself_and_no_module(name: str) -> None:
    importlib.import_module(f"probes.{probes._HOME[name]}")
    assert not isinstance(getattr(probes, name), types.ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        probes.nothing  # noqa: B018


def test_dir_lists_what_there_is() -> None:
    assert dir(probes) == sorted(probes.__all__)
