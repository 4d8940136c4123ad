"""What `from probes import ...` offers."""

from __future__ import annotations

import importlib
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import probes
from panecho_embed.store import EmbeddingFile


@pytest.mark.parametrize("name", probes.__all__)
def test_every_name_is_the_thing_itself_and_no_module(name: str) -> None:
    importlib.import_module(f"probes.{probes._HOME[name]}")
    assert not isinstance(getattr(probes, name), types.ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        probes.nothing  # noqa: B018


def test_dir_lists_what_there_is() -> None:
    assert dir(probes) == sorted(probes.__all__)


@pytest.mark.parametrize("page", ["README.md", "docs/probing.md"])
def test_the_lines_of_the_readme_run(
    page: str, embeddings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[2] / page).read_text()
    (block,) = [b for b in readme.split("```python\n")[1:] if b.startswith("from probes import")]
    monkeypatch.chdir(embeddings.parent)
    exec(block.partition("```")[0].replace("echos.h5", embeddings.name), {})
    assert "mae" in capsys.readouterr().out


def test_a_notebook_shows_a_target_of_any_name(embeddings: Path, tmp_path: Path) -> None:
    ids = EmbeddingFile(embeddings).videos["video_id"]
    labels = pd.DataFrame({"video_id": ids, "E<b>e": np.arange(len(ids), dtype=float)})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    shown = probes.probe(embeddings, "E<b>e", labels=tmp_path / "labels.csv")._repr_html_()
    assert "E&lt;b&gt;e" in shown
    assert "E<b>e" not in shown
