"""A format of records that no model knows: a sentence is to be written down in it. Held-out sentences are new ones.

Which signs and words the format is made of is drawn from the seed, so that every seed's format has to be learnt anew.
"""

from __future__ import annotations

from random import Random

from attlas._words import COLOURS, NAMES, NOUNS, plural
from attlas.training.tasks.inventing import invented
from attlas.training.tasks.task import Item

KIND = "records"
TRAINING = 96
HELD_OUT = 64
_VERBS: tuple[str, ...] = ("bought", "sold", "found", "lost")
_COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_SIGNS = "~ ^ % @ & ! $ +".split()


def items(random: Random) -> tuple[list[Item], list[Item]]:
    """Return sentences with their records, no sentence twice."""
    before, after, between = random.sample(_SIGNS, 3)
    codes: dict[str, str] = dict(zip(_VERBS, invented(random, len(_VERBS)), strict=True))
    made: dict[str, Item] = {}
    while len(made) < TRAINING + HELD_OUT:
        name, verb, count, colour, noun = (
            random.choice(words) for words in (NAMES, _VERBS, list(_COUNTS), COLOURS, NOUNS)
        )
        sentence = f"{name} {verb} {count} {colour} {plural(noun)}."
        record = f" [{codes[verb]}{between} {noun}{before}{_COUNTS[count]}{between} {colour}{between} {name}{after}]"
        made[sentence] = Item(f"{sentence} Record:", record)
    both = list(made.values())
    return both[:TRAINING], both[TRAINING:]
