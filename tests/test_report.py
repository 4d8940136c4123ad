"""The HTML page: self-contained, escaped, whole."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure as MatplotlibFigure

from panecho_embed.core.errors import StoreError
from panecho_embed.evaluation import page as report

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Balance(HTMLParser):
    """Counts what is open, and collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawing(colour: str = report.SERIES[0]) -> MatplotlibFigure:
    figure = MatplotlibFigure()
    figure.add_subplot().plot([0, 1], [0, 1], color=colour)
    return figure


def page() -> str:
    sections = [
        report.Section(
            "Everything",
            [
                report.Text("text"),
                report.Text("careful", "warning"),
                report.Code("panecho-embed probe"),
                report.Facts({"Backbone": "panecho"}),
                report.Table(["a", "b"], [["x", "1"]], "caption"),
                report.Table(["a", "b"], [["x", "1"]], "more", folded=True),
                report.Folded("closed", [report.Text("inside"), report.figure(drawing(), "four")]),
                report.figure(drawing(), "one"),
                report.Figures([report.figure(drawing(), "two"), report.figure(drawing(), "three")]),
            ],
        )
    ]
    return report.render("Title", "subtitle", sections)


def test_page_fetches_nothing_and_closes_what_it_opens() -> None:
    parser = Balance()
    parser.feed(page())
    assert parser.open == []
    assert all(target.startswith(("#", "data:")) for target in parser.fetched)
    assert not re.search(r"url\((?!#)|@import|<script", page())


def test_ids_of_different_figures_differ() -> None:
    definitions = re.findall(r'<(?:clipPath|path) id="([^"]+)"', page())
    assert definitions
    assert len(set(definitions)) == len(definitions)


def test_colours_of_figures_follow_the_page() -> None:
    svg = report.figure(drawing(report.SERIES[1]), "x").svg
    assert "var(--second)" in svg
    assert report.SERIES[1] not in svg


def test_texts_are_escaped() -> None:
    html = report.render("<b>", "&", [report.Section("<i>", [report.Table(["<u>"], [["<script>alert(1)</script>"]])])])
    assert "<script>" not in html
    assert "&lt;b&gt;" in html


def test_same_figure_same_text() -> None:
    assert report.figure(drawing(), "x") == report.figure(drawing(), "x")


def test_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report.write_report(tmp_path / "r.html", "t", "s", [])
    assert (tmp_path / "r.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    with pytest.raises(StoreError, match="can't write"):
        report.write_report(tmp_path / "none" / "r.html", "t", "s", [])
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
