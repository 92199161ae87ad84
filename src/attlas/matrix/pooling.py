"""A matrix shrunk to a picture's size, exactly: each bin shows its entries' sum, mean or maximum.

Each entry falls into exactly one bin. The maximum keeps a single strong entry visible at any size; the sum keeps the
mass; the mean keeps the scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import AttentionOperator, Tile
from attlas.matrix.questions import Question
from attlas.matrix.streaming import Block, tiling_of

LARGEST = 4096
REDUCERS = ("mean", "sum", "max")

FEW_BINS = 32
"""Up to here a tile is reduced one bin at a time; with more bins, one offset within all bins at a time."""


@dataclass(frozen=True)
class Bins:
    """How `length` rows or columns fall into `count` bins: bin `i` begins at ``i * length // count``.

    Parameters
    ----------
    length, count : int
        With at most one bin per row.
    """

    length: int
    count: int

    def edge(self, index: int) -> int:
        """Return where a bin begins."""
        return index * self.length // self.count

    def bin_of(self, position: int) -> int:
        """Return the bin that holds a row or column."""
        # The bin is the largest index whose edge is at most `position`.
        return ((position + 1) * self.count - 1) // self.length

    def covering(self, span: slice) -> slice:
        """Return the bins that a span of rows or columns touches."""
        return slice(self.bin_of(span.start), self.bin_of(span.stop - 1) + 1)

    def sizes(self, device: torch.device) -> Tensor:
        """Return how many rows or columns each bin holds."""
        edges = torch.arange(self.count + 1, device=device) * self.length // self.count
        return edges.diff()


@dataclass
class PoolPart:
    """The bins that a block touches."""

    rows: Bins
    cols: Bins
    first: int
    values: Tensor


class Pool(Question[PoolPart, Tensor]):
    """The matrix shrunk to `size`; (batch, head, rows, cols).

    Parameters
    ----------
    size : (rows, cols)
        From 1 to 4096 each. Larger than the matrix, entries are repeated (not for a sum, which would count them twice).
    reduce : {"mean", "sum", "max"}
        What a bin shows; hidden entries count as the zeros that they are.
    """

    def __init__(self, size: tuple[int, int], reduce: str = "mean") -> None:
        if len(size) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or not 1 <= s <= LARGEST for s in size):
            raise ArgumentError(complaint("size", wanted=f"(rows, cols) from 1 to {LARGEST} each", got=size))
        if reduce not in REDUCERS:
            raise ArgumentError(complaint("reduce", wanted=" or ".join(map(repr, REDUCERS)), got=repr(reduce)))
        self.size = size
        self.reduce = reduce

    def check(self, operator: AttentionOperator) -> None:
        if self.reduce == "sum" and any(s > n for s, n in zip(self.size, operator.shape[2:], strict=True)):
            raise ArgumentError(
                complaint(
                    "size",
                    wanted=f"at most {operator.shape[2:]} for a sum",
                    got=self.size,
                    way_out="use 'mean' or 'max' to enlarge",
                )
            )

    def _bins(self, operator: AttentionOperator) -> tuple[Bins, Bins]:
        (rows, cols), (n_query, n_key) = self.size, operator.shape[2:]
        return Bins(n_query, min(rows, n_query)), Bins(n_key, min(cols, n_key))

    def start(self, operator: AttentionOperator, block: Block) -> PoolPart:
        rows, cols = self._bins(operator)
        touched = rows.covering(block.rows)
        shape = (*operator.shape[:2], touched.stop - touched.start, cols.count)
        values = torch.zeros(shape, dtype=operator.accumulator, device=operator.device)
        part = PoolPart(rows, cols, touched.start, values)
        if self.reduce == "max" and operator.signed:
            _begin_below_zero(part, operator, block)
        return part

    def add(self, state: PoolPart, rows: slice, cols: slice, tile: Tile) -> None:
        row_bins, col_bins = state.rows.covering(rows), state.cols.covering(cols)
        x = _reduce(tile.values, 2, state.rows, rows, self.reduce)
        x = _reduce(x, 3, state.cols, cols, self.reduce)
        into = state.values[:, :, row_bins.start - state.first : row_bins.stop - state.first, col_bins]
        if self.reduce == "max":
            torch.maximum(into, x, out=into)
        else:
            into += x

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[PoolPart]) -> Tensor:
        rows, cols = self._bins(operator)
        # A block has looked at every bin that it touches, so any of them may be below zero.
        lowest = -math.inf if self.reduce == "max" else 0.0
        pooled = states[0].values.new_full((*operator.shape[:2], rows.count, cols.count), lowest)
        for block, state in zip(blocks, states, strict=True):
            into = pooled[block.batch, block.head, state.first : state.first + state.values.shape[2]]
            if self.reduce == "max":
                torch.maximum(into, state.values, out=into)
            else:
                into += state.values
        if self.reduce == "mean":
            pooled /= rows.sizes(pooled.device).unsqueeze(-1) * cols.sizes(pooled.device)
        return _enlarge(_enlarge(pooled, 2, self.size[0]), 3, self.size[1])


def _begin_below_zero(part: PoolPart, operator: AttentionOperator, block: Block) -> None:
    """Let a maximum be negative, except where a bin holds hidden entries that no tile will show: those are zeros."""
    part.values.fill_(-math.inf)
    tiling, n_key = tiling_of(operator), operator.shape[3]
    for strip in tiling.strips(block.rows):
        bins, span = part.rows.covering(strip), operator.columns(strip)
        into = part.values[:, :, bins.start - part.first : bins.stop - part.first]
        empty = [cols for cols in tiling.tiles(span, n_key) if not operator.occupied(strip, cols)]
        for unseen in (slice(0, span.start), slice(span.stop, n_key), *empty):
            if unseen.start < unseen.stop:
                into[..., part.cols.covering(unseen)] = 0.0


def _reduce(x: Tensor, axis: int, bins: Bins, span: slice, reduce: str) -> Tensor:
    """Reduce a tile along one axis to the bins that its span touches."""
    touched = bins.covering(span)
    edges = [max(bins.edge(i), span.start) - span.start for i in range(touched.start, touched.stop)]
    edges.append(span.stop - span.start)
    if len(edges) - 1 == x.shape[axis]:
        return x
    if len(edges) - 1 <= FEW_BINS:
        parts = [x.narrow(axis, a, b - a) for a, b in pairwise(edges)]
        return torch.cat(
            [p.amax(axis, keepdim=True) if reduce == "max" else p.sum(axis, keepdim=True) for p in parts], axis
        )
    return _reduce_many(x, axis, torch.tensor(edges, device=x.device), reduce)


def _reduce_many(x: Tensor, axis: int, edges: Tensor, reduce: str) -> Tensor:
    """Reduce to many thin bins: take the first entry of each, then the second, and so on."""
    first, sizes = edges[:-1], edges.diff()
    result = x.index_select(axis, first)
    shape = [1] * x.ndim
    shape[axis] = -1
    for step in range(1, int(sizes.max())):
        entries = x.index_select(axis, first + torch.clamp(sizes - 1, max=step))
        if reduce == "max":
            # A bin that has no such entry repeats its last one, which changes no maximum.
            result = torch.maximum(result, entries)
        else:
            result += entries * (sizes > step).view(shape)
    return result


def _enlarge(pooled: Tensor, axis: int, size: int) -> Tensor:
    length = pooled.shape[axis]
    if size == length:
        return pooled
    return pooled.index_select(axis, torch.arange(size, device=pooled.device) * length // size)
