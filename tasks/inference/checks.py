"""The only place where figures are compared with limits. Pure.

A comparison of IEEE numbers is false for NaN, and Python's ``max`` and ``min`` skip a NaN that is
not first. So nothing else in the build decides whether a figure is good enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# None means that a figure is missing or not a finite number, in reports and manifests too.
Figure = float | None


@dataclass(frozen=True)
class Check:
    """A requirement for all figures. A missing, infinite or undefined figure fails, and so does an
    empty list. With an infinite ``limit``, the figures must still be finite.
    """

    kind: Literal["at most", "at least", "equal", "finite"]
    limit: float = 0.0

    def passes(self, figures: Figure | Sequence[Figure]) -> bool:
        """Whether every figure is finite and within the limit."""
        several = figures if isinstance(figures, Sequence) else [figures]
        return bool(several) and all(self._holds(each) for each in several)

    def _holds(self, figure: Figure) -> bool:
        if finite(figure) is None or math.isnan(self.limit):
            return False
        assert figure is not None
        if self.kind == "at most":
            return figure <= self.limit
        if self.kind == "at least":
            return figure >= self.limit
        return self.kind == "finite" or figure == self.limit


at_most = partial(Check, "at most")
at_least = partial(Check, "at least")
equal = partial(Check, "equal")
FINITE = Check("finite")


def finite(figure: Figure) -> Figure:
    """The figure; None if it is missing or not a finite number."""
    return float(figure) if isinstance(figure, Real) and math.isfinite(figure) else None


def largest(figures: Iterable[Figure]) -> Figure:
    """The largest of some figures; None if one is not finite, or if there are none."""
    every = [finite(each) for each in figures]
    return None if not every or None in every else max(each for each in every if each is not None)


def smallest(figures: Iterable[Figure]) -> Figure:
    """The smallest of some figures; None if one is not finite, or if there are none."""
    highest = largest(None if each is None else -each for each in figures)
    return None if highest is None else -highest


def mean(figures: Iterable[Figure]) -> Figure:
    """The mean of some figures; None if one is not finite, or if there are none."""
    every = list(figures)
    if largest(every) is None:
        return None
    return math.fsum(each for each in every if each is not None) / len(every)


def largest_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> Figure:
    """The largest absolute difference; None if it is not finite, if the shapes differ (broadcasting
    would compare other values), or if there is nothing to compare.
    """
    if one.shape != other.shape or not one.size:
        return None
    return finite(abs(one - other).max())


def mean_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> Figure:
    """The mean absolute difference; None where `largest_difference` is None."""
    return None if largest_difference(one, other) is None else finite(abs(one - other).mean())


def relative_difference(values: NDArray[np.float32], expected: NDArray[np.float32]) -> Figure:
    """The mean absolute difference, divided by the mean magnitude of the expected values."""
    difference, magnitude = mean_difference(values, expected), float(abs(expected).mean())
    return None if difference is None else finite(difference / (magnitude or 1.0))
