"""Blocks of keys that blocks of rows keep, the same for every head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attlas.patterns.keep import HEIGHT, FixedKeep, Run, chunks, merged


@dataclass(frozen=True)
class Blocks(FixedKeep):
    """Which blocks of keys each block of rows keeps.

    Parameters
    ----------
    block : int
        Positions of a block; block `i` begins at position ``i * block``.
    kept : tuple of tuple of int
        The column blocks of each row block, in order; every row block of the matrix has an entry.
    causal : bool
        Whether keys after a row are hidden anyway, and need not be computed.
    """

    block: int
    kept: tuple[tuple[int, ...], ...]
    causal: bool

    @cached_property
    def _table(self) -> Tensor:
        """Which blocks are kept, (row blocks, column blocks), with a last row that keeps nothing."""
        table = torch.zeros(len(self.kept) + 1, len(self.kept), dtype=torch.bool)
        for row, kept in enumerate(self.kept):
            table[row, list(kept)] = True
        return table

    def near(self, query: Tensor, key: Tensor) -> Tensor:
        # A row before the first key, which too many queries give, is at the table's last place: it keeps nothing.
        rows = torch.where(query < 0, -1, query // self.block)
        return self._table.to(key.device)[rows, key // self.block]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        return self.near(query, key)

    def columns(self, positions: slice, n_key: int) -> tuple[slice, ...]:
        first, last = max(positions.start, 0) // self.block, (positions.stop - 1) // self.block
        kept = {column for row in self.kept[first : last + 1] for column in row} if positions.stop > 0 else ()
        return merged([(column * self.block, (column + 1) * self.block) for column in kept], n_key)

    def runs(self, n_query: int, n_key: int) -> Iterator[Run]:
        offset = n_key - n_query
        for row in range(max(offset, 0) // self.block, len(self.kept)):
            first, stop = max(row * self.block, offset, 0), min((row + 1) * self.block, n_key)
            for positions in chunks(first, stop, 2 * HEIGHT):
                seen = positions.stop if self.causal else n_key
                spans = self.columns(slice(positions.start, positions.stop), seen)
                rows = range(positions.start - offset, positions.stop - offset)
                yield Run(rows, tuple(range(span.start, span.stop) for span in spans))
