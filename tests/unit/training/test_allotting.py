"""A budget is never exceeded, nearly used, and shared out as well as it can be."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from attlas.training.allotting import Candidate, allot, gain


def several(worths: st.SearchStrategy[float]) -> st.SearchStrategy[list[Candidate]]:
    return st.lists(st.builds(Candidate, worths, st.integers(1, 30), st.integers(0, 5)), max_size=8)


candidates = several(st.floats(-1, 10))


@given(candidates, st.integers(0, 300))
def test_the_budget_holds_and_what_is_left_buys_nothing(some: list[Candidate], budget: int) -> None:
    ranks = allot(some, budget)
    left = budget - sum(rank * one.cost for rank, one in zip(ranks, some, strict=True))
    assert left >= 0
    for rank, one in zip(ranks, some, strict=True):
        assert 0 <= rank <= one.most
        assert rank == 0 or one.worth > 0
        # A claim below the smallest number there is may be rounded to none, and is still met last.
        assert rank == one.most or one.worth <= 0 or one.cost > left


# The smallest numbers there are lose digits when they are halved.
@given(several(st.floats(-1, 0) | st.floats(1e-300, 10)), st.integers(0, 300), st.integers(-8, 8))
def test_only_the_proportions_of_worths_count(some: list[Candidate], budget: int, power: int) -> None:
    scaled = [Candidate(one.worth * 2.0**power, one.cost, one.most) for one in some]
    assert allot(scaled, budget) == allot(some, budget)


@given(st.lists(st.builds(Candidate, st.floats(0.1, 10), st.integers(1, 9), st.just(3)), min_size=1, max_size=4))
@settings(max_examples=50)
def test_no_choice_of_the_same_price_brings_more(some: list[Candidate]) -> None:
    ranks = allot(some, 40)
    price = sum(rank * one.cost for rank, one in zip(ranks, some, strict=True))
    brought = sum(gain(one.worth, rank) for rank, one in zip(ranks, some, strict=True))
    every = itertools.product(range(4), repeat=len(some))
    best = max(
        sum(gain(one.worth, rank) for rank, one in zip(other, some, strict=True))
        for other in every
        if sum(rank * one.cost for rank, one in zip(other, some, strict=True)) <= price
    )
    # What greed can miss is less than one rank of one candidate.
    assert brought >= best - max(one.worth for one in some) - 1e-9


def test_a_permutation_of_candidates_permutes_their_ranks() -> None:
    some = [Candidate(3.0, 5, 9), Candidate(1.0, 2, 9), Candidate(0.7, 3, 9), Candidate(-1.0, 1, 9)]
    ranks = allot(some, 60)
    assert ranks[3] == 0
    for order in itertools.permutations(range(4)):
        assert allot([some[i] for i in order], 60) == [ranks[i] for i in order]


def test_alike_candidates_are_served_alike() -> None:
    assert allot([Candidate(1.0, 10, 99)] * 5, 150) == [3] * 5


def test_what_brings_twice_as_much_gets_about_twice_the_rank() -> None:
    much, little = allot([Candidate(2.0, 1, 999), Candidate(1.0, 1, 999)], 300)
    assert much + little == 300
    assert abs(much - 2 * little) <= 2
