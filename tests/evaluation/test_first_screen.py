"""Reports in a real browser: the answer and its figure are on the first screen, and a phone shows every table."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from panecho_embed.evaluation.report import Account, write_run_report
from panecho_embed.evaluation.scores import score
from tests.evaluation.look import FLAGS, SIZES
from tests.evaluation.made import EF, LOW, made

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module", params=[1, 2], ids=["one target", "two targets"])
def report(request, tmp_path_factory) -> Path:
    targets = [score(made(target, 3.0), draws=100) for target in (EF, LOW)[: request.param]]
    account = Account("Linear probe", "of a test", warnings=["Be careful."], methods=["How."], command="panecho-embed")
    return write_run_report(tmp_path_factory.mktemp("report"), targets, account)


def test_the_answer_and_its_figure_are_on_the_first_screen(browser, report):
    width, height = SIZES["desktop"]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(report.as_uri())
    for selector in (".finding", ".lead svg", ".lead figcaption", ".lead .warning"):
        box = page.locator(selector).last.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height, selector
    page.close()


def test_a_phone_shows_every_cell_with_its_name_and_nothing_beyond_its_edge(browser, report):
    width, height = SIZES["phone"]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = "[...document.querySelectorAll('td')].filter(c => c.getBoundingClientRect().right > innerWidth).length"
    assert page.evaluate(wide) == 0
    named = "getComputedStyle(document.querySelector('td:nth-child(2)'), '::before').content"
    assert page.evaluate(named) in ('"Value"', '"Metric"')
    page.close()
