"""The words of generated texts, and sentences in which nothing of importance happens."""

from __future__ import annotations

from random import Random

NAMES = (
    "Mary John Tom Anna Peter Susan Paul Laura James Emma David Alice Robert Sarah Mark Julia Henry Kate George Helen "
    "Frank Jane Simon Lucy Martin Rose Daniel Grace Adam Claire"
).split()

COLOURS = "red blue green black white yellow brown grey".split()

FOODS = "bread cheese honey rice butter sugar salt lemon apple orange banana coffee milk soup cake pepper".split()
ANIMALS = "lion tiger horse eagle rabbit monkey dog cat bear wolf fox snake sheep duck whale frog".split()

NOUNS = (
    "key letter picture box chair lamp bottle book window door coat basket clock boat table mirror ticket ring map "
    "wheel painting ladder candle blanket"
).split()
"""Things that can stand beside, behind or on each other; their plural takes an s, or es."""

_WHO = ("The old teacher", "A young farmer", "The captain", "The new doctor", "My neighbour", "The baker", "A tall man")
_DID = ("walked slowly to", "often talked about", "never went back to", "painted a picture of", "lived not far from")
_WHERE = ("the river", "the market", "the harbour", "the station", "the school", "the forest", "the bridge", "the mill")
_WHEN = ("in the morning", "after the rain", "last summer", "before the war", "on quiet evenings", "for many years")


def plural(noun: str) -> str:
    """Return the plural of one of `NOUNS`."""
    return noun + ("es" if noun.endswith(("x", "ch", "s")) else "s")


def filler(random: Random) -> str:
    """Return a sentence that has to do with no prompt's answer."""
    return f"{random.choice(_WHO)} {random.choice(_DID)} {random.choice(_WHERE)} {random.choice(_WHEN)}."


def fillers(random: Random, count: int) -> list[str]:
    """Return some such sentences, no two alike."""
    found: list[str] = []
    while len(found) < count:
        sentence = filler(random)
        if sentence not in found:
            found.append(sentence)
    return found
