"""Ranks within a budget: a parameter at a time goes where the loss is expected to fall most by it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """What may get a rank.

    Parameters
    ----------
    worth : float
        By how much the loss falls with rank 1; nothing at or below 0 gets a rank.
    cost : int
        Parameters of each rank.
    most : int
        The largest rank that it can have.
    """

    worth: float
    cost: int
    most: int


def gain(worth: float, rank: int) -> float:
    """Return what a rank is worth: ``worth · log2(1 + rank)``, so `worth` for rank 1, and less for each further one."""
    return worth * math.log2(1 + rank)


def allot(candidates: Sequence[Candidate], budget: int) -> list[int]:
    """Return a rank for each candidate, so that no more than `budget` parameters are used.

    Again and again the rank is raised by one where `gain` grows most for each parameter, among those that still fit
    into what is left. At the end what is left is less than the cost of any candidate that could have another rank.

    Parameters
    ----------
    candidates : sequence of Candidate
    budget : int
        Parameters at most.

    Returns
    -------
    list of int
        In the order of the candidates; equal claims are met in it.

    Notes
    -----
    As the gain of each further rank falls, this is the best there is but for the end of the budget, where a cheaper
    candidate may take what a better one has no room for (Dantzig 1957 on the knapsack problem). Cost: O(ranks · log
    candidates).
    """
    ranks = [0] * len(candidates)
    waiting = [_claim(one, 0, number) for number, one in enumerate(candidates) if one.worth > 0 and one.most > 0]
    heapq.heapify(waiting)
    left = budget
    while waiting:
        _, number = heapq.heappop(waiting)
        one = candidates[number]
        if one.cost > left:
            continue
        ranks[number] += 1
        left -= one.cost
        if ranks[number] < one.most:
            heapq.heappush(waiting, _claim(one, ranks[number], number))
    return ranks


def _claim(one: Candidate, rank: int, number: int) -> tuple[float, int]:
    """Return what the next rank would bring for each parameter, as a heap orders it, largest first."""
    return -(gain(one.worth, rank + 1) - gain(one.worth, rank)) / one.cost, number
