from __future__ import annotations

from pathlib import Path

import pytest

from panecho_embed.core.cache import cache_folder


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "~/.cache/panecho-embed/read"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/panecho-embed/read"),
        ({"XDG_CACHE_HOME": "/xdg", "PANECHO_EMBED_CACHE": "/mine"}, "/mine/read"),
        ({"PANECHO_EMBED_CACHE": "~/mine"}, "~/mine/read"),
    ],
)
def test_where_the_cache_is(monkeypatch, settings, expected):
    for name in ("XDG_CACHE_HOME", "PANECHO_EMBED_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("read") == Path(expected).expanduser()
