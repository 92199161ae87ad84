"""Generated prompts: always the same ones, all different, with the cue where it is said to be."""

from itertools import chain

import pytest

from attlas._words import ANIMALS, FOODS, NAMES, NOUNS, plural
from attlas.errors import ArgumentError
from attlas.explain.prompts import KINDS, LABELLED, Prompt, prompts
from attlas.explain.prompts.sentiment import BAD, GOOD

EVERY = [(kind, False) for kind in KINDS] + [(kind, True) for kind in LABELLED]


@pytest.mark.parametrize(("kind", "labelled"), EVERY)
def test_the_same_seed_gives_the_same_prompts_and_more_of_them_begin_alike(kind: str, labelled: bool) -> None:
    few, many = (prompts(kind, count, seed=3, labelled=labelled) for count in (10, 60))
    assert few == many[:10]
    assert prompts(kind, 60, seed=4, labelled=labelled) != many
    assert len({prompt.text for prompt in many}) == 60


@pytest.mark.parametrize(("kind", "labelled"), EVERY)
def test_cues_lie_inside_and_the_answer_is_not_yet_given(kind: str, labelled: bool) -> None:
    for prompt in prompts(kind, 80, labelled=labelled):
        assert prompt.kind == kind
        assert len(prompt.cue) == 1
        [(start, stop)] = prompt.cue
        assert 0 <= start < stop <= len(prompt.text)
        assert prompt.cues[0] == prompt.cues[0].strip() != ""
        assert "  " not in prompt.text
        assert " ." not in prompt.text
        if labelled:
            assert prompt.label in (0, 1)
            assert not prompt.answer
        else:
            assert prompt.label is None
            assert prompt.answer[0] == " "
            assert prompt.answer != prompt.against
            assert not prompt.text.endswith(" ")


def by_label(kind: str) -> tuple[list[Prompt], list[Prompt]]:
    made = prompts(kind, 100, labelled=True)
    return [p for p in made if p.label == 0], [p for p in made if p.label == 1]


@pytest.mark.parametrize("kind", LABELLED)
def test_both_classes_are_common(kind: str) -> None:
    assert min(map(len, by_label(kind))) >= 30


def test_a_fact_is_asked_for_beside_another_one() -> None:
    for prompt in prompts("facts", 50):
        [planted] = prompt.cues
        assert planted.endswith(f" is{prompt.answer}.")
        assert planted.startswith("The word for the ")
        place = planted.removeprefix("The word for ").split(" is ")[0]
        assert prompt.text.endswith(f"What is the word for {place}? The word for {place} is")
        assert prompt.text.count(". ") == 3
        assert prompt.text.count("The word for the ") == 3, "ours, the other one, and the beginning of the answer"
        assert prompt.text.count(prompt.answer) == 1


def test_planted_facts_of_one_class_are_foods_of_the_other_animals() -> None:
    for made, known in zip(by_label("facts"), (FOODS, ANIMALS), strict=True):
        assert all(prompt.cues[0].split()[-1].rstrip(".") in known for prompt in made)


def test_verbs_agree_with_the_cue_and_the_nouns_between_are_of_the_other_number() -> None:
    many_of = {plural(noun): noun for noun in NOUNS}
    for prompt in prompts("agreement", 100):
        [subject] = prompt.cues
        many = subject in many_of
        assert (prompt.answer, prompt.against) == ((" are", " is") if many else (" is", " are"))
        behind = prompt.text[prompt.cue[0][1] :].split()
        others = [word for word in behind if word in many_of or word in NOUNS]
        assert others
        assert all((word in many_of) != many for word in others)


def test_the_taker_is_named_once_and_the_giver_twice_in_both_orders() -> None:
    firsts = []
    for prompt in prompts("indirect objects", 100):
        taker, giver = prompt.answer.strip(), prompt.against.strip()
        named = [word for word in prompt.text.replace(",", " ").split() if word in NAMES]
        assert sorted(named) == sorted([taker, giver, giver])
        assert named[-1] == giver
        assert prompt.cues == (taker,)
        firsts.append(named[0] == taker)
    assert 30 <= sum(firsts) <= 70


def test_one_word_of_a_review_decides() -> None:
    for prompt in prompts("sentiment", 100):
        words = prompt.text.replace(".", " ").split()
        judging = [word for word in words if word in GOOD or word in BAD]
        assert judging == list(prompt.cues)
        assert prompt.answer == (" positive" if judging[0] in GOOD else " negative")


def test_words_of_one_list_are_in_no_other() -> None:
    lists = (FOODS, ANIMALS, NAMES, NOUNS, GOOD, BAD)
    assert len(set(chain(*lists))) == sum(map(len, lists))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": "riddles", "count": 3}, "kind: wanted 'facts' or"),
        ({"kind": "indirect objects", "count": 3, "labelled": True}, "kind: wanted 'facts' or 'agreement' or"),
        ({"kind": "facts", "count": 0}, "count: wanted a whole number from 1, got 0"),
        ({"kind": "facts", "count": True}, "count: wanted a whole number from 1, got True"),
    ],
)
def test_what_there_is_not_is_refused(given: dict, complaint: str) -> None:
    with pytest.raises(ArgumentError, match=complaint):
        prompts(**given)


def test_prompts_that_come_to_an_end_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attlas.explain.prompts.making.KINDS", {"one": lambda random: Prompt("one", "text", ((0, 4),))})
    with pytest.raises(ArgumentError, match="count: wanted at most 1, as many as there are, got 2"):
        prompts("one", 2)
