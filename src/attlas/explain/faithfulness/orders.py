"""In which order parts of a text are taken away: by an explanation's scores, at random, or by position alone.

Parts are taken away whole, one after the other, but a share of the text is a share of its tokens: the part in which the
share ends goes in part, from its start. So every order takes away exactly as many tokens as any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.explain.attribution import Attribution
from attlas.explain.faithfulness.removing import Passage

POSITIONAL = ("recency", "first_token", "null_attention")


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a text that are taken away together.

    Parameters
    ----------
    passage : Passage
        The text.
    members : tuple of Tensor
        Positions of the tokens of each part, ascending; protected tokens are in none.
    """

    passage: Passage
    members: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def tokens(self) -> int:
        """How many tokens are in parts."""
        return sum(map(len, self.members))

    @property
    def full(self) -> Tensor:
        """All tokens stay: bool, (n,)."""
        return torch.ones(self.passage.n, dtype=torch.bool)

    @property
    def empty(self) -> Tensor:
        """All parts are gone: bool, (n,)."""
        return self.passage.without(torch.cat(self.members))

    def counts(self, fractions: Sequence[float]) -> list[int]:
        """Return how many tokens each share of the text is: rounded up, as ERASER does, so at least one."""
        return [math.ceil(fraction * self.tokens - 1e-9) for fraction in fractions]

    def tokens_in(self, order: Tensor) -> Tensor:
        """Return positions in the order in which they go, when parts go in `order`."""
        return torch.cat([self.members[part] for part in order.tolist()])

    def present(self, keeps: Tensor) -> Tensor:
        """Return which tokens stay when only some parts do; `keeps` is bool, (part,)."""
        gone = [self.members[part] for part in (~keeps).nonzero().flatten().tolist()]
        return self.passage.without(torch.cat(gone) if gone else torch.empty(0, dtype=torch.long))

    def summed(self, scores: Tensor) -> Tensor:
        """Return the sum of each part's token scores, (part,)."""
        return torch.stack([scores[member].sum() for member in self.members])


def parts_of(passage: Passage, attribution: Attribution, by: str) -> Parts:
    """Return the parts that are taken away: an explanation's spans, or single tokens.

    Raises
    ------
    DocumentError
        There is only one.
    """
    free = torch.zeros(passage.n, dtype=torch.bool)
    free[passage.free] = True
    if by == "token":
        members = [passage.free[i : i + 1] for i in range(len(passage.free))]
    elif by == "span":
        # Spans behind the target are not of the passage that answers.
        within = [span for span in attribution.spans if span.start < passage.n]
        spans = [torch.arange(span.start, min(span.stop, passage.n)) for span in within]
        members = [kept for span in spans if len(kept := span[free[span]])]
    else:
        raise ArgumentError(complaint("by", wanted='"span" or "token"', got=repr(by)))
    if len(members) < 2:
        raise DocumentError(
            f"text: wanted at least two parts that can be taken away before the target, got {len(members)}; "
            'use smaller spans, or by="token"'
        )
    return Parts(passage, tuple(members))


def by_score(scores: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
    """Return parts, highest score first, and how many share their score with another; those are in random order."""
    shuffled = torch.randperm(len(scores), generator=generator)
    order = shuffled[scores[shuffled].argsort(descending=True, stable=True)]
    _, counts = scores.unique(return_counts=True)
    return order, int(counts[counts > 1].sum())


def positional(name: str, parts: Parts) -> Tensor:
    """Return each part's score by where it stands, (part,), float64; what it says does not matter.

    ``"recency"``
        1/(1 + d) at a distance of d tokens from where the target is read; to the end of the text, where that is at no
        token of it.
    ``"first_token"``
        Everything on the first part.
    ``"null_attention"``
        What attention rollout says when every token attends to all that it sees alike, through as many layers as the
        model has: uniform causal attention for a decoder (`causal_null`), the same for all tokens for an encoder.
    """
    passage = parts.passage
    facts, at = passage.reading.lm.facts, passage.n - 1 if passage.row is None else passage.row
    if name == "recency":
        return torch.stack([1 / (1 + (member - at).abs().min().double()) for member in parts.members])
    if name == "first_token":
        return torch.eye(len(parts), dtype=torch.float64)[0]
    if name == "null_attention":
        uniform = torch.full((passage.n,), 1 / passage.n, dtype=torch.float64)
        causal = facts.kind == "decoder"
        return parts.summed(causal_null(passage.n, at, facts.layers or 1) if causal else uniform)
    wanted = f"some of {', '.join(POSITIONAL)}; random orders are always there"
    raise ArgumentError(complaint("baselines", wanted=wanted, got=repr(name)))


def in_reading_order(scores: Tensor) -> Tensor | None:
    """Return parts, highest score first, equal ones as they are read; None if all are equal, which is no order."""
    return None if bool((scores == scores[0]).all()) else scores.argsort(descending=True, stable=True)


def causal_null(n: int, position: int, layers: int) -> Tensor:
    """Return the rollout of uniform causal attention from one position, (n,), float64; sums to 1.

    A layer is ½A + ½I with ``A_ij = 1 / (i + 1)`` for ``j <= i``, so its product with a row is a cumulative sum:
    O(n · layers).
    """
    row = torch.zeros(n, dtype=torch.float64)
    row[position] = 1
    heights = torch.arange(1, n + 1, dtype=torch.float64)
    for _ in range(layers):
        row = row / 2 + (row / heights).flip(0).cumsum(0).flip(0) / 2
    return row


def random_orders(parts: int, count: int, generator: torch.Generator) -> list[Tensor]:
    """Return random orders of parts."""
    return [torch.randperm(parts, generator=generator) for _ in range(count)]


def random_halves(parts: int, count: int, generator: torch.Generator) -> Tensor:
    """Return random ablations that keep each part with probability ½: bool, (ablation, part)."""
    return torch.rand(count, parts, generator=generator) < 0.5
