"""What must be said beside explanations before anybody relies on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attlas.explain.attribution import Attribution
from attlas.explain.faithfulness.record import Faithfulness, Measured

POSITIONS = {
    "recency": "nearness to the end",
    "first_token": "the first token alone",
    "null_attention": "evenly spread attention",
}
"""Orders that know where tokens stand and nothing of what they say."""

RESTING = 0.5
"""The share of relevance on the first token from which on it is said."""


def most_faithful(attributions: Sequence[Attribution]) -> Attribution:
    """Return the explanation that beats chance by most, surely if one does; the first one, if none was measured.

    Parameters
    ----------
    attributions : sequence of Attribution
        At least one, all of the same target.
    """
    measured = [one for one in attributions if one.faithfulness is not None]
    return max(measured, key=strength, default=attributions[0])


def strength(attribution: Attribution) -> tuple[bool, float]:
    """Return what orders explanations: whether one surely beats chance, and by how much it seems to."""
    found = attribution.faithfulness
    if found is None:
        return False, -math.inf
    return found.verdict == "more faithful than chance", _main(found).advantage


def cautions(attributions: Sequence[Attribution]) -> list[str]:
    """Return a sentence for each reason not to rely on explanations of one target; none if there is no such reason.

    Parameters
    ----------
    attributions : sequence of Attribution
        Of one target, by one or more methods.
    """
    best = most_faithful(attributions)
    measured = sum(one.faithfulness is not None for one in attributions)
    doubts = [] if best.faithfulness is None else _doubts(best, best.faithfulness, measured)
    return [*_resting(best), *doubts]


def _resting(best: Attribution) -> list[str]:
    """Say it when most of an explanation lies on the first token."""
    sizes = best.scores.abs()
    total = float(sizes.sum())
    share = float(sizes[0]) / total if total > 0 else 0.0
    if share < RESTING:
        return []
    where = f"{100 * share:.3g} % of the relevance by {best.name} lies on the first token"
    return [f"{where}, where attention likes to rest whatever the text says."]


def _doubts(best: Attribution, found: Faithfulness, measured: int) -> list[str]:
    """Say it when the best of some methods is no better than chance, or than positions alone."""
    if found.verdict != "more faithful than chance":
        tried = "This method is not" if measured == 1 else f"None of these {measured} methods is"
        return [
            f"{tried} more faithful than chance on this text: what is coloured need not have mattered to the model."
        ]
    main = _main(found)
    as_good = {name: value for name, value in main.baselines.items() if name in POSITIONS and _as_good(value, main)}
    if not as_good:
        return []
    order, value = max(as_good.items(), key=lambda one: _better(one[1], main))
    return [
        f"Positions alone do as well: {POSITIONS[order]} reaches {value:.3g}, {best.name} {main.value:.3g} {main.unit}."
    ]


def _main(found: Faithfulness) -> Measured:
    """Return the measure that the verdict is about."""
    return found.measures[0]


def _better(value: float, main: Measured) -> float:
    """Return a number that is higher the better a measure's value is."""
    return -value if main.name.startswith("sufficiency") else value


def _as_good(value: float, main: Measured) -> bool:
    return _better(value, main) >= _better(main.value, main)
