"""A matrix shrunk to a picture's size, exactly: each bin shows its entries' sum, mean, maximum or extreme.

Each entry falls into exactly one bin. The maximum keeps a single strong entry visible at any size; the sum keeps the
mass; the mean keeps the scale; the extreme is the maximum of what may be below zero. `Pool` cuts a matrix into so many
bins; `PoolCells` into bins of one width, in all of it or a part, so that pictures of several sizes fit together.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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
REDUCERS = ("mean", "sum", "max", "extreme")

FEW_BINS = 32
"""Up to here a tile is reduced one bin at a time; with more bins, one offset within all bins at a time."""


@dataclass(frozen=True)
class Bins(ABC):
    """How `length` rows or columns fall into bins that follow one another.

    Parameters
    ----------
    length : int
        How many rows or columns.
    """

    length: int

    @property
    @abstractmethod
    def count(self) -> int:
        """How many bins there are."""

    @abstractmethod
    def edge(self, index: int) -> int:
        """Return where a bin begins; of the index after the last bin, where the last one ends."""

    @abstractmethod
    def bin_of(self, position: int) -> int:
        """Return the bin that holds a row or column."""

    def covering(self, span: slice) -> slice:
        """Return the bins that a span of rows or columns touches."""
        if span.start >= span.stop:
            return slice(0, 0)
        return slice(self.bin_of(span.start), self.bin_of(span.stop - 1) + 1)

    def sizes(self, bins: slice, device: torch.device) -> Tensor:
        """Return how many rows or columns each of some bins holds."""
        edges = [self.edge(i) for i in range(bins.start, bins.stop + 1)]
        return torch.tensor(edges, device=device).diff()


@dataclass(frozen=True)
class EqualBins(Bins):
    """So many bins, as equal as can be: bin `i` begins at ``i * length // count``.

    Parameters
    ----------
    length : int
        How many rows or columns.
    bins : int
        How many bins; at most one per row.
    """

    bins: int

    @property
    def count(self) -> int:
        return self.bins

    def edge(self, index: int) -> int:
        return index * self.length // self.bins

    def bin_of(self, position: int) -> int:
        # The bin is the largest index whose edge is at most `position`.
        return ((position + 1) * self.bins - 1) // self.length


@dataclass(frozen=True)
class WideBins(Bins):
    """Bins of one width, the last of which may be narrower: bin `i` begins at ``i * width``.

    Parameters
    ----------
    length : int
        How many rows or columns.
    width : int
        How many a bin holds.
    """

    width: int

    @property
    def count(self) -> int:
        return -(-self.length // self.width)

    def edge(self, index: int) -> int:
        return min(index * self.width, self.length)

    def bin_of(self, position: int) -> int:
        return position // self.width


@dataclass(frozen=True)
class _Cut:
    """What of a matrix is pooled, and into which bins."""

    rows: Bins
    cols: Bins
    row_span: slice
    col_span: slice


@dataclass
class PoolPart:
    """The bins that a block touches."""

    cut: _Cut
    rows: slice
    cols: slice
    values: Tensor


class _Pooling(Question[PoolPart, Tensor]):
    """What both ways to cut a matrix into bins share."""

    def __init__(self, reduce: str) -> None:
        if reduce not in REDUCERS:
            raise ArgumentError(complaint("reduce", wanted=" or ".join(map(repr, REDUCERS)), got=repr(reduce)))
        self.reduce = reduce

    @abstractmethod
    def cut(self, operator: AttentionOperator) -> _Cut:
        """Return how a matrix is cut into bins."""

    def start(self, operator: AttentionOperator, block: Block) -> PoolPart:
        cut = self.cut(operator)
        rows = cut.rows.covering(_meet(block.rows, cut.row_span))
        cols = cut.cols.covering(cut.col_span)
        shape = (*operator.shape[:2], rows.stop - rows.start, cols.stop - cols.start)
        values = torch.zeros(shape, dtype=operator.accumulator, device=operator.device)
        part = PoolPart(cut, rows, cols, values)
        if self.reduce == "max" and operator.signed:
            _begin_below_zero(part, operator, block)
        return part

    def add(self, state: PoolPart, rows: slice, cols: slice, tile: Tile) -> None:
        cut = state.cut
        inner = _meet(rows, cut.row_span), _meet(cols, cut.col_span)
        x = tile.values[..., _within(inner[0], rows), _within(inner[1], cols)]
        row_bins, col_bins = cut.rows.covering(inner[0]), cut.cols.covering(inner[1])
        x = _reduce(x, 2, cut.rows, inner[0], self.reduce)
        x = _reduce(x, 3, cut.cols, inner[1], self.reduce)
        self._join(state.values[:, :, _within(row_bins, state.rows), _within(col_bins, state.cols)], x)

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[PoolPart]) -> Tensor:
        cut = self.cut(operator)
        rows, cols = cut.rows.covering(cut.row_span), cut.cols.covering(cut.col_span)
        # A block has looked at every bin that it touches, so any of them may be below zero.
        lowest = -math.inf if self.reduce == "max" else 0.0
        shape = (*operator.shape[:2], rows.stop - rows.start, cols.stop - cols.start)
        pooled = states[0].values.new_full(shape, lowest)
        for block, state in zip(blocks, states, strict=True):
            self._join(pooled[block.batch, block.head, _within(state.rows, rows)], state.values)
        if self.reduce == "mean":
            device = pooled.device
            pooled /= cut.rows.sizes(rows, device).unsqueeze(-1) * cut.cols.sizes(cols, device)
        return pooled

    def _join(self, into: Tensor, values: Tensor) -> None:
        """Let bins hold the entries of two parts."""
        if self.reduce == "max":
            torch.maximum(into, values, out=into)
        elif self.reduce == "extreme":
            into.copy_(_farther(into, values))
        else:
            into += values


class Pool(_Pooling):
    """The matrix shrunk to `size`; (batch, head, rows, cols).

    Parameters
    ----------
    size : (rows, cols)
        From 1 to 4096 each. Larger than the matrix, entries are repeated (not for a sum, which would count them twice).
    reduce : {"mean", "sum", "max", "extreme"}
        What a bin shows; hidden entries count as the zeros that they are. The extreme is the entry of largest size,
        with its sign.
    """

    def __init__(self, size: tuple[int, int], reduce: str = "mean") -> None:
        if len(size) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or not 1 <= s <= LARGEST for s in size):
            raise ArgumentError(complaint("size", wanted=f"(rows, cols) from 1 to {LARGEST} each", got=size))
        super().__init__(reduce)
        self.size = size

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

    def cut(self, operator: AttentionOperator) -> _Cut:
        (rows, cols), (n_query, n_key) = self.size, operator.shape[2:]
        return _Cut(
            EqualBins(n_query, min(rows, n_query)),
            EqualBins(n_key, min(cols, n_key)),
            slice(0, n_query),
            slice(0, n_key),
        )

    def gather(self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[PoolPart]) -> Tensor:
        pooled = super().gather(operator, blocks, states)
        return _enlarge(_enlarge(pooled, 2, self.size[0]), 3, self.size[1])


class PoolCells(_Pooling):
    """The matrix, or a part of it, in cells of `width` rows and columns; (batch, head, cells down, cells across).

    Parameters
    ----------
    width : int
        Of a cell, in rows and in columns. Cells begin at its multiples; the last ones may be smaller.
    reduce : {"mean", "sum", "max", "extreme"}
        What a cell shows, as in `Pool`.
    rows, cols : slice, optional
        Only the cells of these rows and columns, from and up to; both begin at a multiple of `width`, and end at one or
        at the matrix' edge. Only the tiles that they touch are computed.
    """

    def __init__(
        self, width: int, reduce: str = "mean", *, rows: slice | None = None, cols: slice | None = None
    ) -> None:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ArgumentError(complaint("width", wanted="a whole number of at least 1", got=width))
        super().__init__(reduce)
        self.width = width
        self.part = (rows, cols)

    def check(self, operator: AttentionOperator) -> None:
        for name, part, length in zip(("rows", "cols"), self.part, operator.shape[2:], strict=True):
            if part is None:
                continue
            fits = 0 <= part.start < part.stop <= length and part.step in (None, 1)
            if not fits or part.start % self.width or (part.stop % self.width and part.stop != length):
                wanted = f"a span of cells of {self.width} within 0 to {length}"
                raise ArgumentError(complaint(name, wanted=wanted, got=f"{part.start} to {part.stop}"))

    def cut(self, operator: AttentionOperator) -> _Cut:
        spans = [part or slice(0, length) for part, length in zip(self.part, operator.shape[2:], strict=True)]
        rows, cols = (WideBins(length, self.width) for length in operator.shape[2:])
        return _Cut(rows, cols, *spans)

    def rows(self, state: PoolPart, strip: slice) -> slice:
        return _meet(strip, state.cut.row_span)

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        return all(
            part is None or (part.start < span.stop and span.start < part.stop)
            for part, span in zip(self.part, (rows, cols), strict=True)
        )


def _meet(a: slice, b: slice) -> slice:
    """Return what two spans share; an empty one where they share nothing."""
    start = max(a.start, b.start)
    return slice(start, max(start, min(a.stop, b.stop)))


def _within(span: slice, whole: slice) -> slice:
    """Return a span counted from the start of the one that it lies in."""
    return slice(span.start - whole.start, span.stop - whole.start) if span.start < span.stop else slice(0, 0)


def _farther(a: Tensor, b: Tensor) -> Tensor:
    """Return the number of larger size, with its sign; the positive one of two that are equally large."""
    return torch.where(a + b >= 0, torch.maximum(a, b), torch.minimum(a, b))


def _begin_below_zero(part: PoolPart, operator: AttentionOperator, block: Block) -> None:
    """Let a maximum be negative, except where a bin holds hidden entries that no tile will show: those are zeros."""
    part.values.fill_(-math.inf)
    cut, tiling, n_key = part.cut, tiling_of(operator), operator.shape[3]
    for strip in tiling.strips(block.rows):
        rows = _meet(strip, cut.row_span)
        if rows.start == rows.stop:
            continue
        span = operator.columns(rows)
        into = part.values[:, :, _within(cut.rows.covering(rows), part.rows)]
        empty = [cols for cols in tiling.tiles(span, n_key) if not operator.occupied(rows, cols)]
        for unseen in (slice(0, span.start), slice(span.stop, n_key), *empty):
            into[..., _within(cut.cols.covering(_meet(unseen, cut.col_span)), part.cols)] = 0.0


def _reduce(x: Tensor, axis: int, bins: Bins, span: slice, reduce: str) -> Tensor:
    """Reduce a tile along one axis to the bins that its span touches."""
    if isinstance(bins, WideBins) and span.start % bins.width == 0 and (span.stop - span.start) % bins.width == 0:
        return x if bins.width == 1 else _reduced(x.unflatten(axis, (-1, bins.width)), axis + 1, reduce)
    touched = bins.covering(span)
    edges = [max(bins.edge(i), span.start) - span.start for i in range(touched.start, touched.stop)]
    edges.append(span.stop - span.start)
    if len(edges) - 1 == x.shape[axis]:
        return x
    if len(edges) - 1 <= FEW_BINS:
        parts = [x.narrow(axis, a, b - a) for a, b in pairwise(edges)]
        return torch.stack([_reduced(part, axis, reduce) for part in parts], axis)
    return _reduce_many(x, axis, torch.tensor(edges, device=x.device), reduce)


def _reduced(x: Tensor, axis: int, reduce: str) -> Tensor:
    """Reduce a whole axis to one number."""
    if reduce == "max":
        return x.amax(axis)
    return _farther(x.amax(axis), x.amin(axis)) if reduce == "extreme" else x.sum(axis)


def _reduce_many(x: Tensor, axis: int, edges: Tensor, reduce: str) -> Tensor:
    """Reduce to many thin bins: take the first entry of each, then the second, and so on."""
    first, sizes = edges[:-1], edges.diff()
    result = x.index_select(axis, first)
    shape = [1] * x.ndim
    shape[axis] = -1
    for step in range(1, int(sizes.max())):
        entries = x.index_select(axis, first + torch.clamp(sizes - 1, max=step))
        if reduce == "max":
            # A bin that has no such entry repeats its last one, which changes no maximum and no extreme.
            result = torch.maximum(result, entries)
        elif reduce == "extreme":
            result = _farther(result, entries)
        else:
            result += entries * (sizes > step).view(shape)
    return result


def _enlarge(pooled: Tensor, axis: int, size: int) -> Tensor:
    length = pooled.shape[axis]
    if size == length:
        return pooled
    return pooled.index_select(axis, torch.arange(size, device=pooled.device) * length // size)
