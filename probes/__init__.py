"""Can a task be read from embeddings? Probes that keep the scikit-learn contract, and their evaluation.

The commands `probe`, `probe compare`, `probe apply`, `audit` and `benchmark` are the functions `probe`, `compare`,
`apply`, `audit` and `benchmark`. The names below load on first use, so that `panecho-embed --help` needs neither
scikit-learn, torch nor faiss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.attentive import AttentiveProbe as AttentiveProbe
    from probes.base import BaseProbe as BaseProbe
    from probes.benchmarks.run import Benchmark as Benchmark
    from probes.benchmarks.run import benchmark as benchmark
    from probes.benchmarks.run import merge_benchmarks as merge_benchmarks
    from probes.commands import Audit as Audit
    from probes.commands import ProbeRun as ProbeRun
    from probes.commands import apply as apply
    from probes.commands import audit as audit
    from probes.commands import compare as compare
    from probes.commands import probe as probe
    from probes.comparison import compare_problems as compare_problems
    from probes.foreign import adapted as adapted
    from probes.knn import FaissKNNProbe as FaissKNNProbe
    from probes.knn import KNNProbe as KNNProbe
    from probes.linear import LinearProbe as LinearProbe
    from probes.outputs import RunInfo as RunInfo
    from probes.outputs import apply_probes as apply_probes
    from probes.outputs import load_probes as load_probes
    from probes.outputs import write_run as write_run
    from probes.plans import RunSettings as RunSettings
    from probes.plans import make_folds as make_folds
    from probes.problem import Problem as Problem
    from probes.problem import load_problem as load_problem
    from probes.problem import load_problems as load_problems
    from probes.registry import known_probes as known_probes
    from probes.run import Evaluation as Evaluation
    from probes.run import LabelEfficiency as LabelEfficiency
    from probes.run import evaluate as evaluate
    from probes.run import label_efficiency as label_efficiency
    from probes.run import run_target as run_target
    from probes.run import subgroups_of as subgroups_of

_HOME = {
    "Audit": "commands",
    "Benchmark": "benchmarks.run",
    "benchmark": "benchmarks.run",
    "merge_benchmarks": "benchmarks.run",
    "ProbeRun": "commands",
    "apply": "commands",
    "audit": "commands",
    "compare": "commands",
    "probe": "commands",
    "AttentiveProbe": "attentive",
    "BaseProbe": "base",
    "Evaluation": "run",
    "FaissKNNProbe": "knn",
    "KNNProbe": "knn",
    "LabelEfficiency": "run",
    "LinearProbe": "linear",
    "Problem": "problem",
    "RunInfo": "outputs",
    "RunSettings": "plans",
    "adapted": "foreign",
    "apply_probes": "outputs",
    "compare_problems": "comparison",
    "evaluate": "run",
    "known_probes": "registry",
    "label_efficiency": "run",
    "load_probes": "outputs",
    "load_problem": "problem",
    "load_problems": "problem",
    "make_folds": "plans",
    "run_target": "run",
    "subgroups_of": "run",
    "write_run": "outputs",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
