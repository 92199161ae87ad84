"""The question with an answer per column: how much attention a key receives."""

from __future__ import annotations

from collections.abc import Sequence

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


class Received(Question[tuple[Tensor, Tensor | None], Tensor]):
    """The column sums, or the weighted ones, ``sum_i w_i A_ij``; (batch, head, n_key).

    Parameters
    ----------
    weights : Tensor, (n_query,) or broadcastable to (batch, head, n_query), optional
        What each query counts for; 1 by default.
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

    def start(self, operator: AttentionOperator, block: Block) -> tuple[Tensor, Tensor | None]:
        batch, head, _, n_key = operator.shape
        total = torch.zeros((batch, head, 1, n_key), dtype=operator.accumulator, device=operator.device)
        if self.weights is None:
            return total, None
        weights = self.weights.detach().to(device=total.device, dtype=total.dtype)
        weights = weights.view((1,) * (3 - weights.ndim) + tuple(weights.shape))
        return total, take(take(weights, 0, block.batch), 1, block.head).unsqueeze(2)

    def add(self, state: tuple[Tensor, Tensor | None], rows: slice, cols: slice, tile: Tile) -> None:
        total, weights = state
        if weights is None:
            total[..., cols] += tile.values.sum(2, keepdim=True)
        else:
            total[..., cols] += weights[..., rows] @ tile.values

    def gather(
        self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        return sum_over_blocks(operator, blocks, [total.squeeze(2) for total, _ in states])
