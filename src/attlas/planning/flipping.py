"""Whether heads would get the same patterns on other texts: what a head needs depends on what it reads.

The plan's own patterns are measured on the new texts as a profile measures them, and the cheapest choice among them is
made that is predicted to lose no more here than the plan does. Where a head gets another pattern by that than the plan
has for it, its type has flipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attlas.capture import LanguageModel
from attlas.models.progress import Progress
from attlas.patterns import Full, Pattern
from attlas.planning.choosing import cheapest
from attlas.planning.evaluation import Flip, Flips
from attlas.planning.profile import options_of, units_of
from attlas.planning.profiling import profile
from attlas.planning.reading import needed


def flips_of(
    lm: LanguageModel,
    table: Mapping[tuple[int, int], Pattern],
    ids: Sequence[Sequence[int]],
    *,
    together: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Flips | None:
    """Return which heads of a plan would get another pattern on these texts.

    Parameters
    ----------
    lm : LanguageModel
        A model that predicts next tokens.
    table : mapping
        (layer, head) -> pattern, of all heads.
    ids : sequence of sequences of int
        Tokens of the texts.
    together : bool
        Whether heads that share keys have one pattern together.
    seed : int
        What is sampled.
    progress : callable, optional
        As for `attlas.profile`.

    Returns
    -------
    Flips or None
        None where there is nothing to choose from, because the plan leaves all heads exact, or where every text is so
        short that its patterns forget nothing.

    Notes
    -----
    Costs what a profile of these texts costs, without the plans that it runs as a whole.
    """
    patterns = tuple(dict.fromkeys(pattern for pattern in table.values() if not isinstance(pattern, Full)))
    if not patterns:
        return None
    # A text in which no pattern would forget anything says nothing of them.
    long = [list(one) for one in ids if len(one) >= needed(patterns)]
    if not long:
        return None
    found = profile(lm, long, patterns, aims=(), seed=seed, progress=progress)
    options: tuple[Pattern, ...] = (Full(), *patterns)
    heads = found.effects.heads
    length = max(text.tokens for text in found.effects.texts)
    units = units_of(heads, together=together)
    lost, taken = options_of(found.effects, found.costs, units, length)
    planned = [options.index(table.get((head.layer, head.head), Full())) for head in heads]
    # What cannot have its pattern on these texts runs exactly, and loses nothing.
    has = [planned[units.index(unit)] for unit in range(len(lost))]
    has = [option if math.isfinite(float(lost[unit, option])) else 0 for unit, option in enumerate(has)]
    budget = sum(float(lost[unit, option]) for unit, option in enumerate(has))
    chosen = cheapest(lost, taken, budget).options
    flipped, dearer = [], 0
    for head, option, unit in zip(heads, planned, units, strict=True):
        here = chosen[unit]
        if here != option:
            flipped.append(Flip(head.layer, head.head, str(options[option]), str(options[here])))
            dearer += float(taken[unit, here]) > float(taken[unit, option])
    return Flips(tuple(flipped), len(flipped) / len(heads), dearer / len(heads))
