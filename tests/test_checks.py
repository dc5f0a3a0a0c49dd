"""Figures against limits: what is not a finite number never passes, nor does a missing figure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.inference import checks
from tasks.inference.checks import FINITE, at_least, at_most, equal

NAN, INFINITY = math.nan, math.inf


@pytest.mark.parametrize(
    ("check", "passes", "fails"),
    [
        (at_most(1.0), 1.0, 1.0000001),
        (at_least(1.0), 1.0, 0.9999999),
        (equal(2), 2, 3),
        (FINITE, -1e30, NAN),
        (at_most(INFINITY), 1e30, INFINITY),
    ],
)
def test_a_check_passes_at_its_limit_and_fails_beyond_it(
    check: checks.Check, passes: float, fails: float
) -> None:
    assert check.passes(passes)
    assert check.passes([passes, passes])
    assert not check.passes(fails)
    assert not check.passes([passes, fails])
    assert not check.passes([fails, passes])


@pytest.mark.parametrize("check", [at_most(1e9), at_least(-1e9), equal(0), FINITE])
@pytest.mark.parametrize("figure", [NAN, INFINITY, -INFINITY, None, [], [0.0, NAN], [NAN, 0.0]])
def test_a_value_that_is_not_a_finite_number_fails_every_check(
    check: checks.Check, figure: object
) -> None:
    assert not check.passes(figure)  # type: ignore[arg-type]


def test_nothing_passes_a_nan_limit() -> None:
    assert not at_most(NAN).passes(0.0)
    assert not at_least(NAN).passes(0.0)


@pytest.mark.parametrize("summary", [checks.largest, checks.smallest, checks.mean])
def test_a_summary_of_a_non_finite_or_missing_value_is_none(summary: object) -> None:
    assert callable(summary)
    assert summary([0.0, NAN]) is None
    assert summary([NAN, 0.0]) is None
    assert summary([1.0, None]) is None
    assert summary([INFINITY]) is None
    assert summary([]) is None
    assert summary(iter([2.0, 2.0])) == 2.0


def test_summaries_compute_the_largest_smallest_and_mean_value() -> None:
    figures = [3.0, -1.0, 1.0]
    assert checks.largest(figures) == 3.0
    assert checks.smallest(figures) == -1.0
    assert checks.mean(figures) == 1.0


def test_numpy_scalars_count_as_numbers() -> None:
    assert at_most(1.0).passes(np.float32(0.5))  # type: ignore[arg-type]
    assert not FINITE.passes(np.float32("nan"))  # type: ignore[arg-type]


def test_arrays_that_cannot_be_compared_have_no_difference() -> None:
    one = np.zeros((3, 4), np.float32)
    assert checks.largest_difference(one, one + 1) == 1.0
    assert checks.mean_difference(one, one + 1) == 1.0
    for other in (one[:1], one.T, one[:0], np.full_like(one, NAN)):
        assert checks.largest_difference(one, other) is None
        assert checks.mean_difference(one, other) is None
    assert checks.largest_difference(one[:0], one[:0]) is None
