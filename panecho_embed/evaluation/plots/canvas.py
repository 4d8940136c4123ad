"""The look that all figures share: axes, colours, legends, points."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from panecho_embed.report import FIRST, INK, MUTED, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.floating[Any]]

MARKERS = ("o", "s", "^", "D", "v", "P")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_MANY_POINTS = 3000  # above, points of a scatter are drawn as a picture: an SVG of them would be megabytes


class PlainFigure(Figure):
    """A figure whose texts are shown as they are: a label with two dollar signs is no formula.

    Control characters are shown as escapes: no font has them, and SVG does not allow them.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw with the texts as they are."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_text(_plain(text.get_text()))
        for axis in (axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)):
            # Ticks get their texts anew whenever they are drawn.
            formatter = axis.get_major_formatter()
            if not isinstance(formatter.format_ticks, partial):
                formatter.format_ticks = partial(_plain_ticks, formatter.format_ticks)  # type: ignore[method-assign]
        super().draw(renderer)


def _plain(text: str) -> str:
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def _plain_ticks(format_ticks: Callable[[Any], list[str]], values: Any) -> list[str]:
    return [_plain(text) for text in format_ticks(values)]


def new_axes(width: float = 4.4, height: float = 4.1) -> tuple[Figure, Axes]:
    """An empty figure in the style of the reports; width and height in inches."""
    figure = PlainFigure(figsize=(width, height), layout="constrained")
    return figure, styled(figure.add_subplot())


def styled(axes: Axes) -> Axes:
    """The same axes in the style of the reports."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.patch.set_alpha(0)
    return axes


def colours() -> Iterator[str]:
    """The series' colours, again and again."""
    return cycle(SERIES)


def legend(axes: Axes, place: Literal["best", "lower left", "lower right", "above"] = "best") -> None:
    """A legend without a frame; "above" the axes where nothing within them may be covered."""
    if place == "above":
        axes.figure.legend(frameon=False, fontsize=8, labelcolor=INK, loc="outside upper left", ncols=2)
    else:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc=place)


def points(axes: Axes, x: Floats, y: Floats) -> None:
    """A cloud of points, light enough for a page however many they are."""
    many = len(x) > _MANY_POINTS
    axes.scatter(x, y, s=6 if many else 12, alpha=0.3 if many else 0.5, color=FIRST, linewidths=0, rasterized=many)


def identity(axes: Axes, low: float, high: float) -> None:
    """The dashed line on which prediction and truth agree; both axes get the same scale."""
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="--", zorder=0)
    axes.set_aspect("equal", adjustable="box")
