from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from attlas.errors import ArgumentError
from attlas.heads.relations.grammar import RELATIONS
from attlas.heads.relations.labelled import LabelledPairs, Pair, sentences
from attlas.heads.relations.lexicon import Lexicon, lexicon, past, plural, third_person

NAMES = [relation.name for relation in RELATIONS]
MADE = sentences(count=800, seed=3)


def words_of(pair: Pair) -> tuple[str, str]:
    words = MADE.sentences[pair.sentence]
    return words[pair.dependent].lower(), words[pair.head].lower()


def of(relation: str) -> list[Pair]:
    return [pair for pair in MADE.pairs if pair.relation == relation]


def test_all_relations_occur_often() -> None:
    assert sorted(MADE.relations) == sorted(NAMES)
    assert len(NAMES) >= 7
    assert all(len(of(name)) >= 100 for name in NAMES)


def test_no_fixed_offset_solves_a_relation() -> None:
    for row in MADE.statistics():
        assert row["best_offset_share"] < 0.52, row
    shares = {row["relation"]: row for row in MADE.statistics()}
    assert shares["agreement"]["best_offset_share"] < 0.25
    assert 0 < shares["obj"]["head_after"] < 0.2, "questions put the object first"
    assert 0.8 < shares["nsubj"]["head_after"] < 1, "inversions put the subject last"


def nouns(half: Lexicon) -> set[str]:
    singular = {*half.men, *half.women, *half.people, *half.things, *half.places}
    return singular | {plural(noun) for noun in singular}


def verbs(half: Lexicon) -> set[str]:
    bare = {*half.doing, *half.being, *half.saying, *half.telling, *half.standing}
    return bare | {past(verb) for verb in bare} | {third_person(verb) for verb in bare}


def test_partners_are_words_of_the_right_kind() -> None:
    halves = [lexicon(half) for half in (0, 1)]
    all_nouns = set().union(*map(nouns, halves))
    all_verbs = set().union(*map(verbs, halves))
    people = {"he", "she"}
    owned = all_nouns | {noun + "'s" for noun in all_nouns} | {noun + "'" for noun in all_nouns}
    adjectives = {word for half in halves for word in half.adjectives}
    for pair in MADE.pairs:
        dependent, head = words_of(pair)
        if pair.relation in ("det", "amod", "poss", "case"):
            assert head in owned, pair
        if pair.relation == "amod":
            assert dependent in adjectives
        if pair.relation in ("nsubj", "obj"):
            assert dependent in all_nouns | people
            assert head in all_verbs
        if pair.relation in ("agreement", "pronoun", "reflexive"):
            assert head in all_nouns


def test_agreement_is_with_the_subject_and_with_no_attractor() -> None:
    plurals = {plural(noun) for half in (0, 1) for noun in nouns(lexicon(half))}
    many_verbs = {"are", "were", "have"} | {verb for half in (0, 1) for verb in lexicon(half).being}
    for pair in of("agreement"):
        verb, subject = words_of(pair)
        words = MADE.sentences[pair.sentence]
        assert (verb in many_verbs) == (subject in plurals), words
        assert 1 <= len(pair.rivals) <= 3
        for rival in pair.rivals:
            assert pair.head < rival < pair.dependent, "an attractor stands between"
            assert (words[rival].lower() in plurals) != (subject in plurals)


def test_only_one_person_fits_a_pronoun() -> None:
    women = {noun for half in (0, 1) for noun in lexicon(half).women}
    men = {noun for half in (0, 1) for noun in lexicon(half).men}
    nearer = 0
    for pair in of("pronoun"):
        pronoun, antecedent = words_of(pair)
        words = [word.lower() for word in MADE.sentences[pair.sentence]]
        fitting = women if pronoun in ("she", "her") else men
        assert [word for word in words if word in fitting] == [antecedent]
        (rival,) = pair.rivals
        assert words[rival] in (women | men) - fitting
        nearer += rival > pair.head
    assert 0.35 < nearer / len(of("pronoun")) < 0.65, "the nearer of the two is right as often as not"


def test_a_reflexive_is_the_subjects() -> None:
    women = {noun for half in (0, 1) for noun in lexicon(half).women}
    men = {noun for half in (0, 1) for noun in lexicon(half).men}
    for pair in of("reflexive"):
        reflexive, subject = words_of(pair)
        kinds = {"herself": women, "himself": men}
        assert subject in kinds.get(reflexive, {plural(n) for half in (0, 1) for n in lexicon(half).people})
        assert pair.rivals
        assert pair.head not in pair.rivals


def test_the_two_halves_share_no_open_word() -> None:
    zero, one = lexicon(0), lexicon(1)
    everything = [{word for f in dataclasses.fields(half) for word in getattr(half, f.name)} for half in (zero, one)]
    assert everything[0] & everything[1] == set()
    assert MADE.halves is not None
    assert sum(MADE.halves) == 400
    written: tuple[set[str], set[str]] = (set(), set())
    for words, half in zip(MADE.sentences, MADE.halves, strict=True):
        written[half].update(word.lower() for word in words)
    closed = written[0] & written[1]
    assert closed & (nouns(zero) | nouns(one) | verbs(zero) | verbs(one)) == set()


def test_sentences_look_like_sentences() -> None:
    for number in range(len(MADE.sentences)):
        text = MADE.text(number)
        assert text[0].isupper()
        assert text[-1] in ".?"
        assert "  " not in text
        assert " ," not in text
        words, spans = MADE.sentences[number], MADE.spans(number)
        assert [text[begin:end] for begin, end in spans] == list(words)
        for article, following in pairwise(words):
            if article.lower() in ("a", "an"):
                assert (article.lower() == "an") == (following[0] in "aeiou"), text


def test_the_same_seed_gives_the_same_sentences() -> None:
    assert sentences(count=20, seed=5) == sentences(count=20, seed=5)
    assert sentences(count=20, seed=5).sentences == sentences(count=50, seed=5).sentences[:20]
    assert sentences(count=20, seed=6).sentences != sentences(count=20, seed=5).sentences
    assert len(set(sentences(count=2000).sentences)) > 1990, "there is no end to them"


@pytest.mark.parametrize("name", NAMES)
def test_one_kind_alone(name: str) -> None:
    found = sentences(name, count=30)
    assert found.relations == (name,)
    assert {pair.sentence for pair in found.pairs} == set(range(30))


def test_only_keeps_the_sentences() -> None:
    found = MADE.only(["det", "obj"])
    assert set(found.relations) == {"det", "obj"}
    assert found.sentences is MADE.sentences
    assert found.fingerprint != MADE.fingerprint
    with pytest.raises(ArgumentError, match="relations: wanted some of"):
        MADE.only("xcomp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "xcomp"}, "kind: wanted some of det, amod.*got xcomp"),
        ({"kind": []}, "got none"),
        ({"count": 0}, "count: wanted a whole number from 1"),
        ({"count": True}, "count"),
        ({"seed": -1}, "seed: wanted a whole number from 0"),
    ],
)
def test_what_cannot_be_made_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        sentences(**options)


def test_own_pairs() -> None:
    found = LabelledPairs.from_pairs(
        [("the old dog", 0, 2, "det"), (["the", "old", "dog"], 1, 2, "amod"), ("a b", 0, 1, "x")]
    )
    assert found.sentences == (("the", "old", "dog"), ("a", "b"))
    assert found.pairs == (Pair(0, 0, 2, "det"), Pair(0, 1, 2, "amod"), Pair(1, 0, 1, "x"))
    assert found.text(0) == "the old dog"
    assert found.pairs[0].offset == 2


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("the dog", 0, 2, "det"), r"pairs\[0\], head: wanted a word from 0 to 1, got 2"),
        (("the dog", -1, 1, "det"), r"pairs\[0\], dependent"),
        (("the dog", True, 1, "det"), r"pairs\[0\], dependent"),
        (("the dog", 1, 1, "det"), "two different words"),
        (("the dog", 0, 1, ""), "a relation's name"),
        ((["the", " "], 0, 1, "det"), "words that are not empty"),
        (("the dog", 0, 1), r"pairs\[0\]: wanted \(sentence, dependent, head, relation\)"),
    ],
)
def test_own_pairs_that_do_not_fit(pair: tuple, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        LabelledPairs.from_pairs([pair])


def test_no_pairs_at_all() -> None:
    with pytest.raises(ArgumentError, match="at least one"):
        LabelledPairs.from_pairs([])


def test_join() -> None:
    one, other = sentences("det", count=4), sentences("obj", count=3)
    both = LabelledPairs.join([one, other])
    assert both.sentences == one.sentences + other.sentences
    assert both.halves == (*(one.halves or ()), *(other.halves or ()))
    assert {pair.sentence for pair in both.pairs if pair.relation == "obj"} == {4, 5, 6}
    with pytest.raises(ArgumentError, match="all with halves or all without"):
        LabelledPairs.join([one, LabelledPairs.from_pairs([("a b", 0, 1, "x")])])
