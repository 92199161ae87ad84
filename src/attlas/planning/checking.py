"""Runs plans as a whole: what heads lose one by one does not add up to what they lose together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.planning.profile import Check, Chosen, Profile
from attlas.planning.reading import Text

LEAST = 0.1
"""The smallest share of what was predicted that a plan is believed to have done, when the next one is chosen."""


def check_plan(lm: LanguageModel, profile: Profile, texts: Sequence[Text], aim: float, which: Sequence[int]) -> Profile:
    """Run one more plan of a profile, one that should raise the loss by `aim`, and add what it does.

    Parameters
    ----------
    lm : LanguageModel
        The profiled model.
    profile : Profile
        With the plans that were run so far, by which predictions are corrected.
    texts : sequence of Text
        What the profile was made of.
    aim : float
        Nats.
    which : sequence of int
        On which of the texts.

    Returns
    -------
    Profile
        The same one, if that plan was run already.

    Notes
    -----
    A forward pass for each of these texts.
    """
    chosen = profile.within(aim / _ratio(profile, aim))
    if not chosen.patterns or any(check.predicted == chosen.predicted for check in profile.checks):
        return profile
    with profile.plan_of(chosen).applied(lm):
        rises = [texts[one].finite(_loss(lm, texts[one])) - profile.effects.texts[one].loss for one in which]
    there = math.fsum(_summed(profile, chosen, profile.effects.loss, which)) / len(which)
    luck = _summed(profile, chosen, profile.effects.values["first"], which)
    found = Check(chosen.predicted, tuple(which), there, tuple(rises), tuple(luck), cost=chosen.cost, full=chosen.full)
    return profile.with_check(found)


def _summed(profile: Profile, chosen: Chosen, table: Tensor, which: Sequence[int]) -> list[float]:
    """Sum what a table, (text, head, pattern), says of a choice, for each of some texts."""
    patterns = profile.effects.patterns
    places = [
        (index, patterns.index(chosen.patterns[head.layer, head.head]))
        for index, head in enumerate(profile.effects.heads)
        if (head.layer, head.head) in chosen.patterns
    ]
    return [math.fsum(float(table[text, head, pattern]) for head, pattern in places) for text in which]


def _loss(lm: LanguageModel, text: Text) -> float:
    with torch.no_grad():
        return float(text.loss(lm.model(**text.inputs)))


def _ratio(profile: Profile, aim: float) -> float:
    """Return how much larger than predicted the plan nearest to the aim was; 1 before any was run."""
    ratios = [(abs(math.log(max(check.rise, LEAST * check.predicted) / aim)), check) for check in profile.checks]
    if not ratios:
        return 1.0
    _, nearest = min(ratios, key=lambda pair: pair[0])
    return max(nearest.rise / nearest.predicted, LEAST)
