"""One step of a walk over rows that are shares: each row divided by its sum, in the one pass that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.explain.passing import FEW_ROWS
from attlas.matrix import AttentionOperator, Question, Tile, ask
from attlas.matrix.columns import RowsThatCount
from attlas.matrix.streaming import Block


def passed_shares(operator: AttentionOperator, weights: Tensor) -> Tensor:
    """Return ``sum_i w_i C_ij / sum_k C_ik``, for several targets.

    Parameters
    ----------
    operator : AttentionOperator, (1, 1, n_query, n_key)
        C, of one text and one head, without negative entries; a row of zeros passes nothing on.
    weights : Tensor, (target, n_query)
        What each query counts for.

    Returns
    -------
    Tensor, (target, n_key), float64
        On the CPU.

    Notes
    -----
    One pass over the tiles whose rows have weight, where `RowNormalised` takes one to sum rows and one to use them: it
    holds a strip of rows a thread until their sums are known, O(tile · n_key).
    """
    busy = (weights != 0).any(0).nonzero().flatten()
    if len(busy) > FEW_ROWS:
        return ask(operator, PassedShares(weights))[0].double().cpu()
    out = torch.zeros(len(weights), operator.shape[3], dtype=torch.float64)
    if len(busy):
        reach = operator.columns(slice(int(busy[0]), int(busy[-1]) + 1))
        rows = operator[0, 0, busy, reach].double().cpu()
        out[:, reach] = weights[:, busy].double().cpu() @ _shares(rows)
    return out


@dataclass
class Strip:
    """What has been passed on so far, and the rows that are being read.

    Parameters
    ----------
    total : Tensor, (target, n_key)
    weights : Tensor, (target, n_query)
    rows : slice, optional
    values : Tensor, (rows, n_key), optional
    """

    total: Tensor
    weights: Tensor
    rows: slice | None = None
    values: Tensor | None = None

    def begin(self, rows: slice) -> Tensor:
        """Settle the rows before, and return room for these."""
        self.settle()
        length = rows.stop - rows.start
        if self.values is None or len(self.values) < length:
            self.values = self.total.new_empty(length, self.total.shape[1])
        self.rows = rows
        return self.values[:length].zero_()

    def settle(self) -> None:
        """Pass on what the rows that were read hold."""
        if self.rows is not None and self.values is not None:
            values = self.values[: self.rows.stop - self.rows.start]
            self.total += self.weights[:, self.rows] @ _shares(values)
        self.rows = None


class PassedShares(Question[Strip, Tensor]):
    """``sum_i w_ti C_ij / sum_k C_ik``; (target, n_key), of a matrix of one text and one head.

    Parameters
    ----------
    weights : Tensor, (target, n_query)
        What each query counts for; tiles whose rows all weigh nothing are not computed.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self._counting = RowsThatCount(weights[:, None, :, None])

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        del operator, cols
        return self._counting.any_of(rows)

    def start(self, operator: AttentionOperator, block: Block) -> Strip:
        del block
        weights = self.weights.to(device=operator.device, dtype=operator.accumulator)
        return Strip(weights.new_zeros(len(weights), operator.shape[3]), weights)

    def add(self, state: Strip, rows: slice, cols: slice, tile: Tile) -> None:
        if state.rows != rows:
            state.begin(rows)
        if state.values is not None:
            state.values[: rows.stop - rows.start, cols] = tile.values[0, 0]

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[Strip]) -> Tensor:
        del operator, blocks
        for state in states:
            state.settle()
        return torch.stack([state.total for state in states]).sum(0)


def _shares(rows: Tensor) -> Tensor:
    """Divide rows by their sums, in place; a row of zeros stays."""
    sums = rows.sum(-1, keepdim=True)
    return rows.div_(sums.masked_fill_(sums == 0, 1))
