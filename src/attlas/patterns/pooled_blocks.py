"""The blocks of keys that each block of rows scores highest, judged by the mean of its queries and of their keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from attlas.matrix import AttentionMatrix
from attlas.matrix.visibility import Visibility, places
from attlas.patterns.choosing import ChosenKeep
from attlas.patterns.keep import Run

STRIP = 256
"""Row blocks whose scores are taken together."""

HIGH = 1e30
"""The score of a block that is kept whatever its keys."""


@dataclass(frozen=True, eq=False)
class PooledBlocks(ChosenKeep):
    """The column blocks that each head's row blocks chose.

    Parameters
    ----------
    block : int
        Positions of a block; block `i` begins at position ``i * block``.
    n_key : int
        The matrix's width.
    first : int
        The first row block that there is a choice for.
    blocks : Tensor, (batch, head, row blocks, top)
        The chosen column blocks, the row block's own first; −1 for none.
    batches, heads : Tensor, (batch,) and (head,)
        The ids that the matrix's formulas are called with.
    """

    block: int
    n_key: int
    first: int
    blocks: Tensor
    batches: Tensor
    heads: Tensor

    @property
    def late(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] - read only here
        return self.block

    @property
    def unit(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] - read only here
        return self.block

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        return places(self.batches), places(self.heads)

    @cached_property
    def _table(self) -> Tensor:
        """Which column blocks are kept: (batch, head, row blocks, column blocks)."""
        count = -(-self.n_key // self.block)
        table = torch.zeros((*self.blocks.shape[:3], count + 1), dtype=torch.bool, device=self.blocks.device)
        # What is not there goes to a last column, which is then left out.
        return table.scatter_(3, self.blocks % (count + 1), True)[..., :count]

    def _of(self, tensor: Tensor, batches: Tensor, heads: Tensor) -> Tensor:
        return tensor[self._places[0][batches]][:, self._places[1][heads]]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        rows = (query // self.block - self.first).clamp(min=0)
        kept = self._table[self._places[0][batch], self._places[1][head], rows, key // self.block]
        return kept & (query >= 0)

    def columns(self, positions: slice, n_key: int) -> tuple[slice, ...]:
        # Heads differ, and together they leave little out.
        return (slice(0, min(positions.stop, n_key)),) if positions.stop > 0 else ()

    def occupied(self, batches: Tensor, heads: Tensor, positions: slice, keys: slice) -> bool:
        first = max(positions.start // self.block - self.first, 0)
        rows = slice(first, max((positions.stop - 1) // self.block + 1 - self.first, first))
        cols = slice(keys.start // self.block, (keys.stop - 1) // self.block + 1)
        return bool(self._of(self._table, batches, heads)[:, :, rows, cols].any())

    def complete(self, n_query: int, n_key: int) -> int:
        # Under causal order there are no more blocks to choose from.
        return max(self.blocks.shape[3] * self.block - (n_key - n_query), 0)

    def runs(self, n_query: int, n_key: int) -> Iterator[Run]:
        offset = n_key - n_query
        first = max(offset, 0)
        begin = min(-(-first // self.block) * self.block, n_key)
        end = max(n_key // self.block * self.block, begin)
        keys = (range(self.blocks.shape[3] * self.block),)
        free = min(max(self.blocks.shape[3] * self.block, begin), end)
        # The first and the last row block may be cut; those between look alike.
        for start, stop in pairwise((first, begin, free, end, n_key)):
            height = self.block if begin <= start and stop <= end else stop - start
            if start < stop:
                rows = range(start - offset, start + height - offset)
                yield Run(rows, keys, count=(stop - start) // height)

    def gathered(self, batches: Tensor, heads: Tensor, positions: Tensor) -> Tensor:
        blocks = self._of(self.blocks, batches, heads)[:, :, positions[:, 0] // self.block - self.first]
        keys = blocks.unsqueeze(-1) * self.block + torch.arange(self.block, device=positions.device)
        return torch.where((blocks.unsqueeze(-1) < 0) | (keys >= self.n_key), -1, keys).flatten(3)


def choose_blocks(exact: AttentionMatrix, block: int, top: int) -> PooledBlocks:
    """Choose column blocks for each head's row blocks by the scores of their means.

    Parameters
    ----------
    exact : AttentionMatrix, (batch, head, n_query, n_key)
    block : int
        Positions of a block.
    top : int
        How many column blocks a row block keeps: its own, the first, and those of the highest scores, of which no pair
        is hidden by causal order or the matrix's window. Blocks of nothing but padding are not chosen.

    Notes
    -----
    Time and memory are O((n_query + n_key) · dim) and those of one score a pair of blocks.
    """
    seen = exact.visibility
    n_key = exact.shape[3]
    top = min(top, -(-n_key // block))
    with torch.no_grad():
        keys, there = _means(exact.key, _counted(exact), block, 0)
        first = max(seen.offset, 0)
        queries, _ = _means(exact.query[:, :, first - seen.offset :], None, block, first % block)
        keys = keys.repeat_interleave(exact.shape[1] // keys.shape[1], dim=1)
        parts = [
            _choose(exact.scale * strip @ keys.mT, there, seen, block, first // block + start, top)
            for start, strip in zip(range(0, queries.shape[2], STRIP), queries.split(STRIP, dim=2), strict=True)
        ]
    return PooledBlocks(block, n_key, first // block, torch.cat(parts, dim=2), seen.batches, seen.heads)


def _choose(scores: Tensor, there: Tensor, seen: Visibility, block: int, first: int, top: int) -> Tensor:
    """Return the blocks of the highest scores, (batch, head, row blocks, top), the row block's own first."""
    rows = torch.arange(first, first + scores.shape[2], device=scores.device).unsqueeze(1)
    columns = torch.arange(scores.shape[3], device=scores.device)
    allowed = there
    if seen.causal:
        allowed = allowed & (columns <= rows)
    if seen.window is not None:
        allowed = allowed & (((rows - columns).abs() - 1) * block + 1 < seen.window)
    scores = scores.clamp(-HIGH, HIGH).masked_fill(~allowed, -math.inf)
    scores = scores.masked_fill(allowed & (columns == 0), 2 * HIGH).masked_fill(columns == rows, 4 * HIGH)
    best, blocks = scores.topk(top, dim=-1)
    return torch.where(best > -math.inf, blocks, -1)


def _counted(exact: AttentionMatrix) -> Tensor | None:
    """Return which keys are no padding, (batch or 1, 1, n_key); None where no mask says so for all heads and rows."""
    mask = exact.visibility.mask
    if isinstance(mask, Tensor) and mask.shape[1] == mask.shape[2] == 1:
        return mask.expand(-1, -1, -1, exact.shape[3])[:, :, 0]
    return None


def _means(tensor: Tensor, counted: Tensor | None, block: int, skipped: int) -> tuple[Tensor, Tensor]:
    """Return the mean of each block, (batch, head, blocks, dim), and which blocks have any; the first may be cut."""
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    place = (torch.arange(tensor.shape[2], device=tensor.device) + skipped) // block
    tensor, sizes = tensor.to(dtype), torch.ones(1, 1, tensor.shape[2], 1, dtype=dtype, device=tensor.device)
    if counted is not None:
        sizes = counted.to(dtype).unsqueeze(-1)
        tensor = tensor * sizes
    sums, sizes = (
        part.new_zeros((*part.shape[:2], int(place[-1]) + 1, part.shape[3])).index_add_(2, place, part)
        for part in (tensor, sizes)
    )
    return sums / sizes.clamp(min=1), sizes.mT > 0
