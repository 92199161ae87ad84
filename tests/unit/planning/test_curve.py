"""The curve from predicted to measured: through its points, rising, not below power laws, and nothing beyond."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attlas.planning.curve import Curve

POSITIVE = st.floats(1e-6, 10)
# Points no two of which are so close that the curve takes them for one.
APART = st.integers(1, 10**7).map(lambda millionths: millionths * 1e-6)


@given(st.lists(st.tuples(APART, st.floats(-1, 10)), min_size=1, max_size=5, unique_by=lambda point: point[0]))
def test_it_rises_through_the_largest_so_far(points: list[tuple[float, float]]) -> None:
    curve = Curve.through(points)
    highest = 0.0
    for predicted, measured in sorted(points):
        highest = max(highest, measured)
        assert curve.rise(predicted) == pytest.approx(highest, rel=1e-9, abs=1e-12)
    end = max(point[0] for point in points)
    at = [min(end, end * i / 50) for i in range(51)]
    rises = [curve.rise(x) for x in at]
    assert all(rise is not None for rise in rises)
    known = [rise for rise in rises if rise is not None]
    assert all(after >= before - 1e-9 * (1 + abs(before)) for before, after in itertools.pairwise(known))
    assert curve.rise(math.nextafter(end, math.inf)) is None


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=5), st.floats(1e-6, 12))
def test_reach_is_its_inverse(points: list[tuple[float, float]], rise: float) -> None:
    curve = Curve.through(points)
    reached = curve.reach(rise)
    assert 0 <= reached <= curve.end
    there = curve.rise(reached)
    assert there is not None
    assert there <= rise
    if reached < curve.end:
        beyond = curve.rise(min(curve.end, reached + 1e-9 * curve.end))
        assert beyond is not None
        assert beyond >= rise * (1 - 1e-6)


@given(st.floats(0.2, 3), st.floats(0.01, 10), st.lists(POSITIVE, min_size=2, max_size=4, unique=True))
def test_it_is_not_below_a_power_law_between_its_points(power: float, factor: float, at: list[float]) -> None:
    curve = Curve.through((x, factor * x**power) for x in at)
    low = min(at) if power > 1 else 0.0
    for i in range(101):
        x = min(max(at), low + (max(at) - low) * i / 100)
        rise = curve.rise(x)
        assert rise is not None
        assert rise >= factor * x**power * (1 - 1e-6)


def test_nothing_measured_knows_only_the_exact_plan() -> None:
    curve = Curve.through([])
    assert (curve.end, curve.rise(0.0), curve.rise(1e-9), curve.reach(5.0)) == (0.0, 0.0, None, 0.0)


def test_of_two_measurements_at_one_place_the_worse_counts() -> None:
    assert Curve.through([(1.0, 3.0), (1.0, 2.0)]).rise(1.0) == 3.0
