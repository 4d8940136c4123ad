"""Can a task be read from embeddings? Probes that keep the scikit-learn contract, and their honest evaluation.

The names below load on first use, so that `panecho-embed --help` needs neither scikit-learn, torch nor faiss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.evaluate import Evaluation, evaluate, make_folds
    from probes.linear import LinearProbe
    from probes.problem import Problem, load_problem, load_problems

_HOME = {
    "Evaluation": "evaluate",
    "LinearProbe": "linear",
    "Problem": "problem",
    "evaluate": "evaluate",
    "load_problem": "problem",
    "load_problems": "problem",
    "make_folds": "evaluate",
}

__all__ = ["Evaluation", "LinearProbe", "Problem", "evaluate", "load_problem", "load_problems", "make_folds"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
