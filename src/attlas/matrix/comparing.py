"""How far two matrices are from each other, in one pass over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.columns import sum_over_blocks
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.questions import Question
from attlas.matrix.rows import RowPart
from attlas.matrix.streaming import Block, merge_rows
from attlas.results import Comparison


@dataclass
class ComparePart:
    """What is known of a block so far."""

    other: Reader
    variation: RowPart
    difference: Tensor  # (batch, head), sum of squares, float64
    own: Tensor  # (batch, head), sum of squares, float64


class Compare(Question[ComparePart, Comparison]):
    """Frobenius distance and row-wise total variation to another matrix of the same shape.

    Parameters
    ----------
    other : AttentionOperator
        Any kind.
    """

    def __init__(self, other: AttentionOperator) -> None:
        self.other = other

    def check(self, operator: AttentionOperator) -> None:
        if not isinstance(self.other, AttentionOperator):
            raise ArgumentError(complaint("other", wanted="an attention matrix", got=type(self.other).__name__))
        if self.other.shape != operator.shape:
            raise ArgumentError(complaint("other", wanted=f"shape {operator.shape}", got=f"shape {self.other.shape}"))
        if self.other.device != operator.device:
            raise ArgumentError(complaint("other", wanted=f"device {operator.device}", got=self.other.device))
        self.other.prepare()

    def columns(self, operator: AttentionOperator, rows: slice, span: slice) -> slice:
        del operator
        others = self.other.columns(rows)
        return slice(min(span.start, others.start), max(span.stop, others.stop))

    def counts_zeros(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        del operator
        return self.other.occupied(rows, cols)

    def start(self, operator: AttentionOperator, block: Block) -> ComparePart:
        zeros = torch.zeros(operator.shape[:2], dtype=torch.float64, device=operator.device)
        other = self.other.narrow(block.batch, block.head).reader()
        return ComparePart(other, RowPart.empty(operator, block), zeros, zeros.clone())

    def add(self, state: ComparePart, rows: slice, cols: slice, tile: Tile) -> None:
        state.own += tile.values.square().sum((2, 3))
        difference = tile.values - state.other.tile(rows, cols).values
        state.variation.of(rows).add_(difference.abs().sum(-1), alpha=0.5)
        state.difference += difference.square_().sum((2, 3))

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[ComparePart]) -> Comparison:
        frobenius = sum_over_blocks(operator, blocks, [s.difference for s in states]).sqrt()
        own = sum_over_blocks(operator, blocks, [s.own for s in states]).sqrt()
        return Comparison(
            frobenius=frobenius.to(operator.accumulator),
            relative=(frobenius / own).to(operator.accumulator),
            total_variation=merge_rows(operator, blocks, [s.variation.values for s in states]),
        )
