"""Chooses an option for every unit (a head, or the heads that share keys) so that the whole is cheap and loses little.

Each unit has options with a cost and an effect; one is chosen for each, and effects add up. That is the multiple-choice
knapsack problem (Kellerer, Pferschy and Pisinger 2004, "Knapsack problems", chapter 11). What solves its Lagrangian
for some price of the effect lies on the lower convex hull of each unit's options; going along all hulls at once, the
step that buys most cost for its effect first, visits every such solution. Each is optimal: nothing with as little
effect is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from attlas.errors import ArgumentError, complaint


@dataclass(frozen=True)
class Choice:
    """One option for every unit.

    Parameters
    ----------
    options : tuple of int
        The number of the option that each unit has.
    effect, cost : float
        Summed over units.
    """

    options: tuple[int, ...]
    effect: float
    cost: float


@dataclass(frozen=True)
class _Step:
    unit: int
    option: int
    price: float
    """Effect for each unit of cost that is saved."""


def path(effects: Tensor, costs: Tensor) -> list[Choice]:
    """Return the choices on the way from the least effect to the least cost, each optimal for its own effect.

    Parameters
    ----------
    effects : Tensor, (unit, option)
        From 0; NaN where a unit cannot have an option. Each unit needs one that it can have.
    costs : Tensor, (unit, option)

    Returns
    -------
    list of Choice
        Effect rises and cost falls from each to the next, which differs from it in one unit.
    """
    table = _Units(effects, costs)
    options = table.start
    found = [table.choice(options)]
    for step in table.steps:
        options[step.unit] = step.option
        found.append(table.choice(options))
    return found


def cheapest(effects: Tensor, costs: Tensor, budget: float) -> Choice:
    """Return a cheap choice whose summed effect stays within a budget.

    Parameters
    ----------
    effects, costs : Tensor, (unit, option)
        As `path`.
    budget : float
        The largest effect.

    Returns
    -------
    Choice
        The last choice of the path within the budget, and then whatever steps of other units still fit. If not even
        the least effect is within the budget, that of the least effect.

    Notes
    -----
    Dearer than the optimum by less than the saving of the first step that did not fit.
    """
    table = _Units(effects, costs)
    options = table.start
    stuck: set[int] = set()
    for step in table.steps:
        # The next step of a unit starts from this one.
        if step.unit in stuck:
            continue
        before, options[step.unit] = options[step.unit], step.option
        if table.choice(options).effect > budget:
            options[step.unit] = before
            stuck.add(step.unit)
    return table.choice(options)


def least(effects: Tensor, costs: Tensor, cost: float) -> Choice:
    """Return the first choice of the path that costs no more than `cost`, or its last, the cheapest, if none does."""
    choices = path(effects, costs)
    return next((choice for choice in choices if choice.cost <= cost), choices[-1])


class _Units:
    """The options of every unit: where the path starts, and its steps in order."""

    def __init__(self, effects: Tensor, costs: Tensor) -> None:
        if effects.dim() != 2 or effects.shape != costs.shape:
            wanted = f"two axes (unit, option), as effects have: {tuple(effects.shape)}"
            raise ArgumentError(complaint("costs", wanted=wanted, got=tuple(costs.shape)))
        self._effects: list[list[float]] = effects.double().tolist()
        self._costs: list[list[float]] = costs.double().tolist()
        hulls = [self._hull(unit) for unit in range(len(self._effects))]
        self._first = [hull[0] for hull in hulls]
        steps = [step for unit, hull in enumerate(hulls) for step in self._steps(unit, hull)]
        self.steps = sorted(steps, key=lambda step: step.price)

    @property
    def start(self) -> list[int]:
        return list(self._first)

    def choice(self, options: Sequence[int]) -> Choice:
        return Choice(tuple(options), self._sum(self._effects, options), self._sum(self._costs, options))

    @staticmethod
    def _sum(table: Sequence[Sequence[float]], options: Sequence[int]) -> float:
        return math.fsum(row[option] for row, option in zip(table, options, strict=True))

    def _hull(self, unit: int) -> list[int]:
        """Return the options on the lower convex hull, from the least effect to the least cost."""
        effect, cost = self._effects[unit], self._costs[unit]
        possible = [option for option in range(len(effect)) if math.isfinite(effect[option])]
        if not possible:
            raise ArgumentError(complaint("effects", wanted="an option for each unit", got=f"none for unit {unit}"))
        # Of those that are alike the first.
        hull = [min(possible, key=lambda option: (effect[option], cost[option], option))]
        while (option := self._next(unit, hull[-1], possible)) is not None:
            hull.append(option)
        return hull

    def _next(self, unit: int, at: int, possible: Sequence[int]) -> int | None:
        """Return the cheaper option at the lowest price, the cheapest of several; None from the cheapest of all."""
        cost = self._costs[unit]
        cheaper = [option for option in possible if cost[option] < cost[at]]
        return min(cheaper, key=lambda option: (self._price(unit, at, option), cost[option], option), default=None)

    def _steps(self, unit: int, hull: Sequence[int]) -> Iterator[_Step]:
        for at, option in pairwise(hull):
            yield _Step(unit, option, self._price(unit, at, option))

    def _price(self, unit: int, at: int, option: int) -> float:
        effect, cost = self._effects[unit], self._costs[unit]
        return (effect[option] - effect[at]) / (cost[at] - cost[option])
