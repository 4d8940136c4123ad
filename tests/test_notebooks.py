"""Every notebook runs from top to bottom; what notebooks and benchmarks import is there."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def code(path):
    """Python code of a script, or of a notebook's cells without their magic commands."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    lines = "\n".join(cell.source for cell in cells if cell.cell_type == "code").splitlines()
    return "\n".join(line for line in lines if not line.startswith("%"))


def imported(path):
    """(module, name) for every name that a file imports from the packages, at its top or in a function."""
    for node in ast.walk(ast.parse(code(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module):
            yield from ((node.module, alias.name) for alias in node.names)


def is_ours(module):
    return module.split(".")[0] in {"panecho_embed", "probes"}


def is_there(module, name):
    try:
        found = importlib.import_module(module)
        return not name or hasattr(found, name) or find_spec(f"{module}.{name}") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("path", NOTEBOOKS + BENCHMARKS, ids=lambda path: path.stem)
def test_what_it_imports_is_there(path):
    missing = [f"{module}.{name}" for module, name in imported(path) if not is_there(module, name)]
    assert not missing


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")
