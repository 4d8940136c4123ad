"""One self-contained HTML file: text, tables and figures that open offline, in light and dark, and print well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed._version import __version__
from panecho_embed.core.outputs import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

# Colours to draw figures with: in the page each becomes the CSS variable beside it, so dark mode reaches the figures.
INK = "#1d2733"
MUTED = "#8593a1"
SERIES = ("#2166ac", "#c8553d", "#4d9a6a", "#8a63a6", "#b0801a", "#2b8c99")
_NAMES = ("ink", "muted", "first", "second", "third", "fourth", "fifth", "sixth")
_VARIABLES = dict(zip((INK, MUTED, *SERIES), _NAMES, strict=True))


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. kind: "" or "warning" or "note"."""

    text: str
    kind: str = ""

    template = "text"


@dataclass(frozen=True, slots=True)
class Code:
    """Something to copy, shown unchanged."""

    text: str

    template = "code"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, one a line."""

    facts: Mapping[str, str]

    template = "facts"


@dataclass(frozen=True, slots=True)
class Link:
    """A table cell that leads to another page. href: relative to this one."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table; its first column is text, the others are numbers, aligned to the right.

    On a phone each row becomes a card of names and values. folded: closed until clicked. wrapped: all cells except the
    first of a row may take several lines, so that a page holds it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    caption: str = ""
    folded: bool = False
    wrapped: bool = False

    template = "table"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing, and what is to be seen in it."""

    svg: str
    caption: str

    template = "figure"


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures side by side, as many as the page has room for."""

    figures: Sequence[Figure]

    template = "figures"


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks that stay closed until their title is clicked."""

    title: str
    blocks: Sequence[Block]

    template = "folded"


@dataclass(frozen=True, slots=True)
class Lead:
    """The first screen: what was found in a sentence each, one figure beside it, and what to be careful about.

    verdict: the finding in two or three words; "" where there are several. tone: "good", "bad" or "" for the rest.
    """

    sentences: Sequence[str]
    figure: Figure | None = None
    warnings: Sequence[str] = ()
    verdict: str = ""
    tone: str = ""

    template = "lead"


Block = Text | Code | Facts | Table | Figure | Figures | Folded | Lead


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks below it. title: "" for the first screen, which needs none."""

    title: str
    blocks: Sequence[Block]


def figure(drawing: MatplotlibFigure, caption: str) -> Figure:
    """A matplotlib figure as a block; its text stays text, and its colours follow the page where they are ours."""
    import matplotlib as mpl

    buffer = BytesIO()
    # The salt makes the ids inside an SVG its own: a page holds several, and ids are page-wide.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption}):
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Figure(svg, caption)


def picture_file(drawn: Figure) -> str:
    """The drawing as a separate SVG file: the colours that it was drawn with, on white."""
    svg = drawn.svg
    for colour, name in _VARIABLES.items():
        svg = svg.replace(f"var(--{name})", colour)
    end = svg.index(">") + 1
    return f'{svg[:end]}<rect width="100%" height="100%" fill="#ffffff"/>{svg[end:]}'


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML text; whatever is in titles, texts and tables is escaped."""
    import jinja2

    source = resources.files("panecho_embed.evaluation").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source).render(
        title=title, subtitle=subtitle, sections=sections, version=__version__
    )


def write_report(path: str | Path, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write the page; it appears at `path` only when it is whole. Raises StoreError where that isn't possible."""
    return write_text(path, render(title, subtitle, sections))
