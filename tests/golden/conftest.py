from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.golden import PANECHO, write_panecho


@pytest.fixture(scope="session")
def golden() -> Mapping[str, np.ndarray]:
    """What the published code gave."""
    with np.load(PANECHO) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that it was given, in the released layout."""
    return write_panecho(tmp_path_factory.mktemp("golden") / "panecho.pt")
