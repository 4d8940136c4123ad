"""The simulation of benchmarks/probe_coverage.py: intervals over patients hold, those over rows do not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "probe_coverage.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("probe_coverage", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["mae", "auroc"])
def test_intervals_over_patients_cover_and_those_over_rows_do_not(simulation: ModuleType, metric: str) -> None:
    by_patient, by_row = simulation.coverage(metric, patients=200, simulations=1000, draws=1000)
    assert 0.93 <= by_patient <= 0.97
    assert by_row < 0.85
