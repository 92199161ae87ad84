"""Indirect objects: two people are named, one of them again, and the other is who is given something.

Half of the prompts name the giver first (BABA), half the other one (ABBA), as Wang et al. 2022 ("Interpretability in
the wild") lay them out.
"""

from __future__ import annotations

from random import Random

from attlas._words import NAMES, fillers
from attlas.explain.prompts.prompt import Draft, Prompt

KIND = "indirect objects"
_PLACES = ("store", "garden", "school", "station", "market", "office", "beach", "library")
_GIFTS = ("drink", "book", "ring", "letter", "flower", "ball", "ticket", "present")
_GIVING = ("gave", "handed", "offered")


def asked(random: Random) -> Prompt:
    """Write who went where, and who gave something to whom."""
    taker, giver = random.sample(NAMES, 2)
    first, second = (taker, giver) if random.random() < 0.5 else (giver, taker)
    draft = Draft()
    for sentence in fillers(random, random.choice((0, 1))):
        draft.say(sentence)
    draft.say("When")
    draft.say(first, cue=first == taker)
    draft.say("and")
    draft.say(second, cue=second == taker)
    draft.say(f"went to the {random.choice(_PLACES)}, {giver} {random.choice(_GIVING)} a {random.choice(_GIFTS)} to")
    return Prompt(KIND, draft.text, tuple(draft.cue), f" {taker}", f" {giver}")
