"""Agreement of a verb with its subject, over nouns of the other number that stand between.

As texts to be classified: the same words, and the class is whether the subject is many.
"""

from __future__ import annotations

from random import Random

from attlas._words import COLOURS, NOUNS, fillers, plural
from attlas.explain.prompts.prompt import Draft, Prompt

KIND = "agreement"
_BETWEEN = ("near", "behind", "beside", "under", "from", "next to")
_ADJECTIVES = ("old", "small", "large", "broken", "heavy", "clean", "new", "pretty")


def asked(random: Random) -> Prompt:
    """Write a subject and what stands between it and its verb."""
    draft, many = _written(random)
    forms = (" is", " are")
    return Prompt(KIND, draft.text, tuple(draft.cue), forms[many], forms[not many])


def labelled(random: Random) -> Prompt:
    """Write the same, to be classified."""
    draft, many = _written(random)
    return Prompt(KIND, draft.text, tuple(draft.cue), label=int(many))


def _written(random: Random) -> tuple[Draft, bool]:
    many, rivals = random.random() < 0.5, random.choice((1, 1, 2))
    subject, *others = random.sample(NOUNS, 1 + rivals)
    draft = Draft()
    for sentence in fillers(random, random.choice((0, 1, 1))):
        draft.say(sentence)
    draft.say(random.choice(("I think that the", "We all know that the", "The", "As you can see, the")))
    draft.say(plural(subject) if many else subject, cue=True)
    for other in others:
        qualities = f"{random.choice(_ADJECTIVES)} {random.choice(COLOURS)}" if random.random() < 0.4 else ""
        words = [random.choice(_BETWEEN), "the", qualities or random.choice(_ADJECTIVES)]
        draft.say(" ".join([*words, other if many else plural(other)]))
    return draft, many
