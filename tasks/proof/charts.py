"""The geometry and the labels of bar charts and line charts in SVG. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from statistics import median
from typing import NamedTuple

# In units of the drawing, which are pixels at its own size. Names stand left of the bars and
# figures right of the longest bar, so that no texts overlap.
WIDTH, ROW = 380, 30
NAMES, FIGURES = 96, 104


class Bar(NamedTuple):
    """A bar, and the line that shows the spread, from ``low`` to ``high``."""

    name: str
    text: str
    y: int
    width: float
    low: float
    high: float


class Chart(NamedTuple):
    """Bars below each other; their figures begin at ``figures``."""

    title: str
    bars: Sequence[Bar]
    width: int
    height: int
    left: int
    figures: int


def chart(
    title: str, measured: Mapping[str, Sequence[float]], written: Callable[[float], str]
) -> Chart:
    """A bar for the median of each measurement; the longest bar fills the width.

    :param measured: one or more measurements by name; an empty sequence gets no bar.
    """
    room = WIDTH - NAMES - FIGURES
    largest = max((max(each) for each in measured.values() if each), default=0.0) or 1.0

    def length(value: float) -> float:
        return round(room * value / largest, 1)

    bars: list[Bar] = []
    for name, each in measured.items():
        if each:
            ends = length(median(each)), length(min(each)), length(max(each))
            bars.append(Bar(name, written(median(each)), ROW * len(bars), *ends))
    return Chart(title, bars, WIDTH, ROW * len(bars), NAMES, WIDTH - FIGURES + 8)


# Dashes distinguish lines also without colours.
STROKES = (
    ("#0072b2", ""),
    ("#d55e00", "7 3"),
    ("#009e73", "2 3"),
    ("#cc79a7", "10 3 2 3"),
    ("#e69f00", "4 4"),
    ("#56b4e9", "12 4"),
)


class Line(NamedTuple):
    """A named line through ``points``, in SVG's syntax, with its colour and dashes."""

    name: str
    points: str
    color: str
    dashes: str


class LineChart(NamedTuple):
    """Lines over a number of steps, between ``floor`` and 1; ``left`` and ``base`` are the axes."""

    title: str
    lines: Sequence[Line]
    floor: float
    steps: int
    width: int
    height: int
    left: int
    base: int


def line_chart(title: str, series: Mapping[str, Sequence[float]]) -> LineChart:
    """A chart of sequences of shares up to 1; its floor is the round share below the least.

    :param series: the shares of each line, by its name; all lines have the same length.
    """
    left, top, height = 40, 8, 150
    base = height - 22
    least = min((min(values) for values in series.values() if values), default=1.0)
    floor = next((each for each in (0.99, 0.9, 0.5) if least >= each), 0.0)
    steps = max(map(len, series.values()), default=0)

    def point(index: int, value: float) -> str:
        x = left + (WIDTH - left - 8) * index / max(steps - 1, 1)
        y = base - (base - top) * (value - floor) / (1 - floor)
        return f"{x:.1f},{y:.1f}"

    lines = [
        Line(name, " ".join(point(*each) for each in enumerate(values)), *stroke)
        for (name, values), stroke in zip(series.items(), cycle(STROKES), strict=False)
    ]
    return LineChart(title, lines, floor, steps, WIDTH, height, left, base)
