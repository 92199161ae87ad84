"""Choosing against brute force: never above the budget, and optimal on the hull."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attlas
from attlas.planning.choosing import Choice, cheapest, least, path

NAN = math.nan


@st.composite
def tables(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Return effects and costs of a few units; the first option is exact, and others may be impossible."""
    units, options = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    # Whole numbers make ties, and sums that are exact.
    effects = [
        [0, *draw(st.lists(st.one_of(st.integers(0, 12), st.just(NAN)), min_size=options, max_size=options))]
        for _ in range(units)
    ]
    costs = [draw(st.lists(st.integers(1, 12), min_size=options + 1, max_size=options + 1)) for _ in range(units)]
    return torch.tensor(effects, dtype=torch.float64), torch.tensor(costs, dtype=torch.float64)


def every(effects: Tensor, costs: Tensor) -> list[Choice]:
    """Return all choices that there are."""
    found = []
    for options in itertools.product(*(range(effects.shape[1]) for _ in effects)):
        at = (torch.arange(len(effects)), torch.tensor(options))
        effect = float(effects[at].sum())
        if math.isfinite(effect):
            found.append(Choice(options, effect, float(costs[at].sum())))
    return found


@given(tables(), st.integers(0, 30))
def test_it_stays_within_the_budget_and_close_to_the_best(table: tuple[Tensor, Tensor], budget: int) -> None:
    effects, costs = table
    found = cheapest(effects, costs, budget)
    assert found in every(effects, costs)
    assert found.effect <= budget
    # What solves the problem for some price is never dearer than brute force within its own effect.
    within = [choice for choice in path(effects, costs) if choice.effect <= budget]
    assert found.cost <= within[-1].cost
    best = min(choice.cost for choice in every(effects, costs) if choice.effect <= budget)
    saved = [before.cost - after.cost for before, after in itertools.pairwise(path(effects, costs))]
    assert best <= found.cost <= best + max(saved, default=0)


@given(tables())
def test_every_choice_of_the_path_is_optimal(table: tuple[Tensor, Tensor]) -> None:
    effects, costs = table
    choices, all_of_them = path(effects, costs), every(effects, costs)
    for choice in choices:
        assert choice.cost == min(one.cost for one in all_of_them if one.effect <= choice.effect)
    assert choices[0].effect == min(one.effect for one in all_of_them)
    assert choices[-1].cost == min(one.cost for one in all_of_them)
    for before, after in itertools.pairwise(choices):
        assert after.cost < before.cost
        assert after.effect >= before.effect
        assert sum(a != b for a, b in zip(before.options, after.options, strict=True)) == 1


@given(tables(), st.integers(0, 50))
def test_least_effect_within_a_cost(table: tuple[Tensor, Tensor], cost: int) -> None:
    effects, costs = table
    found = least(effects, costs, cost)
    if found.cost <= cost:
        # On the way to it everything was too dear.
        earlier = path(effects, costs)[: path(effects, costs).index(found)]
        assert all(choice.cost > cost for choice in earlier)
    else:
        assert found.cost == min(choice.cost for choice in every(effects, costs))


def test_a_step_that_does_not_fit_does_not_stop_others() -> None:
    effects = torch.tensor([[0.0, 10.0], [0.0, 3.0]])
    costs = torch.tensor([[100.0, 1.0], [10.0, 1.0]])
    assert cheapest(effects, costs, 5).options == (0, 1)
    assert cheapest(effects, costs, 10).options == (1, 0)
    assert cheapest(effects, costs, 13).options == (1, 1)


def test_options_above_the_hull_are_left_out() -> None:
    # The middle one is dearer than mixing its neighbours.
    effects, costs = torch.tensor([[0.0, 9.0, 10.0]]), torch.tensor([[10.0, 9.0, 0.0]])
    assert [choice.options for choice in path(effects, costs)] == [(0,), (2,)]


def test_what_costs_nothing_in_effect_is_taken_at_once() -> None:
    effects, costs = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[10.0, 4.0, 1.0]])
    assert cheapest(effects, costs, 0).options == (1,)


def test_a_unit_without_options_and_tables_that_do_not_match() -> None:
    with pytest.raises(attlas.ArgumentError, match="effects: wanted an option for each unit, got none for unit 1"):
        path(torch.tensor([[0.0], [NAN]]), torch.ones(2, 1))
    with pytest.raises(attlas.ArgumentError, match="costs: wanted two axes"):
        path(torch.zeros(2, 3), torch.zeros(2, 2))
