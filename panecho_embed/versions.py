"""Versions of the packages that take part in turning files into embeddings."""

from __future__ import annotations

import platform
from importlib import metadata


def package_versions() -> dict[str, str]:
    """Python's own, and those of the packages that are installed here."""
    packages = ("panecho-embed", "torch", "timm", "torchvision", "numpy", "opencv-python-headless", "pydicom", "h5py")
    found = {name: metadata.version(name) for name in packages if _installed(name)}
    return {"python": platform.python_version(), **found}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
