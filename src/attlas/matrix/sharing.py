"""Column sums of several products with one matrix, in one pass: the products share its tiles.

Attention is the same for every target of an explanation, and only the gradient differs; so attention's tiles, which
cost an exponential an entry, are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.columns import RowsThatCount, sum_over_blocks
from attlas.matrix.derived import checked
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.questions import Question
from attlas.matrix.streaming import Block
from attlas.matrix.visibility import take


@dataclass
class Share:
    """One product's column sums so far in a block; `weights` and `total` are (batch, head, 1, n)."""

    reader: Reader
    weights: Tensor
    counting: RowsThatCount
    total: Tensor


class ReceivedOfProducts(Question[list[Share], Tensor]):
    """Weighted column sums of ``A ⊙ B`` for several B, or of their positive parts.

    Parameters
    ----------
    others : sequence of AttentionOperator, (batch, head, n_query, n_key)
        What the matrix that is asked is multiplied with, such as its gradients for several targets.
    weights : Tensor, (others, n_query) or broadcastable to (others, batch, head, n_query)
        What each query counts for, in each product. Rows that count for 0 in all of them cost nothing.
    positive : bool
        Take ``max(A ⊙ B, 0)`` entry by entry.

    Raises
    ------
    ArgumentError
        When asked: shapes or devices do not fit.

    Notes
    -----
    The answer, (others, batch, head, n_key), is that of ``Received(weights[t])`` asked of ``Product(A, others[t])`` or
    of its `Positive`; the tiles of A are made once, and other questions about A may share them too.
    """

    def __init__(self, others: Sequence[AttentionOperator], weights: Tensor, *, positive: bool = False) -> None:
        self.others = [checked(f"others[{i}]", other) for i, other in enumerate(others)]
        if not self.others:
            raise ArgumentError(complaint("others", wanted="at least one matrix", got="none"))
        self.weights = weights.detach()
        if weights.ndim == 2:
            self.weights = self.weights.view(len(weights), 1, 1, -1)
        self.positive = bool(positive)

    def check(self, operator: AttentionOperator) -> None:
        for i, other in enumerate(self.others):
            if other.shape != operator.shape:
                raise ArgumentError(complaint(f"others[{i}]", wanted=f"shape {operator.shape}", got=other.shape))
            if other.device != operator.device:
                raise ArgumentError(complaint(f"others[{i}]", wanted=f"device {operator.device}", got=other.device))
        full = (len(self.others), *operator.shape[:3])
        shape = tuple(self.weights.shape)
        if len(shape) != 4 or any(
            s not in (1, f) or (s != f and axis in (0, 3)) for axis, (s, f) in enumerate(zip(shape, full, strict=True))
        ):
            wanted = f"(others, n_query) = ({full[0]}, {full[3]}), or a shape that broadcasts to {full}"
            raise ArgumentError(complaint("weights", wanted=wanted, got=f"shape {shape}"))
        for other in self.others:
            other.prepare()

    def start(self, operator: AttentionOperator, block: Block) -> list[Share]:
        batch, head, _, n_key = operator.shape
        shares = []
        for other, weights in zip(self.others, self.weights, strict=True):
            dtype = torch.promote_types(operator.accumulator, other.accumulator)
            own = take(take(weights.to(device=operator.device, dtype=dtype), 0, block.batch), 1, block.head)
            shares.append(
                Share(
                    reader=other.narrow(block.batch, block.head).reader(),
                    weights=own.unsqueeze(2),
                    counting=RowsThatCount(own.unsqueeze(-1)),
                    total=own.new_zeros((batch, head, 1, n_key)),
                )
            )
        return shares

    def rows(self, state: list[Share], strip: slice) -> slice:
        wanted = [share.counting.within(strip) for share in state]
        wanted = [rows for rows in wanted if rows.start < rows.stop]
        if not wanted:
            return slice(strip.start, strip.start)
        return slice(min(rows.start for rows in wanted), max(rows.stop for rows in wanted))

    def add(self, state: list[Share], rows: slice, cols: slice, tile: Tile) -> None:
        for share in state:
            own = share.counting.within(rows)
            if own.start >= own.stop:
                continue
            ours = tile.values[:, :, own.start - rows.start : own.stop - rows.start]
            product = share.reader.tile(own, cols).values
            product = product.mul_(ours) if product.dtype == share.total.dtype else product.to(ours.dtype) * ours
            if self.positive:
                product.clamp_(min=0)
            share.total[..., cols] += share.weights[..., own] @ product

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[list[Share]]) -> Tensor:
        return torch.stack(
            [
                sum_over_blocks(operator, blocks, [shares[i].total.squeeze(2) for shares in states])
                for i in range(len(self.others))
            ]
        )
