"""What measures say in words: more faithful than chance, less, or cannot tell; by how much, and how sure that is.

One text gives one curve for an explanation, so there is no sample of it to draw from. What is random are the orders
that it is compared with, and the ablations that it is tried on. Hence two things are told. The interval says how well
the mean over random orders (or the correlation over ablations) is known. The p-value says how often a method that knows
nothing is as good: random orders are as good as any that such a method could give, so the explanation's rank among them
is a test that holds whatever the distribution is. A verdict takes both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas._intervals import RESAMPLES, simultaneous
from attlas.explain.faithfulness.measures import CurveMeasure, lds, lds_interval, shuffled_lds
from attlas.explain.faithfulness.record import Measured, Verdict
from attlas.explain.targets import Target

LEVEL = 0.025
"""How rarely a method that knows nothing is called better than chance; and worse, as rarely."""

SHUFFLES = 1999

_NAMES = {"recency": "recency", "first_token": "first tokens first", "null_attention": "even attention"}


@dataclass(frozen=True)
class Judged:
    """A measure, and how rare it is on either side.

    Parameters
    ----------
    measured : Measured
    rarer_above, rarer_below : float
        Share of chance that does at least, and at most, as well; the method itself counted.
    """

    measured: Measured
    rarer_above: float
    rarer_below: float

    @property
    def verdict(self) -> Verdict:
        """What it says beyond noise."""
        if self.rarer_above <= LEVEL and self.measured.low > 0:
            return "more faithful than chance"
        if self.rarer_below <= LEVEL and self.measured.high < 0:
            return "less faithful than chance"
        return "cannot tell"


def judge_curve(
    measure: CurveMeasure, value: float, random: Tensor, positional: Mapping[str, float], unit: str, seed: int
) -> Judged:
    """Compare a measure of a curve with that of random orders, (order,), at least 8 of them."""
    interval = simultaneous(random.unsqueeze(1), seed=seed)
    mean, low, high = (float(end) for end in (interval.mean, interval.low, interval.high))
    worse, better_by = sorted(measure.sign * (value - end) for end in (low, high))
    better = measure.sign * (value - random)
    # Sums of the same numbers in another order are equal; a rank must not depend on their rounding.
    near = 1e-9 * max(abs(value), float(random.abs().max()))
    above, below = _ranks(int((better <= near).sum()), int((better >= -near).sum()), len(random))
    baselines = {"random": mean, **positional}
    measured = Measured(
        measure.name, value, baselines, measure.sign * (value - mean), worse, better_by, unit, above, len(random)
    )
    return Judged(measured, above, below)


def judge_lds(keeps: Tensor, scores: Tensor, values: Tensor, positional: Mapping[str, Tensor], seed: int) -> Judged:
    """Compare the correlation with random ablations with that of shuffled scores."""
    generator = torch.Generator().manual_seed(seed)
    value = lds(keeps, scores, values)
    chance = shuffled_lds(keeps, scores, values, SHUFFLES, generator)
    low, high = lds_interval(keeps, scores, values, RESAMPLES, generator)
    mean = float(chance.mean())
    above, below = _ranks(int((chance >= value - 1e-12).sum()), int((chance <= value + 1e-12).sum()), SHUFFLES)
    baselines = {"random": mean, **{name: lds(keeps, other, values) for name, other in positional.items()}}
    measured = Measured("lds", value, baselines, value - mean, low - mean, high - mean, "correlation", above, SHUFFLES)
    return Judged(measured, above, below)


def _ranks(as_good: int, as_bad: int, chances: int) -> tuple[float, float]:
    return (1 + as_good) / (1 + chances), (1 + as_bad) / (1 + chances)


# ---- in words


def summary(judged: Judged, others: Sequence[Measured], target: Target, ablations: int) -> str:
    """Say a verdict in one sentence."""
    measured = judged.measured
    verdict = judged.verdict[:1].upper() + judged.verdict[1:]
    if measured.name == "aopc":
        return f"{verdict}: {_costs(measured)}, {_beside_orders(measured)}{_by_position(measured)}."
    mean = measured.baselines["random"]
    number = target.quantity + (f" of {target.name}" if target.name else "")
    said = (
        f"its scores foretell what {ablations} random removals do to the {number} with a rank correlation of "
        f"{measured.value:.2f} [{measured.low + mean:.2f}, {measured.high + mean:.2f}], {_beside_shuffled(judged)}"
    )
    costs = [f"; {_costs(other)}" for other in others if other.name == "aopc"]
    return f"{verdict}: {said}{_by_position(measured)}{''.join(costs)}."


def _costs(measured: Measured) -> str:
    size, low, high = measured.advantage, measured.low, measured.high
    word = "more" if size >= 0 else "less"
    ends = (low, high) if size >= 0 else (-high, -low)
    return (
        f"removing what it marks first costs {abs(size):.2f} {measured.unit} {word} than removing as much at random "
        f"[{ends[0]:.2f}, {ends[1]:.2f}]"
    )


def _beside_orders(measured: Measured) -> str:
    as_good = round(measured.p * (measured.chances + 1)) - 1
    if as_good == 0:
        return f"more than each of {measured.chances} random orders"
    return f"and {as_good} of {measured.chances} random orders cost as much"


def _beside_shuffled(judged: Judged) -> str:
    chances = judged.measured.chances
    beyond = judged.rarer_above if judged.measured.advantage >= 0 else judged.rarer_below
    share = 100 * (round(beyond * (chances + 1)) - 1) / chances
    told = f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"
    return f"which {told} of shuffled scores {'reach' if judged.measured.advantage >= 0 else 'stay below'}"


def _by_position(measured: Measured) -> str:
    best = best_by_position(measured)
    if best is None:
        return ""
    name, advantage = best
    reached = f"{measured.baselines[name]:.2f}" if measured.name == "lds" else f"{advantage:.2f}"
    as_well = ", so position alone explains as much" if advantage >= measured.advantage > 0 else ""
    return f"; position alone reaches {reached} ({_NAMES.get(name, name)}){as_well}"


def best_by_position(measured: Measured) -> tuple[str, float] | None:
    """Return which order by position is best, and its advantage over random; None if none was measured."""
    mean = measured.baselines["random"]
    sign = -1 if measured.name.startswith("sufficiency") else 1
    found = {name: sign * (value - mean) for name, value in measured.baselines.items() if name != "random"}
    found = {name: advantage for name, advantage in found.items() if not math.isnan(advantage)}
    return max(found.items(), key=lambda item: item[1]) if found else None
