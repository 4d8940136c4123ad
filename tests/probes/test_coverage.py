"""The simulation of benchmarks/probe_coverage.py: intervals over patients hold, those over rows do not.

Of rare classes and high values: tests/evaluation/test_estimates.py.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "probe_coverage.py"


@pytest.fixture(scope="module")
def simulation() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("probe_coverage", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["mae", "auroc"])
def test_intervals_over_patients_cover_and_those_over_rows_do_not(simulation: ModuleType, metric: str) -> None:
    by_patient, by_row = simulation.coverage(metric, patients=200, simulations=1000, draws=1000)
    assert 0.93 <= by_patient <= {"mae": 0.97, "auroc": 0.985}[metric]  # that of AUROC is conservative
    assert by_row < 0.85
