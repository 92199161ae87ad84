"""Writes a sentence word by word, and notes which word belongs to which while it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy

from attlas.heads.relations.lexicon import DEGREES, PREPOSITIONS, Lexicon, past, plural, third_person

Item = TypeVar("Item")


@dataclass(eq=False)
class Word:
    """A word on its way into a sentence; two of the same spelling are not the same word."""

    text: str
    glued: bool = False
    """Whether no space stands in front of it."""


@dataclass(frozen=True)
class Made:
    """A sentence and what is known of it.

    Parameters
    ----------
    words : tuple of str
    spaces : tuple of bool
        Whether a space follows each word.
    links : tuple of (dependent, head, relation, rivals)
        Numbers of words; rivals are words that a head could take for the right one.
    """

    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    links: tuple[tuple[int, int, str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Noun:
    """A noun that was drawn: its bare form, and what can be said of it."""

    bare: str
    plural: bool = False

    @property
    def form(self) -> str:
        """The noun as it is written."""
        return plural(self.bare) if self.plural else self.bare


@dataclass
class Writer:
    """Writes one sentence, word by word.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where choices come from.
    lexicon : Lexicon
        Which words there are.
    """

    rng: numpy.random.Generator
    lexicon: Lexicon
    words: list[Word] = field(default_factory=list)
    links: list[tuple[Word, Word, str, tuple[Word, ...]]] = field(default_factory=list)
    people: bool = True
    """Whether people may be mentioned in passing; not where a pronoun could mean them."""

    # ---- choices

    def pick(self, items: Sequence[Item]) -> Item:
        """Draw one of some things."""
        return items[int(self.rng.integers(len(items)))]

    def chance(self, probability: float) -> bool:
        """Draw yes or no."""
        return bool(self.rng.random() < probability)

    def person(self, *, many: bool | None = None) -> Noun:
        """Draw someone."""
        words = self.lexicon
        many = self.chance(0.3) if many is None else many
        return Noun(self.pick(self.pick((words.men, words.women, words.people))), many)

    def thing(self, *, many: bool | None = None) -> Noun:
        """Draw something."""
        return Noun(self.pick(self.lexicon.things), self.chance(0.3) if many is None else many)

    def anything(self, *, many: bool | None = None) -> Noun:
        """Draw something, or someone where people may be mentioned."""
        return self.person(many=many) if self.people and self.chance(0.4) else self.thing(many=many)

    def place(self) -> Noun:
        """Draw a place."""
        return Noun(self.pick(self.lexicon.places))

    # ---- words and relations

    def say(self, *texts: str) -> Word:
        """Add words; return the last one."""
        self.words.extend(map(Word, texts))
        return self.words[-1]

    def stop(self, mark: str) -> None:
        """Add a mark that belongs to the word in front of it."""
        self.words.append(Word(mark, glued=True))

    def link(self, dependent: Word, head: Word, relation: str, rivals: Sequence[Word] = ()) -> None:
        """Note a relation."""
        self.links.append((dependent, head, relation, tuple(rivals)))

    # ---- phrases

    def noun_phrase(
        self, noun: Noun, depth: int = 1, *, determiner: str | None = None, possessive: bool = False
    ) -> Word:
        """Say a noun with what belongs to it; return the noun's word.

        Parameters
        ----------
        noun : Noun
        depth : int
            How many phrases may hang on one another inside of it.
        determiner : str, optional
            Which one; drawn by default, and then a possessor may take its place.
        possessive : bool
            Whether it says whose something is: "the king's".
        """
        ending = ("'" if noun.plural and noun.form.endswith("s") else "'s") if possessive else ""
        head = Word(noun.form + ending)
        if determiner is not None:
            self.link(self.say(determiner), head, "det")
        elif depth > 0 and self.people and self.chance(0.22):
            self.link(self.noun_phrase(self.person(), 0, possessive=True), head, "poss")
        elif self.chance(0.12):
            self.link(self.say(self.pick(("my", "our", "your"))), head, "poss")
        else:
            many, one = (
                ("the", "the", "these", "those", "some", "both"),
                ("the", "the", "a", "a", "this", "that", "every"),
            )
            self.link(self.say(self.pick(many if noun.plural else one)), head, "det")
        self.adjectives(head)
        if depth > 0 and self.chance(0.2):
            self.say(self.pick(self.lexicon.places))  # a compound: the kitchen table
        self.words.append(head)
        if depth > 0 and not possessive and self.chance(0.3):
            self.prepositional(depth - 1)
        return head

    def adjectives(self, noun: Word) -> None:
        """Say up to three adjectives of a noun."""
        count = self.pick((0, 0, 0, 0, 1, 1, 1, 2, 2, 3))
        chosen = iter(self.rng.permutation(len(self.lexicon.adjectives)).tolist())
        for _ in range(count):
            if self.chance(0.15):
                self.say(self.pick(DEGREES))
            self.link(self.say(self.lexicon.adjectives[next(chosen)]), noun, "amod")
            if self.chance(0.12):
                self.say("and", self.lexicon.adjectives[next(chosen)])  # it hangs on the first one, not on the noun

    def prepositional(self, depth: int = 0, noun: Noun | None = None) -> Word:
        """Say a preposition and a noun with what belongs to it; return the noun's word."""
        preposition = self.say(self.pick(PREPOSITIONS))
        noun = self.pick((self.place, self.place, self.anything))() if noun is None else noun
        head = self.noun_phrase(noun, depth)
        self.link(preposition, head, "case")
        return head

    def verb(self, verb: str, *, many: bool) -> Word:
        """Say a verb in some tense, perhaps with an adverb; return the main verb's word."""
        tense = self.pick(("past", "past", "present", "perfect", "future", "future"))
        if tense == "future":
            self.say(self.pick(("will", "may", "must")))
        elif tense == "perfect":
            self.say("have" if many else "has")
        if self.chance(0.25):
            self.say(self.pick(self.lexicon.adverbs))
        present = verb if many else third_person(verb)
        return self.say({"past": past(verb), "perfect": past(verb), "present": present, "future": verb}[tense])

    def finished(self) -> Made:
        """Return the sentence, spelt as it should be."""
        number = {id(word): index for index, word in enumerate(self.words)}
        texts = [word.text for word in self.words]
        for index, (text, following) in enumerate(pairwise(texts)):
            if text == "a" and following[0] in "aeiou":
                texts[index] = "an"
        starts = [0] + [index + 1 for index, text in enumerate(texts[:-1]) if text in ".?"]
        for index in starts:
            texts[index] = texts[index][0].upper() + texts[index][1:]
        links = tuple(
            (number[id(dependent)], number[id(head)], relation, tuple(number[id(rival)] for rival in rivals))
            for dependent, head, relation, rivals in self.links
        )
        return Made(tuple(texts), (*(not word.glued for word in self.words[1:]), False), links)
