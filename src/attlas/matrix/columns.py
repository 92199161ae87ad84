"""The question with an answer per column: how much attention a key receives."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import AttentionOperator, Tile
from attlas.matrix.questions import Question
from attlas.matrix.streaming import Block
from attlas.matrix.visibility import take


def sum_over_blocks(operator: AttentionOperator, blocks: Sequence[Block], parts: Sequence[Tensor]) -> Tensor:
    """Add up per-block results that cover all columns; (batch, head, *parts)."""
    total = parts[0].new_zeros((*operator.shape[:2], *parts[0].shape[2:]))
    for block, part in zip(blocks, parts, strict=True):
        total[block.batch, block.head] += part
    return total


class RowsThatCount:
    """Which rows of a weighted sum have a weight: the others need no tile.

    Parameters
    ----------
    weights : Tensor, (batch, head, n_query, width)
        Any leading or last axis may be of size 1.
    """

    def __init__(self, weights: Tensor) -> None:
        # NaN differs from 0, too, and must show.
        counted = (weights != 0).any(-1).flatten(0, 1).any(0)
        self._at = None if bool(counted.all()) else counted.nonzero().flatten().tolist()

    def within(self, strip: slice) -> slice:
        """Return the part of a strip from its first row with a weight to its last; an empty slice if there is none."""
        if self._at is None:
            return strip
        first, last = bisect_left(self._at, strip.start), bisect_left(self._at, strip.stop)
        return slice(self._at[first], self._at[last - 1] + 1) if first < last else slice(strip.start, strip.start)

    def any_of(self, strip: slice) -> bool:
        """Tell whether any row of a strip has a weight."""
        rows = self.within(strip)
        return rows.start < rows.stop


@dataclass
class ReceivedPart:
    """A block's column sums so far.

    Parameters
    ----------
    total : Tensor, (batch, head, 1, n_key)
    weights : Tensor, (batch or 1, head or 1, 1, n_query), optional
    counting : RowsThatCount, optional
    """

    total: Tensor
    weights: Tensor | None = None
    counting: RowsThatCount | None = None


class Received(Question[ReceivedPart, Tensor]):
    """The column sums, or the weighted ones, ``sum_i w_i A_ij``; (batch, head, n_key).

    Parameters
    ----------
    weights : Tensor, (n_query,) or broadcastable to (batch, head, n_query), optional
        What each query counts for; 1 by default. Rows that count for 0 cost nothing.
    """

    def __init__(self, weights: Tensor | None = None) -> None:
        self.weights = weights

    def check(self, operator: AttentionOperator) -> None:
        if self.weights is None:
            return
        wanted = operator.shape[:3]
        shape = (1,) * (3 - self.weights.ndim) + tuple(self.weights.shape)
        if len(shape) != 3 or shape[2] != wanted[2] or any(s not in (1, w) for s, w in zip(shape, wanted, strict=True)):
            raise ArgumentError(
                complaint(
                    "weights",
                    wanted=f"a shape that broadcasts to (batch, head, n_query) = {wanted}",
                    got=f"shape {tuple(self.weights.shape)}",
                )
            )

    def start(self, operator: AttentionOperator, block: Block) -> ReceivedPart:
        batch, head, _, n_key = operator.shape
        total = torch.zeros((batch, head, 1, n_key), dtype=operator.accumulator, device=operator.device)
        if self.weights is None:
            return ReceivedPart(total)
        weights = self.weights.detach().to(device=total.device, dtype=total.dtype)
        weights = weights.view((1,) * (3 - weights.ndim) + tuple(weights.shape))
        weights = take(take(weights, 0, block.batch), 1, block.head)
        return ReceivedPart(total, weights.unsqueeze(2), RowsThatCount(weights.unsqueeze(-1)))

    def rows(self, state: ReceivedPart, strip: slice) -> slice:
        return strip if state.counting is None else state.counting.within(strip)

    def add(self, state: ReceivedPart, rows: slice, cols: slice, tile: Tile) -> None:
        if state.weights is None:
            state.total[..., cols] += tile.values.sum(2, keepdim=True)
        else:
            state.total[..., cols] += state.weights[..., rows] @ tile.values

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[ReceivedPart]) -> Tensor:
        return sum_over_blocks(operator, blocks, [state.total.squeeze(2) for state in states])
