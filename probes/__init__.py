"""Can a task be read from embeddings? Probes that keep the scikit-learn contract, and their evaluation.

The names below load on first use, so that `panecho-embed --help` needs neither scikit-learn, torch nor faiss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.attentive import AttentiveProbe
    from probes.base import BaseProbe
    from probes.compare import compare_problems
    from probes.efficiency import LabelEfficiency
    from probes.faiss_knn import FaissKNNProbe
    from probes.foreign import adapted, known_probes
    from probes.knn import KNNProbe
    from probes.linear import LinearProbe
    from probes.outputs import RunInfo, write_run
    from probes.problem import Problem, load_problem, load_problems
    from probes.run import Evaluation, RunSettings, evaluate, label_efficiency, make_folds, run_target, subgroups_of
    from probes.saved import apply_probes, load_probes

_HOME = {
    "AttentiveProbe": "attentive",
    "BaseProbe": "base",
    "Evaluation": "run",
    "FaissKNNProbe": "faiss_knn",
    "KNNProbe": "knn",
    "LabelEfficiency": "efficiency",
    "LinearProbe": "linear",
    "Problem": "problem",
    "RunInfo": "outputs",
    "RunSettings": "run",
    "adapted": "foreign",
    "apply_probes": "saved",
    "compare_problems": "compare",
    "evaluate": "run",
    "known_probes": "foreign",
    "label_efficiency": "run",
    "load_probes": "saved",
    "load_problem": "problem",
    "load_problems": "problem",
    "make_folds": "run",
    "run_target": "run",
    "subgroups_of": "run",
    "write_run": "outputs",
}

__all__ = [
    "AttentiveProbe",
    "BaseProbe",
    "Evaluation",
    "FaissKNNProbe",
    "KNNProbe",
    "LabelEfficiency",
    "LinearProbe",
    "Problem",
    "RunInfo",
    "RunSettings",
    "adapted",
    "apply_probes",
    "compare_problems",
    "evaluate",
    "known_probes",
    "label_efficiency",
    "load_probes",
    "load_problem",
    "load_problems",
    "make_folds",
    "run_target",
    "subgroups_of",
    "write_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
