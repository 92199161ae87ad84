from __future__ import annotations

import pytest

import attlas
from answering import decoder
from attlas.errors import ArgumentError
from attlas.planning.haystacks import RIVALS, TASKS, Grid, haystacks
from finding import finder


@pytest.fixture(scope="module")
def lm() -> attlas.LanguageModel:
    return finder()


def test_a_haystack_is_as_long_as_was_asked_for(lm: attlas.LanguageModel) -> None:
    grid = Grid(lengths=(220, 500), depths=(0.0, 0.5, 1.0), each=2)
    made = haystacks(lm, grid)
    assert len(made) == len(grid) == 24
    for haystack in made:
        assert haystack.length - 30 < len(haystack.ids) <= haystack.length
        assert list(haystack.ids) == lm.tokenize(haystack.text).ids


def test_the_fact_stands_at_its_depth(lm: attlas.LanguageModel) -> None:
    made = haystacks(lm, Grid(lengths=(600,), depths=(0.0, 0.25, 0.5, 0.75, 1.0), each=3))
    for haystack in made:
        value = lm.tokenizer.decode(list(haystack.answer))
        question = haystack.text.rindex(" What is the word for the ")
        fact = haystack.text[: haystack.text.index(f" is {value}.")].rindex("The word for the ")
        assert abs(fact / question - haystack.depth) < 0.08
        asked = haystack.text[question:].removeprefix(" What is the word for the ").split("?")[0]
        assert haystack.text[fact:].startswith(f"The word for the {asked} is {value}.")


@pytest.mark.parametrize("task", TASKS)
def test_rivals_stand_in_the_text_once_and_only_one_task_has_them_as_facts(lm: attlas.LanguageModel, task: str) -> None:
    for haystack in haystacks(lm, Grid(lengths=(400,), depths=(0.5,), each=4, tasks=(task,))):
        assert len(set(haystack.others)) == RIVALS
        assert haystack.answer[0] not in haystack.others
        for other in haystack.others:
            assert haystack.ids.count(other) == 1
        facts = haystack.text.count("The word for the ")
        assert facts == (2 if task == "one fact" else 2 + RIVALS)


def test_the_distance_leads_from_the_question_to_the_value(lm: attlas.LanguageModel) -> None:
    for haystack in haystacks(lm, Grid(lengths=(300,), depths=(0.0, 0.5, 1.0), each=3)):
        assert haystack.ids[-1 - haystack.distance] == haystack.answer[-1]
        assert haystack.ids.count(haystack.answer[-1]) == 1


def test_the_same_seed_gives_the_same_and_more_begin_with_fewer(lm: attlas.LanguageModel) -> None:
    few = haystacks(lm, Grid(lengths=(250,), depths=(0.5,), each=2, tasks=("one fact",)), seed=3)
    more = haystacks(lm, Grid(lengths=(250,), depths=(0.5,), each=4, tasks=("one fact",)), seed=3)
    assert more[:2] == few
    assert len({haystack.text for haystack in more}) == 4
    assert haystacks(lm, Grid(lengths=(250,), depths=(0.5,), each=2, tasks=("one fact",)), seed=4) != few


def test_filler_lasts_for_long_haystacks(lm: attlas.LanguageModel) -> None:
    [haystack] = haystacks(lm, Grid(lengths=(4000,), depths=(0.5,), each=1, tasks=("one fact",)))
    sentences = haystack.text.split(". ")
    assert len(haystack.ids) > 3970
    assert len(set(sentences)) > 0.98 * len(sentences)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lengths": ()}, "lengths: wanted at least one"),
        ({"lengths": (0,)}, "whole numbers of tokens"),
        ({"lengths": (1.5,)}, "whole numbers of tokens"),
        ({"depths": (1.5,)}, "numbers from 0 to 1"),
        ({"depths": ("deep",)}, "numbers from 0 to 1"),
        ({"each": 0}, "each: wanted a whole number from 1"),
        ({"tasks": ("no fact",)}, "tasks: wanted 'one fact' or 'many facts'"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        Grid(**options)  # pyright: ignore[reportArgumentType] - what is wrong is the point


def test_too_short_and_too_long_are_refused(lm: attlas.LanguageModel) -> None:
    with pytest.raises(ArgumentError, match="lengths: wanted at least"):
        haystacks(lm, Grid(lengths=(40,)))
    with pytest.raises(ArgumentError, match="at most 128 tokens"):
        haystacks(decoder(), Grid(lengths=(300,)))
    with pytest.raises(ArgumentError, match="one with a tokenizer"):
        haystacks(attlas.LanguageModel(lm.model, None, lm.facts), Grid(lengths=(300,)))
