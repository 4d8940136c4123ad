from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.cli.next_step import next_step
from panecho_embed.evaluation.targets import Target
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.retrieval.demo_page import answer


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
    assert f"mean absolute error {scores['metrics']['mae']['value']:.1f} points" in page
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


@pytest.mark.parametrize(
    ("high", "said"), [(-0.1, "EF can be read from"), (0.1, "EF could not be shown to be readable")]
)
def test_the_answer_says_yes_only_if_the_interval_of_the_difference_does(high, said):
    def score(value, low=np.nan, high=np.nan):
        return {"mae": {"value": value, "low": low, "high": high}}

    scores = {"metrics": score(5.1, 4.8, 5.4), "baseline": score(8.9), "versus_baseline": score(-3.8, -4, high)}
    sentence = answer(Target("EF", "regression", unit="%"), scores)
    assert sentence.startswith(said)
    assert "error 5.1 points (95 % interval 4.8 to 5.4); guessing the mean: 8.9 points" in sentence
