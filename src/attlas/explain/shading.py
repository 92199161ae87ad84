"""How strongly a score is coloured, the same wherever a text is shown.

Relevance is heaped up: much of it often lies on the token where the model answers, because walks begin there, and on
the first one, because attention likes to rest there. A scale that ends at the largest score would leave the rest blank.
So it ends where one token in 200 is stronger, those two not counted; the first one counts only where next to nothing is
left for the others. What is stronger still is shown in full colour too, and its number says how much it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attlas.explain.answering import answering

if TYPE_CHECKING:
    from attlas.explain.attribution import Attribution

SATURATED = 200
"""One token in so many may be stronger than full colour."""

SHOWN = 0.05
"""The share of all relevance from which on what is not on the first token has a scale of its own."""


def ends(attribution: Attribution) -> tuple[float, float]:
    """Return the size of a token's score that is shown in full colour, and that of a span's."""
    at = answering(attribution)
    span = next((i for i, one in enumerate(attribution.spans) if at is not None and one.start <= at < one.stop), None)
    return full(attribution.scores, at), full(attribution.span_scores, span)


def full(scores: Tensor, answers: int | None = None) -> float:
    """Return the size of a score that is shown in full colour; 0 where no score differs from 0.

    Parameters
    ----------
    scores : Tensor, (n,)
        Scores of consecutive parts of a text.
    answers : int, optional
        Which of them holds the token where the model answers.
    """
    sizes = scores.double().abs()
    if answers is not None and len(sizes) > 1 and 0 <= answers < len(sizes):
        rest = torch.cat([sizes[:answers], sizes[answers + 1 :]])
        sizes = rest if float(rest.max()) > 0 else sizes
    others = sizes[1:] if answers != 0 else sizes
    if float(others.sum()) <= SHOWN * float(sizes.sum()):
        return float(sizes.max())
    top = others.sort(descending=True).values
    at = float(top[len(top) // SATURATED])
    return at if at > 0 else float(top[0])


def shade(score: float, end: float) -> float:
    """Return how strong the colour of a score is, from −1 to 1, on a scale that is full at `end`."""
    return max(-1.0, min(1.0, score / end)) if end > 0 else 0.0
