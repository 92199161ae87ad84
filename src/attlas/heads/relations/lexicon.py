"""The words of the library's own sentences, in two halves that share no noun, verb or adjective.

A head that is chosen on sentences of one half and measured on those of the other cannot have won by a liking for
certain words.
"""

from __future__ import annotations

from dataclasses import dataclass

_MEN = (
    "king man boy father brother uncle son husband prince waiter monk grandfather nephew gentleman wizard actor "
    "policeman fisherman duke groom"
)
_WOMEN = (
    "queen woman girl mother sister aunt daughter wife princess waitress nun grandmother niece lady witch actress "
    "policewoman maid duchess bride"
)
_PEOPLE = (
    "farmer teacher doctor lawyer pilot painter singer driver baker guard student soldier sailor writer judge nurse "
    "clerk poet hunter miner dancer gardener plumber captain tailor manager player visitor tourist neighbour"
)
_THINGS = (
    "book letter table chair box key picture car boat bottle coat knife lamp clock basket bicycle blanket mirror "
    "hammer wheel ladder candle ticket hat ring bowl carpet cup desk drum flag gate glove jar kettle map pencil pillow "
    "rope shirt"
)
_PLACES = (
    "garden town village house kitchen office river forest station market school church hotel farm bridge street lake "
    "castle museum tower harbour field library prison"
)
_ADJECTIVES = (
    "small large old young red green heavy light clean dirty quiet loud strong weak rich poor tall short warm cold "
    "happy sad kind strange famous lonely clever lazy broken pretty bright dark empty rough smooth plain simple modern "
    "ancient local"
)
_DOING = (  # to someone or something; all of them regular
    "help follow visit watch call push clean paint carry move lift kick pull want need love admire enjoy collect "
    "remember ignore protect touch notice order observe pass reach save trust"
)
_BEING = (  # of someone or something, without an object
    "laugh smile wait walk arrive shout dance work talk jump cough whisper listen rest return travel remain suffer "
    "appear vanish"
)
_SAYING = "claim believe explain deny hope agree announce admit think suspect"
_TELLING = "tell remind warn assure promise inform notify persuade"
_ADVERBS = (
    "quickly slowly suddenly often rarely quietly finally gladly clearly simply gently sadly recently always never soon"
)
_STANDING = "stand sit wait rest lie lean"
_IRREGULAR_PAST = {
    "think": "thought", "tell": "told", "stand": "stood", "sit": "sat", "lie": "lay",
}  # fmt: skip
_IRREGULAR_PLURAL = {
    "man": "men", "woman": "women", "wife": "wives", "knife": "knives", "policeman": "policemen",
    "policewoman": "policewomen", "fisherman": "fishermen", "gentleman": "gentlemen",
}  # fmt: skip

PREPOSITIONS = ("near", "behind", "beside", "from", "in", "by", "under", "opposite", "outside", "of", "with")
DEGREES = ("very", "rather", "quite")


@dataclass(frozen=True)
class Lexicon:
    """The words of one half.

    Parameters
    ----------
    men, women, people, things, places : tuple of str
        Nouns, singular. `people` may be men or women.
    adjectives, adverbs : tuple of str
    doing, being, saying, telling, standing : tuple of str
        Verbs, in their base form: with an object, without one, with a clause, with a person and a clause, and those
        that may stand before their subject.
    """

    men: tuple[str, ...]
    women: tuple[str, ...]
    people: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    adjectives: tuple[str, ...]
    adverbs: tuple[str, ...]
    doing: tuple[str, ...]
    being: tuple[str, ...]
    saying: tuple[str, ...]
    telling: tuple[str, ...]
    standing: tuple[str, ...]


def lexicon(half: int) -> Lexicon:
    """Return one half of the words, 0 or 1."""
    lists = (
        _MEN, _WOMEN, _PEOPLE, _THINGS, _PLACES, _ADJECTIVES, _ADVERBS, _DOING, _BEING, _SAYING, _TELLING, _STANDING,
    )  # fmt: skip
    return Lexicon(*(tuple(words.split()[half::2]) for words in lists))


def plural(noun: str) -> str:
    """Return a noun's plural."""
    if noun in _IRREGULAR_PLURAL:
        return _IRREGULAR_PLURAL[noun]
    return _with_s(noun)


def third_person(verb: str) -> str:
    """Return a verb's present form for a singular subject."""
    return _with_s(verb)


def past(verb: str) -> str:
    """Return a verb's past form."""
    if verb in _IRREGULAR_PAST:
        return _IRREGULAR_PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    doubled = verb in ("admit",)
    return verb + (verb[-1] if doubled else "") + "ed"


def _with_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh", "z")) else "s")
