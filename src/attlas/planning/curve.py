"""What plans really do to the loss, over what was predicted of them: a curve through a few measured points."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

_HALVINGS = 80


@dataclass(frozen=True)
class Curve:
    """A rising curve from predicted to measured rises of the loss, through (0, 0): the exact plan changes nothing.

    Parameters
    ----------
    points : tuple of (float, float)
        Predicted and measured, in nats, in ascending order of both; the first is (0, 0).

    Notes
    -----
    Between two points it is the larger of a straight line and of a power law, so that it is not below any power law
    through both. Below the lowest one it is a power law with the first exponent that is known, and no more than 1. It
    ends at the last point: nothing is extrapolated.
    """

    points: tuple[tuple[float, float], ...]

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]]) -> Curve:
        """Make it of measured points in any order; where they do not rise, the largest so far counts."""
        found = [(0.0, 0.0)]
        for predicted, measured in sorted(points):
            highest = max(measured, found[-1][1])
            if len(found) > 1 and math.isclose(predicted, found[-1][0]):
                found.pop()
            if predicted > 0:
                found.append((predicted, highest))
        return cls(tuple(found))

    @property
    def end(self) -> float:
        """The largest prediction that was measured."""
        return self.points[-1][0]

    def rise(self, predicted: float) -> float | None:
        """Return what a plan of which `predicted` was predicted does to the loss; None beyond what was measured."""
        if predicted <= 0:
            return 0.0
        for index, (low, high) in enumerate(pairwise(self.points)):
            if predicted <= high[0]:
                return _first(predicted, high, self._exponent) if index == 0 else _between(predicted, low, high)
        return None

    def reach(self, rise: float) -> float:
        """Return the largest prediction, no larger than `end`, at which the loss rises by no more than `rise`."""
        low, high = 0.0, self.end
        if self._at(high) <= rise:
            return high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._at(middle) <= rise else (low, middle)
        return low

    def _at(self, predicted: float) -> float:
        rise = self.rise(predicted)
        return math.inf if rise is None else rise

    @property
    def _exponent(self) -> float:
        """The power law's between the first two points; 1 where it is not known or larger."""
        if len(self.points) < 3 or not 0 < self.points[1][1]:
            return 1.0
        return min(1.0, _power(self.points[1], self.points[2]))


def _first(x: float, high: tuple[float, float], exponent: float) -> float:
    return high[1] * (x / high[0]) ** exponent


def _between(x: float, low: tuple[float, float], high: tuple[float, float]) -> float:
    line = low[1] + (high[1] - low[1]) * (x - low[0]) / (high[0] - low[0])
    # In logarithms nothing overflows.
    return line if low[1] <= 0 else max(line, math.exp(math.log(low[1]) + _power(low, high) * math.log(x / low[0])))


def _power(low: tuple[float, float], high: tuple[float, float]) -> float:
    return (math.log(high[1]) - math.log(low[1])) / (math.log(high[0]) - math.log(low[0]))
