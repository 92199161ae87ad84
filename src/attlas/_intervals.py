"""Means over independent examples, with intervals that hold for all heads at once.

Whoever looks at 270 heads and points at the best one has looked 270 times. So the intervals here are simultaneous: with
95 % probability, all heads' true means lie within theirs together. The bootstrap draws whole examples (sequences,
sentences, stretches of a text), because positions within one are not independent, and keeps heads together, so that
what heads have in common is accounted for.

The method is the bootstrap-t with the largest deviation over heads (Efron and Tibshirani 1993, "An introduction to the
bootstrap", section 12.5; Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis
testing"): for each resample, the largest ``|mean* - mean| / error*`` of any head; its 95 % quantile, times a head's
own standard error, is half of its interval. Dividing by the resample's own error is what makes few, skewed examples
come out right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attlas._resampling import times_drawn
from attlas.errors import ArgumentError, complaint

LEVEL = 0.95
"""The probability that all intervals hold."""

RESAMPLES = 2000

FEWEST = 8
"""Examples below which no interval is given: with fewer, a bootstrap says little."""


@dataclass(frozen=True, eq=False)
class Interval:
    """Means and their simultaneous intervals; all tensors are float64.

    Parameters
    ----------
    mean, low, high : Tensor, (head,)
        The mean over examples, and the ends of its interval.
    error : Tensor, (head,)
        Standard error of the mean.
    examples : int
        How many examples there were.
    """

    mean: Tensor
    low: Tensor
    high: Tensor
    error: Tensor
    examples: int


def simultaneous(
    scores: Tensor, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL, hits: bool = False
) -> Interval:
    """Return means over examples with intervals that hold for all heads together.

    Parameters
    ----------
    scores : Tensor, (example, head)
        One number for each independent example and each head. An example with NaN is left out.
    seed : int
        What the resamples are drawn from.
    resamples : int
        How many; from 100.
    level : float
        The probability that all intervals hold.
    hits : bool
        The scores count hits and misses: a head whose examples are all alike has not been proved to be certain, so no
        standard error is below that of one differing example.

    Returns
    -------
    Interval

    Raises
    ------
    ArgumentError
        There are fewer than 8 examples, or another argument does not fit.

    Notes
    -----
    Time and memory are O(resamples · (example + head)).
    """
    check_resamples(resamples)
    if not 0 < level < 1:
        raise ArgumentError(complaint("level", wanted="a number between 0 and 1", got=level))
    scores = scores.double()
    scores = scores[~scores.isnan().any(1)]
    count = len(scores)
    if count < FEWEST:
        raise ArgumentError(complaint("scores", wanted=f"at least {FEWEST} examples", got=count))
    mean = scores.mean(0)
    error = scores.std(0) / count**0.5
    if hits:
        error = error.clamp(min=1 / count)
    share = times_drawn(count, resamples, torch.Generator().manual_seed(seed)) / count
    centred = scores - mean
    away = share @ centred
    spread = (share @ centred.square() - away.square()).clamp(min=0)
    # A resample of few distinct examples can have next to no spread; half of the real one is as low as is believed.
    own = torch.maximum((spread / (count - 1)).sqrt(), error / 2)
    farthest = torch.where(own > 0, away.abs() / own.clamp(min=torch.finfo(torch.float64).tiny), 0.0).amax(1)
    half = farthest.quantile(level) * error
    return Interval(mean, mean - half, mean + half, error, count)


def check_resamples(resamples: int) -> None:
    """Refuse a number of resamples that is none, or too few for a quantile."""
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 100:
        raise ArgumentError(complaint("resamples", wanted="a whole number from 100", got=repr(resamples)))


def halves(examples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split examples at random: one half to choose by, the other to report; both ascending, int64."""
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed))
    return order[: examples // 2].sort().values, order[examples // 2 :].sort().values
