"""The layouts that `read_manifest` knows, by name."""

from __future__ import annotations

from typing import Literal, get_args

Layout = Literal["auto", "folder", "images", "csv", "echonet-dynamic", "echonet-pediatric", "echonet-lvh"]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
