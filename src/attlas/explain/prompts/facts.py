"""Planted facts: one sentence among others says what is asked for at the end; another says the same of something else.

As texts to be classified: there is one planted sentence and no question; the class is whether what it names is a food
or an animal.
"""

from __future__ import annotations

from random import Random

from attlas._words import ANIMALS, COLOURS, FOODS, filler, fillers
from attlas.explain.prompts.prompt import Draft, Prompt

KIND = "facts"
_PLACES = ("door", "gate", "box", "house", "room", "boat")


def asked(random: Random) -> Prompt:
    """Write two planted facts among sentences about other things, and ask for one of them."""
    place = random.choice(_PLACES)
    ours, theirs = random.sample(COLOURS, 2)
    answer, rival = random.sample(FOODS + ANIMALS, 2)
    sentences = [(filler(random), False)]
    for colour, value in ((ours, answer), (theirs, rival)):
        sentence = f"The word for the {colour} {place} is {value}."
        sentences.insert(random.randrange(len(sentences) + 1), (sentence, value == answer))
    draft = Draft()
    for sentence, cue in sentences:
        draft.say(sentence, cue=cue)
    draft.say(f"What is the word for the {ours} {place}? The word for the {ours} {place} is")
    return Prompt(KIND, draft.text, tuple(draft.cue), f" {answer}")


def labelled(random: Random) -> Prompt:
    """Write one planted fact among sentences about other things."""
    label = random.choice((0, 1))
    value = random.choice((FOODS, ANIMALS)[label])
    sentences = [(sentence, False) for sentence in fillers(random, random.choice((1, 2)))]
    planted = f"The word for the {random.choice(COLOURS)} {random.choice(_PLACES)} is {value}."
    sentences.insert(random.randrange(len(sentences) + 1), (planted, True))
    draft = Draft()
    for sentence, cue in sentences:
        draft.say(sentence, cue=cue)
    return Prompt(KIND, draft.text, tuple(draft.cue), label=label)
