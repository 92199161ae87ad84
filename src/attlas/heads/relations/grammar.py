"""The library's own sentences, whose relations are known because the grammar made them.

Every choice is drawn anew: adjectives, possessors, compounds, phrases and clauses between two words, questions and
inversions that turn their order around. So no fixed offset between a word and its partner is right for long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from attlas.heads.relations.lexicon import lexicon, past, third_person
from attlas.heads.relations.writer import Made, Noun, Word, Writer


@dataclass(frozen=True)
class Relation:
    """A relation between two words of a sentence.

    Parameters
    ----------
    name : str
        Its name; that of Universal Dependencies where there is one.
    dependent, head : str
        What the two words are.
    meaning : str
        One sentence.
    """

    name: str
    dependent: str
    head: str
    meaning: str


RELATIONS = (
    Relation("det", "determiner", "noun", "A determiner and its noun: the small red box."),
    Relation("amod", "adjective", "noun", "An adjective and the noun that it describes."),
    Relation("nsubj", "subject", "verb", "The noun that does something, and the verb."),
    Relation("obj", "object", "verb", "The noun that something is done to, and the verb."),
    Relation("poss", "possessor", "noun", "Whose it is, and what: the king's old boat, our boat."),
    Relation("case", "preposition", "noun", "A preposition and its noun: near the old bridge."),
    Relation(
        "agreement",
        "verb",
        "subject",
        "A verb and the noun whose number it has, with nouns of the other number between.",
    ),
    Relation(
        "pronoun", "pronoun", "antecedent", "A pronoun and whom it stands for, known by gender, with others in between."
    ),
    Relation("reflexive", "reflexive", "subject", "Himself, herself or themselves, and the subject of the clause."),
)
"""The relations that the library's own sentences have."""


def clause(w: Writer, depth: int = 1) -> None:
    """Say a clause of some form."""
    forms = [transitive, transitive, transitive, intransitive, inverted]
    if depth > 0:
        forms += [reported, joined, joined, relative, relative]
    w.pick(forms)(w, depth)


def opening(w: Writer, *, certain: bool = False) -> None:
    """Perhaps say something in front of a clause."""
    if not (certain or w.chance(0.32)):
        return
    if w.chance(0.4):
        w.say(w.pick(w.lexicon.adverbs))
    else:
        w.prepositional(1)
    w.stop(",")


def doer(w: Writer, noun: Noun | None = None, depth: int = 1) -> tuple[Word, Noun]:
    """Say who does it."""
    noun = noun or w.person()
    return w.noun_phrase(noun, depth), noun


def transitive(w: Writer, depth: int = 0) -> None:
    """Say who does what to whom."""
    opening(w)
    subject, noun = doer(w)
    verb = w.verb(w.pick(w.lexicon.doing), many=noun.plural)
    w.link(subject, verb, "nsubj")
    w.link(w.noun_phrase(w.anything(), depth), verb, "obj")


def intransitive(w: Writer, depth: int = 0) -> None:
    """Say who does what, and perhaps where."""
    opening(w)
    subject, noun = doer(w)
    w.link(subject, w.verb(w.pick(w.lexicon.being), many=noun.plural), "nsubj")
    if w.chance(0.6):
        w.prepositional(depth)


def inverted(w: Writer, depth: int = 0) -> None:
    """Say where someone stood, then who."""
    w.prepositional(depth)
    verb = w.say(past(w.pick(w.lexicon.standing)))
    w.link(w.noun_phrase(w.anything(), depth), verb, "nsubj")


def reported(w: Writer, depth: int = 1) -> None:
    """Say who said what."""
    subject, noun = doer(w, depth=0)
    w.link(subject, w.verb(w.pick(w.lexicon.saying), many=noun.plural), "nsubj")
    w.say("that")
    clause(w, depth - 1)


def joined(w: Writer, depth: int = 1) -> None:
    """Say two clauses."""
    clause(w, 0)
    w.stop(",")
    w.say(w.pick(("and", "but", "because", "while", "so")))
    clause(w, depth - 1)


def relative(w: Writer, depth: int = 1) -> None:
    """Say whom someone did something to, inside of the subject."""
    subject, noun = doer(w, w.anything(), 0)
    w.say("that")
    inner, other = doer(w, depth=0)
    w.link(inner, w.verb(w.pick(w.lexicon.doing), many=other.plural), "nsubj")
    w.link(subject, w.verb(w.pick(w.lexicon.being), many=noun.plural), "nsubj")
    if w.chance(0.4):
        w.prepositional(depth - 1)


def question(w: Writer) -> None:
    """Ask whether, when, or which."""
    asked = None
    if w.chance(0.5):
        asked = w.noun_phrase(w.anything(), 0, determiner=w.pick(("which", "what")))
        w.say(w.pick(("did", "will")))
    else:
        w.say(*w.pick((("did",), ("will",), ("when", "did"), ("why", "did"), ("where", "will"))))
    subject, _ = doer(w)
    if w.chance(0.2):
        w.say(w.pick(w.lexicon.adverbs))
    verb = w.say(w.pick(w.lexicon.doing))
    w.link(subject, verb, "nsubj")
    w.link(w.noun_phrase(w.anything()) if asked is None else asked, verb, "obj")


def plain(w: Writer) -> None:
    """Write a sentence with the relations inside of clauses."""
    if w.chance(0.25):
        question(w)
        w.stop("?")
    else:
        clause(w)
        w.stop(".")


def agreement(w: Writer) -> None:
    """Write a subject, one to three nouns of the other number, and a verb that agrees.

    The same subject is none of nsubj's, which is about clauses without traps.
    """
    if w.chance(0.75):  # so that the subject has no place of its own
        opening(w, certain=True)
    many = w.chance(0.5)
    subject = w.noun_phrase(w.anything(many=many), 0)
    rivals = [attractor(w, not many) for _ in range(w.pick((1, 1, 2, 3)))]
    if w.chance(0.2):
        w.say(w.pick(w.lexicon.adverbs))
    agreeing(w, subject, rivals, many=many)
    if w.chance(0.5):
        w.prepositional(0)
    w.stop(".")


def attractor(w: Writer, many: bool) -> Word:
    """Say a phrase or a clause around a noun that a verb could agree with by mistake."""
    if w.chance(0.65):
        return w.prepositional(0, w.anything(many=many))
    w.say("that")
    inner = w.noun_phrase(w.person(many=many), 0)
    w.link(inner, w.say(past(w.pick(w.lexicon.doing))), "nsubj")
    return inner


def agreeing(w: Writer, subject: Word, rivals: Sequence[Word], *, many: bool) -> None:
    """Say a predicate whose verb shows the subject's number."""
    form = w.pick(("be", "have", "do"))
    if form == "be":
        verb = w.say(w.pick((("is", "are"), ("was", "were")))[many])
        w.say(w.pick(w.lexicon.adjectives))
    elif form == "have":
        verb = w.say(("has", "have")[many])
        w.say(past(w.pick(w.lexicon.being)))
    else:
        bare = w.pick(w.lexicon.being)
        verb = w.say(bare if many else third_person(bare))
    w.link(verb, subject, "agreement", rivals)


def pronoun(w: Writer) -> None:
    """Write of a man and a woman, something in between, and then of one of them by a pronoun."""
    w.people = False
    feminine, first_one, told = w.chance(0.5), w.chance(0.5), w.chance(0.5)
    pools = (w.lexicon.women, w.lexicon.men) if feminine == first_one else (w.lexicon.men, w.lexicon.women)
    opening(w)
    first = w.noun_phrase(Noun(w.pick(pools[0])))
    verb = w.verb(w.pick(w.lexicon.telling if told else w.lexicon.doing), many=False)
    second = w.noun_phrase(Noun(w.pick(pools[1])))
    w.link(first, verb, "nsubj")
    w.link(second, verb, "obj")
    if told:
        w.say("that")
    else:
        w.stop(".")
        for _ in range(w.pick((0, 0, 1, 2))):
            filler(w)
    antecedent, rival = (first, second) if first_one else (second, first)
    referring(w, antecedent, rival, feminine=feminine)
    w.stop(".")


def filler(w: Writer) -> None:
    """Write a sentence in which nobody appears."""
    _, noun = doer(w, w.thing(), 0)
    w.say("were" if noun.plural else "was", w.pick(w.lexicon.adjectives))
    w.stop(".")


def referring(w: Writer, antecedent: Word, rival: Word, *, feminine: bool) -> None:
    """Say a clause with a pronoun for someone."""
    if w.chance(0.3):  # his boat, her boat
        owner = w.say("her" if feminine else "his")
        noun = w.thing()
        owned = Word(noun.form)
        w.adjectives(owned)
        w.words.append(owned)
        w.link(owner, owned, "poss")
        w.link(owned, w.verb(w.pick(w.lexicon.being), many=noun.plural), "nsubj")
        w.link(owner, antecedent, "pronoun", (rival,))
        return
    if w.chance(0.4):
        w.prepositional(0)
        w.stop(",")
    subject = w.say("she" if feminine else "he")
    verb = w.verb(w.pick(w.lexicon.doing), many=False)
    w.link(subject, verb, "nsubj")
    w.link(w.noun_phrase(w.thing(), 0), verb, "obj")
    w.link(subject, antecedent, "pronoun", (rival,))


def reflexive(w: Writer) -> None:
    """Write what someone did to himself, herself or themselves, with others mentioned in between."""
    w.people = False
    words, form = w.lexicon, w.pick(("himself", "herself", "themselves"))
    mine = {"himself": Noun(w.pick(words.men)), "herself": Noun(w.pick(words.women))}.get(form)
    theirs = Noun(w.pick(words.men if form == "herself" else words.women))
    mine = mine or Noun(w.pick(words.people), plural=True)
    rivals = []
    opening(w)
    if w.chance(0.3):  # the queen's brother
        subject = Word(mine.form)
        rivals.append(w.noun_phrase(theirs, 0, possessive=True))
        w.link(rivals[0], subject, "poss")
        w.adjectives(subject)
        w.words.append(subject)
    else:
        subject = w.noun_phrase(mine, 0)
    if not rivals or w.chance(0.4):
        if w.chance(0.5):
            rivals.append(w.prepositional(0, theirs))
        else:
            w.say("who")
            inner = w.verb(w.pick(words.doing), many=mine.plural)
            rivals.append(w.noun_phrase(theirs, 0))
            w.link(rivals[-1], inner, "obj")
    w.verb(w.pick(words.doing), many=mine.plural)
    w.link(w.say(form), subject, "reflexive", rivals)
    if w.chance(0.5):
        w.prepositional(0)
    w.stop(".")


FORMS: dict[str, Callable[[Writer], None]] = {
    "plain": plain,
    "agreement": agreement,
    "pronoun": pronoun,
    "reflexive": reflexive,
}
"""The forms of sentences. Every one of them has the relations inside of clauses too."""


def write(form: str, number: int, seed: int, half: int) -> Made:
    """Write a sentence; the same arguments give the same one.

    Parameters
    ----------
    form : str
        One of `FORMS`.
    number, seed : int
        Which of the endlessly many.
    half : int
        Which half of the words, 0 or 1.
    """
    writer = Writer(numpy.random.default_rng([seed, number, list(FORMS).index(form)]), lexicon(half))
    FORMS[form](writer)
    return writer.finished()
