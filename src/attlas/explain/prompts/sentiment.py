"""Sentiment: a review in which one word decides, among sentences that judge nothing."""

from __future__ import annotations

from random import Random

from attlas.explain.prompts.prompt import Draft, Prompt

KIND = "sentiment"
BAD = "terrible awful boring dreadful horrible dull disappointing bad poor weak stupid annoying".split()
GOOD = "wonderful excellent brilliant delightful superb charming great good beautiful lovely perfect amazing".split()
_THINGS = ("story", "music", "acting", "ending", "dialogue", "plot")
_JUDGING = ("I found the {}", "We all thought that the {} was", "The {} was")
_NEUTRAL = (
    "It was shown in a small hall on Tuesday.",
    "We sat near the door.",
    "The hall has two hundred seats.",
    "My sister came with me.",
    "The film is about a farmer and his two sons.",
    "It lasts almost two hours.",
    "We took the bus home.",
    "It was made in a town by the sea.",
    "The tickets were sold at the counter.",
    "Most of it takes place in winter.",
    "It began at eight in the evening.",
    "The film is in colour.",
)


def asked(random: Random) -> Prompt:
    """Write a review and ask what it is."""
    draft, good = _written(random)
    draft.say("This review is very")
    forms = (" negative", " positive")
    return Prompt(KIND, draft.text, tuple(draft.cue), forms[good], forms[not good])


def labelled(random: Random) -> Prompt:
    """Write a review to be classified: 1 is good."""
    draft, good = _written(random)
    return Prompt(KIND, draft.text, tuple(draft.cue), label=int(good))


def _written(random: Random) -> tuple[Draft, bool]:
    good = random.random() < 0.5
    sentences = random.sample(_NEUTRAL, random.choice((2, 3, 4)))
    place = random.randrange(len(sentences) + 1)
    draft = Draft()
    for number in range(len(sentences) + 1):
        if number == place:
            draft.say(random.choice(_JUDGING).format(random.choice(_THINGS)))
            draft.say(random.choice(GOOD if good else BAD), cue=True)
            draft.say(".")
        if number < len(sentences):
            draft.say(sentences[number])
    return draft, good
