"""Questions with an answer per row: entropy, distance, mass near or first, the largest entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import AttentionOperator, Tile
from attlas.matrix.questions import Question
from attlas.matrix.streaming import Block, merge_rows


@dataclass
class RowPart:
    """A number, or several, for each row of a block.

    Parameters
    ----------
    first : int
        The block's first row.
    offset : int
        The position of row 0 of the matrix.
    values : Tensor, (batch, head, rows, ...)
    """

    first: int
    offset: int
    values: Tensor

    @staticmethod
    def empty(operator: AttentionOperator, block: Block, *width: int, fill: float = 0.0) -> RowPart:
        """Return a part with nothing in it yet."""
        shape = (*operator.shape[:2], block.rows.stop - block.rows.start, *width)
        values = torch.full(shape, fill, dtype=operator.accumulator, device=operator.device)
        return RowPart(block.rows.start, operator.offset, values)

    def of(self, rows: slice) -> Tensor:
        """Return a view of some rows' numbers."""
        return self.values[:, :, rows.start - self.first : rows.stop - self.first]

    def gap(self, rows: slice, cols: slice) -> Tensor:
        """Return ``|position - key|``, (rows, cols)."""
        ahead = rows.start + self.offset - cols.start
        of = self.values
        return _gap(ahead, rows.stop - rows.start, cols.stop - cols.start, of.dtype, of.device)

    def positions(self, rows: slice) -> Tensor:
        """Return the rows' positions, (rows,), as floats."""
        start, stop = rows.start + self.offset, rows.stop + self.offset
        return torch.arange(start, stop, device=self.values.device, dtype=self.values.dtype)

    def keys(self, cols: slice) -> Tensor:
        """Return the keys' positions, (cols,), as floats."""
        return torch.arange(cols.start, cols.stop, device=self.values.device, dtype=self.values.dtype)


@lru_cache(maxsize=8)
def _gap(ahead: int, rows: int, cols: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``|ahead + i - j|``; a few are kept, because tiles along a diagonal all have the same."""
    # Under inference mode it would be a tensor that nobody outside of it could use later.
    with torch.inference_mode(False):
        i, j = (torch.arange(count, device=device, dtype=dtype) for count in (rows, cols))
        return (i.unsqueeze(-1) + ahead - j).abs()


class RowQuestion(Question[RowPart, Tensor]):
    """A question with one number per row."""

    def start(self, operator: AttentionOperator, block: Block) -> RowPart:
        return RowPart.empty(operator, block)

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[RowPart]) -> Tensor:
        return merge_rows(operator, blocks, [state.values for state in states])


class ShareQuestion(RowQuestion):
    """A question about shares of a row, which only rows without negative entries have."""

    def check(self, operator: AttentionOperator) -> None:
        if operator.signed:
            raise ArgumentError(
                complaint(
                    type(self).__name__.lower(),
                    wanted="a matrix without negative entries",
                    got=repr(operator),
                    way_out="ask Positive(matrix), or for received, topk or pool",
                )
            )


class Entropy(ShareQuestion):
    """Each row's entropy in nats, ``-sum_j A_ij ln A_ij``; (batch, head, n_query)."""

    needs_logs = True

    def add(self, state: RowPart, rows: slice, cols: slice, tile: Tile) -> None:
        del cols
        state.of(rows).sub_((tile.values * tile.log2()).sum(-1), alpha=math.log(2))


class Distance(ShareQuestion):
    """How far each row looks, ``sum_j A_ij |position_i - j|``, in tokens; (batch, head, n_query)."""

    def add(self, state: RowPart, rows: slice, cols: slice, tile: Tile) -> None:
        nearest = rows.start + state.offset - (cols.stop - 1)
        if nearest > cols.stop - cols.start:
            # Far keys: the distance splits into a row's share and a much smaller key's share, so that nothing cancels.
            middle = (cols.start + cols.stop) // 2
            far = tile.values.sum(-1) * (state.positions(rows) - middle)
            state.of(rows).add_(far).sub_(tile.values @ (state.keys(cols) - middle))
        else:
            state.of(rows).add_((tile.values * state.gap(rows, cols)).sum(-1))


class Mass(ShareQuestion):
    """The share of each row on near keys, on the first keys, or on either; (batch, head, n_query).

    Parameters
    ----------
    window : int, optional
        Count keys with ``|position - key| < window``.
    sinks : int
        Count the first `sinks` keys.
    """

    def __init__(self, window: int | None = None, sinks: int = 0) -> None:
        if window is not None and window < 1:
            raise ArgumentError(complaint("window", wanted="a whole number of at least 1, or None", got=window))
        if sinks < 0:
            raise ArgumentError(complaint("sinks", wanted="a whole number of at least 0", got=sinks))
        if window is None and sinks == 0:
            raise ArgumentError(complaint("window and sinks", wanted="at least one of them", got="neither"))
        self.window = window or 0
        self.sinks = sinks

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        first, last = rows.start + operator.offset, rows.stop - 1 + operator.offset
        near = cols.start < last + self.window and cols.stop - 1 > first - self.window
        return cols.start < self.sinks or (self.window > 0 and near)

    def add(self, state: RowPart, rows: slice, cols: slice, tile: Tile) -> None:
        into = state.of(rows)
        values = tile.values
        if cols.start < self.sinks:
            into.add_(values[..., : self.sinks - cols.start].sum(-1))
            cols = slice(min(self.sinks, cols.stop), cols.stop)
            values = values[..., values.shape[-1] - (cols.stop - cols.start) :]
        first, last = rows.start + state.offset, rows.stop - 1 + state.offset
        if cols.start == cols.stop or cols.start >= last + self.window or cols.stop - 1 <= first - self.window:
            return
        if max(last - cols.start, cols.stop - 1 - first) < self.window:
            into.add_(values.sum(-1))
        else:
            into.add_((values * (state.gap(rows, cols) < self.window)).sum(-1))


@dataclass
class TopPart:
    """The largest entries so far, and their keys."""

    best: RowPart
    keys: Tensor


class TopEntries(NamedTuple):
    """Each row's largest entries, largest first, and the keys that they are at; both (batch, head, n_query, k)."""

    values: Tensor
    indices: Tensor


class TopK(Question[TopPart, TopEntries]):
    """Each row's `k` largest entries and their keys, largest first; both (batch, head, n_query, k).

    Parameters
    ----------
    k : int
        How many; from 1 to n_key.
    """

    def __init__(self, k: int) -> None:
        self.k = k

    def check(self, operator: AttentionOperator) -> None:
        if not 1 <= self.k <= operator.shape[3]:
            raise ArgumentError(
                complaint("k", wanted=f"a whole number from 1 to n_key = {operator.shape[3]}", got=self.k)
            )

    def columns(self, operator: AttentionOperator, rows: slice, span: slice) -> slice:
        # Rows that see fewer than k keys are filled up with zeros, which need keys of their own; and zeros exceed
        # negative entries.
        del rows
        if operator.signed:
            stop = min(span.stop + self.k, operator.shape[3])
            return slice(max(0, span.start - (self.k - (stop - span.stop))), stop)
        stop = min(max(span.stop, span.start + self.k), operator.shape[3])
        return slice(min(span.start, stop - self.k) if stop - span.start < self.k else span.start, stop)

    def counts_zeros(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        # The first k columns that are visited are enough for what rows lack, unless entries may be less than zero.
        span = self.columns(operator, rows, operator.columns(rows))
        return operator.signed or cols.start < span.start + self.k

    def start(self, operator: AttentionOperator, block: Block) -> TopPart:
        best = RowPart.empty(operator, block, self.k, fill=-math.inf)
        return TopPart(best, torch.zeros_like(best.values, dtype=torch.long))

    def add(self, state: TopPart, rows: slice, cols: slice, tile: Tile) -> None:
        best = state.best.of(rows)
        keys = state.keys[:, :, rows.start - state.best.first : rows.stop - state.best.first]
        # Most tiles hold nothing that enters a row's list, and finding that out costs one pass.
        beaten = tile.values.amax(-1) > best[..., -1]
        if not bool(beaten.any()):
            return
        values, indices = tile.values[beaten].topk(min(self.k, cols.stop - cols.start), dim=-1)
        values = torch.cat([best[beaten], values], dim=-1)
        indices = torch.cat([keys[beaten], indices + cols.start], dim=-1)
        values, order = values.topk(self.k, dim=-1)
        best[beaten] = values
        keys[beaten] = indices.gather(-1, order)

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[TopPart]) -> TopEntries:
        values = merge_rows(operator, blocks, [state.best.values for state in states], (self.k,))
        return TopEntries(values, merge_rows(operator, blocks, [state.keys for state in states], (self.k,)))


class Rows(RowQuestion):
    """The rows themselves, dense; (batch, head, n_query, n_key). Only `to_dense` asks this."""

    def start(self, operator: AttentionOperator, block: Block) -> RowPart:
        return RowPart.empty(operator, block, operator.shape[3])

    def add(self, state: RowPart, rows: slice, cols: slice, tile: Tile) -> None:
        state.of(rows)[..., cols] = tile.values

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[RowPart]) -> Tensor:
        return merge_rows(operator, blocks, [state.values for state in states], (operator.shape[3],))
