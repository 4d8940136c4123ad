"""Can a task be read from embeddings? Probes that keep the scikit-learn contract, and their honest evaluation.

The names below load on first use, so that `panecho-embed --help` needs neither scikit-learn, torch nor faiss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.attentive import AttentiveProbe
    from probes.compare import Comparison, compare_problems
    from probes.efficiency import LabelEfficiency, label_efficiency
    from probes.evaluation import Evaluation, evaluate, make_folds
    from probes.faiss_knn import FaissKNNProbe
    from probes.knn import KNNProbe
    from probes.linear import LinearProbe
    from probes.problem import Problem, load_problem, load_problems
    from probes.saved import apply_probes, load_probes
    from probes.subgroups import subgroup_scores

_HOME = {
    "AttentiveProbe": "attentive",
    "Comparison": "compare",
    "Evaluation": "evaluation",
    "FaissKNNProbe": "faiss_knn",
    "KNNProbe": "knn",
    "LabelEfficiency": "efficiency",
    "LinearProbe": "linear",
    "Problem": "problem",
    "apply_probes": "saved",
    "compare_problems": "compare",
    "evaluate": "evaluation",
    "label_efficiency": "efficiency",
    "load_probes": "saved",
    "load_problem": "problem",
    "load_problems": "problem",
    "make_folds": "evaluation",
    "subgroup_scores": "subgroups",
}

__all__ = [
    "AttentiveProbe",
    "Comparison",
    "Evaluation",
    "FaissKNNProbe",
    "KNNProbe",
    "LabelEfficiency",
    "LinearProbe",
    "Problem",
    "apply_probes",
    "compare_problems",
    "evaluate",
    "label_efficiency",
    "load_probes",
    "load_problem",
    "load_problems",
    "make_folds",
    "subgroup_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
