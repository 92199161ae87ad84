"""Measures of faithfulness, each by a convention that is named: numbers made of curves, and of random ablations.

Curves are of an order in which a text is taken away (deletion) or put back (insertion), at shares f of its tokens:

``aopc``
    Mean over shares of ``v(x) - v(x without the first f)``, v the target's own number. The term of f = 0 is left out,
    as in the code of ERASER; its paper has it.
``top_k_drop``
    The same at one share: the one whose number of tokens is nearest to five (AT2, ContextCite).
``comprehensiveness``, ``sufficiency``
    Mean over shares of ``p(x) - p(x without the first f)``, and of ``p(x) - p(the first f alone)``, of which less is
    better; p is the probability of the target's token or class. The plain mean of ERASER's code (DeYoung et al. 2020).
``comprehensiveness_monotone``, ``sufficiency_monotone``
    The same of the running minimum, and of the running maximum, of p over rising shares: the envelope that ALTI's
    released code takes (Ferrando et al. 2022). Never below the plain one, and never above it.
``insertion``
    Mean over shares of ``v(the first f alone) - v(nothing)``.
``lds``
    The linear datamodelling score: the rank correlation, over random ablations that keep each part with probability ½,
    of the sum of the scores of the parts that stay with v (Park et al. 2023; Cohen-Wang et al. 2024, ContextCite).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attlas._agreement import ranks
from attlas._resampling import times_drawn

Kind = Literal["deletion", "insertion"]

VALUE, PROBABILITY = 0, 1
"""Columns of what is known of a subset of a text."""

NEAR = 5
"""Tokens that `top_k_drop` would take away if it could choose."""


@dataclass(frozen=True)
class CurveMeasure:
    """A number that is made of a curve.

    Parameters
    ----------
    name : str
    kind : {"deletion", "insertion"}
        Of which curve.
    column : int
        Of which of the two numbers.
    more_is_better : bool
    of : callable
        ``of(values (..., share), full, empty, k)`` returns (...); `k` is the share of `top_k_drop`.
    """

    name: str
    kind: Kind
    column: int
    more_is_better: bool
    of: Callable[[Tensor, float, float, int], Tensor]

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.more_is_better else -1


CURVE_MEASURES = (
    CurveMeasure("aopc", "deletion", VALUE, True, lambda v, full, empty, k: full - v.mean(-1)),
    CurveMeasure("top_k_drop", "deletion", VALUE, True, lambda v, full, empty, k: full - v[..., k]),
    CurveMeasure("comprehensiveness", "deletion", PROBABILITY, True, lambda p, full, empty, k: full - p.mean(-1)),
    CurveMeasure(
        "comprehensiveness_monotone",
        "deletion",
        PROBABILITY,
        True,
        lambda p, full, empty, k: full - p.cummin(-1).values.mean(-1),
    ),
    CurveMeasure("sufficiency", "insertion", PROBABILITY, False, lambda p, full, empty, k: full - p.mean(-1)),
    CurveMeasure(
        "sufficiency_monotone",
        "insertion",
        PROBABILITY,
        False,
        lambda p, full, empty, k: full - p.cummax(-1).values.mean(-1),
    ),
    CurveMeasure("insertion", "insertion", VALUE, True, lambda v, full, empty, k: v.mean(-1) - empty),
)
"""In the order in which they are reported."""


def nearest_share(counts: list[int]) -> int:
    """Return which share takes away a number of tokens that is nearest to `NEAR`."""
    return min(range(len(counts)), key=lambda i: abs(counts[i] - NEAR))


# ---- random ablations


def foretold(keeps: Tensor, scores: Tensor) -> Tensor:
    """Return the sum of the scores of the parts that stay, (ablation, …); `keeps` is bool, (ablation, part).

    Sums that are equal but for rounding are made equal, so that they share a rank.
    """
    sums = keeps.double() @ scores.double()
    grain = float(scores.double().abs().sum(0).max()) * 1e-9
    return (sums / grain).round() if grain > 0 else sums


def lds(keeps: Tensor, scores: Tensor, values: Tensor) -> float:
    """Return the linear datamodelling score; 0 for scores, or values, that are all alike and foretell nothing."""
    return float(_correlations(_column_ranks(foretold(keeps, scores.unsqueeze(1))), ranks(values))[0])


def shuffled_lds(keeps: Tensor, scores: Tensor, values: Tensor, shuffles: int, generator: torch.Generator) -> Tensor:
    """Return the score of the same numbers given to other parts at random, (shuffle,); costs no forward pass."""
    found, own = [], ranks(values)
    for start in range(0, shuffles, 100):
        count = min(100, shuffles - start)
        orders = torch.rand(count, len(scores), generator=generator).argsort(1)
        found.append(_correlations(_column_ranks(foretold(keeps, scores[orders].T)), own))
    return torch.cat(found)


def lds_interval(
    keeps: Tensor, scores: Tensor, values: Tensor, resamples: int, generator: torch.Generator
) -> tuple[float, float]:
    """Return the 95 % interval of the score: percentiles over bootstrap samples of the ablations.

    Ranks are those among all ablations.
    """
    a, b = ranks(foretold(keeps, scores.unsqueeze(1))[:, 0]), ranks(values)
    share = times_drawn(len(values), resamples, generator) / len(values)
    covariance = share @ (a * b) - (share @ a) * (share @ b)
    variances = [(share @ x.square() - (share @ x).square()).clamp(min=0) for x in (a, b)]
    size = (variances[0] * variances[1]).sqrt()
    found = torch.where(size > 1e-9, covariance / size.clamp(min=1e-9), 0.0)
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _column_ranks(values: Tensor) -> Tensor:
    """Return each entry's rank in its column, (row, column); equal ones share their mean rank."""
    columns = values.T.contiguous()
    ordered = columns.sort(-1).values
    first, last = (torch.searchsorted(ordered, columns, right=right) for right in (False, True))
    return (first + last + 1).T.double() / 2


def _correlations(columns: Tensor, other: Tensor) -> Tensor:
    """Return each column's correlation with another one; 0 where one of them is constant."""
    a, b = columns - columns.mean(0), other - other.mean()
    size = a.norm(dim=0) * b.norm()
    return torch.where(size > 0, (b @ a) / torch.where(size > 0, size, 1), 0.0)
