from __future__ import annotations

import re
from pathlib import Path

import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.models.panecho import PanEcho, save_checkpoint


def test_the_demo_ends_with_pictures_and_a_report_that_are_there(tmp_path, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        save_checkpoint(PanEcho(pretrained=False, width=1 / 12), tmp_path / "panecho.pt")
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(tmp_path / "panecho.pt"))
    result = CliRunner().invoke(main, ["demo", "--patients", "8", "-o", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    named = re.findall(r"^  (\S+\.svg)$|open (\S+\.html)$", result.output, re.MULTILINE)
    files = [Path(picture or page) for picture, page in named]
    assert {file.suffix for file in files} == {".svg", ".html"}
    assert all(file.is_file() for file in files)
