"""Versions of the packages that take part in turning files into embeddings."""

from __future__ import annotations

import platform
from importlib import metadata


def package_versions() -> dict[str, str]:
    """Python's own, and those of the packages that are installed here."""
    encode = ("panecho-embed", "torch", "timm", "torchvision", "numpy", "h5py")
    plugins = ("python-gdcm", "pyjpegls", "pylibjpeg-openjpeg", "pylibjpeg-rle")
    decode = ("opencv-python-headless", "av", "pydicom", *plugins)
    found = {name: metadata.version(name) for name in (*encode, *decode) if _installed(name)}
    return {"python": platform.python_version(), **found}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
