"""Sums of exponentials in parts: each part is relative to a number of its own per row, so that none overflows.

A row of attention is a sum over keys, and may be taken in parts: keys near by, keys that went into a running sum long
ago, a learned sink. `merge` puts parts under one denominator. What a part is relative to cancels in the end, so it
takes no part in gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HIDDEN = -1e30
"""Stands for the logarithm of nothing: finite, so that differences of two are no NaN."""

REACH = {torch.float32: 60.0, torch.float64: 600.0}
"""How far, in natural logarithms, a row may lie below what it is relative to and still be summed without loss."""


@dataclass(frozen=True)
class Partial:
    """Rows summed over some keys.

    Parameters
    ----------
    top : Tensor, (batch, head, rows)
        What the sums are relative to, a natural logarithm; `HIDDEN` or about it where there is nothing.
    out : Tensor, (batch, head, rows, width + 1)
        ``sum_j exp(log weight_ij - top_i) · [value_j, 1]``: the last number is the sum of the weights alone.
    """

    top: Tensor
    out: Tensor

    @staticmethod
    def nothing(like: Tensor, batch: int, head: int, rows: int, width: int) -> Partial:
        """Return rows that have seen no key yet."""
        return Partial(like.new_full((batch, head, rows), HIDDEN), like.new_zeros((batch, head, rows, width)))

    def log_total(self) -> Tensor:
        """Return the logarithm of the sum of the weights; minus infinity for a row of nothing."""
        return self.top + self.out[..., -1].log()

    def mean(self) -> Tensor:
        """Return the weighted mean of the values, 0 for a row of nothing; (batch, head, rows, width)."""
        total = self.out[..., -1:]
        seen = total > 0
        return torch.where(seen, self.out[..., :-1] / torch.where(seen, total, 1.0), 0.0)


def merge(parts: Sequence[Partial]) -> Partial:
    """Add up sums over different keys of the same rows."""
    if len(parts) == 1:
        return parts[0]
    top = torch.stack([part.top for part in parts]).amax(0)
    return Partial(top, torch.stack([part.out * (part.top - top).exp().unsqueeze(-1) for part in parts]).sum(0))


def join(parts: Sequence[Partial]) -> Partial:
    """Put the sums of rows that follow one another into one."""
    if len(parts) == 1:
        return parts[0]
    return Partial(torch.cat([part.top for part in parts], dim=2), torch.cat([part.out for part in parts], dim=2))


@dataclass(frozen=True)
class Running:
    """Everything that is to be known of the keys read so far: for each feature, a sum over them.

    Parameters
    ----------
    top : Tensor, (batch, head, features)
        What each feature's sum is relative to: its largest logarithm so far.
    total : Tensor, (batch, head, features, width + 1)
        ``sum_j exp(log φ(k_j) - top) · [value_j, 1]``.
    """

    top: Tensor
    total: Tensor

    @staticmethod
    def nothing(like: Tensor, batch: int, head: int, features: int, width: int) -> Running:
        """Return the sums over no key."""
        return Running(like.new_full((batch, head, features), HIDDEN), like.new_zeros((batch, head, features, width)))

    def add(self, log_key: Tensor, value: Tensor) -> Running:
        """Return the sums with more keys in them.

        Parameters
        ----------
        log_key : Tensor, (batch, head, keys, features)
            Minus infinity where a key is hidden.
        value : Tensor, (batch, head, keys, width + 1)
            Values with a one behind each.
        """
        top = torch.maximum(self.top, log_key.detach().amax(2))
        kept = self.total * (self.top - top).exp().unsqueeze(-1)
        return Running(top, kept + (log_key - top.unsqueeze(2)).exp().mT @ value)

    def read(self, log_query: Tensor) -> Partial:
        """Return the rows' sums over all keys read so far; `log_query` is (batch, head, rows, features)."""
        relative = log_query + self.top.unsqueeze(2)
        top = relative.detach().amax(-1)
        return Partial(top, (relative - top.unsqueeze(-1)).exp() @ self.total)


def scored(scores: Tensor, value: Tensor) -> Partial:
    """Return rows summed over keys whose scores are known.

    Parameters
    ----------
    scores : Tensor, (batch, head, rows, keys)
        Minus infinity where a key is hidden.
    value : Tensor, (batch, head, keys, width + 1)
    """
    top = scores.detach().amax(-1).clamp(min=HIDDEN)
    return Partial(top, (scores - top.unsqueeze(-1)).exp() @ value)


def triangular(log_query: Tensor, log_key: Tensor, value: Tensor) -> Partial:
    """Return rows summed over as many keys, of which row i sees the first i + 1.

    Parameters
    ----------
    log_query, log_key : Tensor, (batch, head, rows, features)
    value : Tensor, (batch, head, rows, width + 1)
    """
    rows = log_query.shape[2]
    seen = torch.ones(rows, rows, dtype=torch.bool, device=log_query.device).tril_()
    top = _row_tops(log_query.detach(), log_key.detach())
    out = products(log_query, log_key, top, seen).masked_fill(~seen, 0) @ value
    # What a row of nothing was measured by must not outweigh its sums over other keys.
    return Partial(torch.where(out.detach()[..., -1] > 0, top, HIDDEN), out)


def _row_tops(log_query: Tensor, log_key: Tensor) -> Tensor:
    """Return a number per row near its largest term, or above it by so little that nothing is lost."""
    highest = (log_query + log_key.amax(2, keepdim=True).clamp(min=HIDDEN)).amax(-1)
    own = (log_query + log_key).amax(-1)
    if _near(own, highest):
        return highest
    # A row's own key is hidden, or its largest term lies far below those of later keys, which it does not see.
    own = (log_query + log_key.clamp(min=HIDDEN).cummax(2).values).amax(-1)
    own = torch.where(own > HIDDEN / 2, own, highest)
    return highest if _near(own, highest) else own


def _near(low: Tensor, high: Tensor) -> bool:
    return bool((high - low).amax() <= REACH[low.dtype])


def products(log_query: Tensor, log_key: Tensor, shift: Tensor, seen: Tensor) -> Tensor:
    """Return ``sum_r exp(log_query_ir + log_key_jr - shift_i)``, right wherever `seen`, and finite elsewhere.

    Parameters
    ----------
    log_query : Tensor, (batch, head, rows, features)
    log_key : Tensor, (batch, head, cols, features)
        Minus infinity where a key is hidden.
    shift : Tensor, (batch, head, rows)
        Not much less than the largest term of the entries that are seen.
    seen : Tensor, (rows, cols)
        Boolean: which entries matter.

    Notes
    -----
    One product of two exponentials, except where keys that a row does not see would overflow it: there the tile is cut
    in two, and in two again, until none does.
    """
    top = log_key.detach().amax(2, keepdim=True).clamp(min=HIDDEN)
    left = log_query + (top - shift.unsqueeze(-1))
    rows, cols = seen.shape
    safe = bool(left.detach().amax() <= REACH[left.dtype])
    if not safe and not bool(seen.any()):
        return left.new_zeros((*left.shape[:2], rows, cols))
    if safe or rows * cols == 1:
        return left.exp() @ (log_key - top).exp().mT
    if rows >= cols:
        half = rows // 2
        halves = ((slice(0, half), slice(0, cols)), (slice(half, rows), slice(0, cols)))
    else:
        half = cols // 2
        halves = ((slice(0, rows), slice(0, half)), (slice(0, rows), slice(half, cols)))
    parts = [products(log_query[:, :, r], log_key[:, :, c], shift[:, :, r], seen[r, c]) for r, c in halves]
    return torch.cat(parts, dim=2 if rows >= cols else 3)
