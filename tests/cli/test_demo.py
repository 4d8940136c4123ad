from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.cli.next_step import next_step
from panecho_embed.core.wording import number
from panecho_embed.models.panecho import PanEcho, save_checkpoint


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The printed lines and the folder of a demo of ten patients with tiny weights."""
    root = tmp_path_factory.mktemp("demo")
    with torch.random.fork_rng(devices=[]):
        save_checkpoint(PanEcho(pretrained=False, width=1 / 12), root / "panecho.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANECHO_EMBED_WEIGHTS", str(root / "panecho.pt"))
        result = CliRunner().invoke(main, ["demo", "--patients", "10", "-o", str(root / "demo")])
    assert result.exit_code == 0, result.output
    return result.output.splitlines(), root / "demo"


def test_the_last_line_is_the_path_of_a_page_that_asks_for_nothing(demo):
    lines, folder = demo
    assert Path(lines[-1]) == folder / "demo.html"
    page = Path(lines[-1]).read_text()
    outside = [link for link in re.findall(r"(?:src|href)=.([^\"\' ]{1,60})", page) if not link.startswith("data:")]
    assert outside == []
    assert "default-src 'none'" in page
    assert page.count("data:image/webp") == 10


def test_the_page_shows_the_runs_own_figures(demo):
    _, folder = demo
    page = html.unescape((folder / "demo.html").read_text())
    scores = json.loads((folder / "10-patients-panecho-probe" / "metrics.json").read_text())["targets"]["EF"]
    report = html.unescape((folder / "10-patients-panecho-probe" / "report.html").read_text())
    assert f"mean error {number(scores['metrics']['mae']['value'])} points" in scores["answer"]
    assert f'<p class="answer">{scores["answer"]}</p>' in page
    assert scores["answer"] in report
    facts = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])
    measured = [video["measured"] for video in facts]
    assert measured == sorted(measured)
    for place, video in enumerate(facts):
        near, cosines = zip(*video["near"], strict=True)
        assert place not in near
        assert list(cosines) == sorted(cosines, reverse=True)


def test_the_commands_printed_and_shown_run_as_they_are(demo):
    lines, folder = demo
    printed = [line.strip() for line in lines[lines.index("next:") + 1 :] if line.startswith("  ")]
    page = html.unescape((folder / "demo.html").read_text())
    assert re.findall(r"<pre><code>(.*?)</code></pre>", page) == printed
    start = shlex.split(next_step(anywhere=True))
    assert Path(start[0]).resolve().is_file()
    commands = [shlex.split(line) for line in printed]
    assert [one[: len(start)] for one in commands] == [start] * 3
    assert [one[len(start)] for one in commands] == ["probe", "search", "serve"]
    for one in commands[:2]:
        result = CliRunner().invoke(main, one[len(start) :])
        assert result.exit_code == 0, result.output
    assert (folder / "similar.html").is_file()
