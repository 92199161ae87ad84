"""One tile scheduler for every question: which blocks of heads and rows are worked on, in which tiles, and by whom.

On a CPU a block is one head, or a span of one head's rows when there are few heads, or several heads when all of them
together fill no more than a tile; blocks run on threads. On an accelerator a block is all heads at once, with tiles as
large as a fixed budget allows. How the work is cut depends on
the matrix alone, never on how many threads there are, so sums come out the same on every machine with the same
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from attlas.matrix.operator import AttentionOperator, Progress
from attlas.matrix.threads import each

TILE = 512
"""Rows and columns of a tile on a CPU: 1 MiB in float32, which fits a core's own cache."""

ACCELERATOR_ENTRIES = 2**26
"""Entries of a tile of all heads on an accelerator."""

MANY_BLOCKS = 16
"""Fewer heads than this are cut into spans of rows, so that threads have something to share."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Block:
    """Some heads of some batch elements, and a span of their rows: what one worker does in one go."""

    batch: slice
    head: slice
    rows: slice


@dataclass(frozen=True)
class Tiling:
    """How large tiles are."""

    rows: int
    cols: int

    def strips(self, rows: slice) -> Iterator[slice]:
        """Cut rows into strips."""
        for start in range(rows.start, rows.stop, self.rows):
            yield slice(start, min(start + self.rows, rows.stop))

    def tiles(self, cols: slice, width: int) -> Iterator[slice]:
        """Cut columns along a fixed grid, so that tiles of different strips meet."""
        for start in range(cols.start // self.cols * self.cols, cols.stop, self.cols):
            yield slice(start, min(start + self.cols, width))


def tiling_of(operator: AttentionOperator) -> Tiling:
    """Return the tile size for an operator, by where it lives."""
    if operator.device.type == "cpu":
        return Tiling(TILE, TILE)
    heads = operator.shape[0] * operator.heads_read
    edge = max(TILE, int((ACCELERATOR_ENTRIES / heads) ** 0.5) // TILE * TILE)
    return Tiling(edge, edge)


def blocks_of(operator: AttentionOperator) -> list[Block]:
    """Cut an operator into blocks, ordered batch, head, rows."""
    batch, head, n_query, _ = operator.shape
    if operator.device.type != "cpu":
        return [Block(slice(0, batch), slice(0, head), slice(0, n_query))]
    together = _heads_a_tile(operator)
    if together > 1:
        batches, heads = max(1, together // head), min(together, head)
        return [
            Block(slice(b, min(b + batches, batch)), slice(h, min(h + heads, head)), slice(0, n_query))
            for b in range(0, batch, batches)
            for h in range(0, head, heads)
        ]
    spans = -(-MANY_BLOCKS // (batch * head))
    strips = -(-n_query // TILE)
    length = -(-strips // spans) * TILE
    return [
        Block(slice(b, b + 1), slice(h, h + 1), slice(start, min(start + length, n_query)))
        for b in range(batch)
        for h in range(head)
        for start in range(0, n_query, length)
    ]


def _heads_a_tile(operator: AttentionOperator) -> int:
    """Return how many small heads are worth one step: for matrices of a sentence, a step costs more than its sums."""
    batch, head, n_query, n_key = operator.shape
    if max(n_query, n_key) > TILE:
        return 1
    # Enough blocks must be left for the threads.
    return max(1, min(TILE * TILE // (n_query * n_key), batch * head // MANY_BLOCKS))


def each_block(
    operator: AttentionOperator, work: Callable[[Block], Result], progress: Progress | None = None
) -> tuple[list[Block], list[Result]]:
    """Do `work` on every block, on threads where that pays, and return blocks and results in one order."""
    blocks = blocks_of(operator)
    # Later rows of a causal matrix are longer: beginning with the longest keeps all threads busy to the end.
    order = sorted(range(len(blocks)), key=lambda i: blocks[i].rows.start, reverse=True)
    results = each(work, [blocks[i] for i in order], operator.device, progress)
    in_place: dict[int, Result] = dict(zip(order, results, strict=True))
    return blocks, [in_place[i] for i in range(len(blocks))]


def merge_rows(
    operator: AttentionOperator, blocks: Sequence[Block], parts: Sequence[torch.Tensor], width: tuple[int, ...] = ()
) -> torch.Tensor:
    """Put per-block results of shape (batch, head, rows, *width) side by side."""
    first = parts[0]
    if len(blocks) == 1:
        return first
    merged = first.new_empty((*operator.shape[:3], *width))
    for block, part in zip(blocks, parts, strict=True):
        merged[block.batch, block.head, block.rows] = part
    return merged
