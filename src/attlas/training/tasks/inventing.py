"""Names and words that no model has seen: syllables put together."""

from __future__ import annotations

from random import Random

from attlas._words import NAMES

_BEGINNINGS = "bel dor fen gal hov jar kel lum mor nev pol quin ras sel tav ulm ven wex yor zan".split()
_MIDDLES = "a e i o u".split()
_ENDINGS = "bix dra fun gor lim mak nex pod rin sta tov vik wen zor".split()


def invented(random: Random, count: int) -> list[str]:
    """Return `count` different invented words, in small letters; up to 500 or so."""
    words: list[str] = []
    while len(words) < count:
        word = random.choice(_BEGINNINGS) + random.choice(_MIDDLES) + random.choice(_ENDINGS)
        if word not in words and word.capitalize() not in NAMES:
            words.append(word)
    return words
