"""An invented language: words for things, colours and verbs, and an order of its own. Held-out sentences are new ones.

A sentence has a thing, its colour and what is done with it; the language says them in an order that is drawn from the
seed, with words that are drawn from it too.
"""

from __future__ import annotations

import itertools
from random import Random

from attlas._words import COLOURS, NOUNS
from attlas.training.tasks.inventing import invented
from attlas.training.tasks.task import Item

KIND = "vocabulary"
TRAINING = 96
HELD_OUT = 64
_VERBS = ("take", "hide", "wash", "sell")
_NOUNS = 8


def items(random: Random) -> tuple[list[Item], list[Item]]:
    """Return sentences with their translations; each word is in many training items."""
    parts = (_VERBS, tuple(COLOURS), tuple(random.sample(NOUNS, _NOUNS)))
    words = [dict(zip(part, invented(random, len(part)), strict=True)) for part in parts]
    order = random.choice([order for order in itertools.permutations(range(3)) if order != (0, 1, 2)])
    sentences = random.sample(list(itertools.product(*parts)), TRAINING + HELD_OUT)
    both = [
        Item(
            f"English: {' '.join(sentence)}. Tavnian:",
            f" {' '.join(words[part][sentence[part]] for part in order)}.",
        )
        for sentence in sentences
    ]
    return both[:TRAINING], both[TRAINING:]
