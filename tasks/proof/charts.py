"""Bars that are drawn in SVG: where each is and what is written beside it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# In units of the drawing, which are pixels where it is shown at its own size. Names stand left of
# the bars and figures right of the longest, so that no text meets another.
WIDTH, ROW, THICK = 380, 30, 16
NAMES, FIGURES = 96, 104


class Value(NamedTuple):
    """A named figure, how it is written, and the least and the most where it was measured often."""

    name: str
    value: float
    text: str
    least: float | None = None
    most: float | None = None


class Bar(NamedTuple):
    """A bar from the names on, and the line that shows the spread, from ``low`` to ``high``."""

    name: str
    text: str
    y: int
    width: float
    low: float | None
    high: float | None


class Chart(NamedTuple):
    """Bars below each other; ``figures`` is where their figures begin."""

    title: str
    bars: Sequence[Bar]
    width: int
    height: int
    left: int
    figures: int


def chart(title: str, values: Sequence[Value]) -> Chart:
    """Bars in the order given, the longest as wide as there is room."""
    room = WIDTH - NAMES - FIGURES
    largest = max((max(each.value, each.most or 0.0) for each in values), default=0.0) or 1.0

    def length(value: float | None) -> float | None:
        return None if value is None else round(room * value / largest, 1)

    bars = [
        Bar(
            each.name,
            each.text,
            ROW * index,
            length(each.value) or 0.0,
            length(each.least),
            length(each.most),
        )
        for index, each in enumerate(values)
    ]
    return Chart(title, bars, WIDTH, ROW * len(bars), NAMES, WIDTH - FIGURES + 8)
