"""A number for each pair of tokens, made of the vector that the one passes on to the other."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attlas.matrix.contributions import Contributions
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.visibility import Indices, index_tensor

if TYPE_CHECKING:
    from typing import Self

PLANE = 2**16
"""Entries of one head that are worked on at a time on a CPU: with those of all heads they fit its caches."""

ACCELERATOR_PLANE = 2**23


@dataclass(frozen=True)
class Diagonal:
    """Where a tile crosses the line on which a row meets its own token.

    Parameters
    ----------
    rows, cols : Tensor, (crossings,)
        In the tile.
    queries : Tensor, (crossings,)
        The rows' numbers in the matrix.
    """

    rows: Tensor
    cols: Tensor
    queries: Tensor

    @staticmethod
    def of(offset: int, rows: Indices, cols: Indices, device: torch.device) -> Diagonal | None:
        """Find it; None where the tile lies off it."""
        if isinstance(rows, slice) and isinstance(cols, slice):
            first = max(rows.start + offset, cols.start)
            stop = min(rows.stop + offset, cols.stop)
            if stop <= first:
                return None
            keys = torch.arange(first, stop, device=device)
            return Diagonal(keys - offset - rows.start, keys - cols.start, keys - offset)
        queries, keys = index_tensor(rows, device), index_tensor(cols, device)
        at = (queries.unsqueeze(1) + offset == keys).nonzero()
        return Diagonal(at[:, 0], at[:, 1], queries[at[:, 0]]) if len(at) else None


class OfPairs(AttentionOperator):
    """One head, of numbers that are made of the vectors ``T_ij``; none is negative.

    Parameters
    ----------
    vectors : Contributions
        T: attention, values, output projection, residual and what norms divide by.
    """

    def __init__(self, vectors: Contributions) -> None:
        self.vectors = vectors
        self._copies = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, _, n_query, n_key = self.vectors.matrix.shape
        return batch, self._copies, n_query, n_key

    @property
    def dtype(self) -> torch.dtype:
        return self.vectors.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.vectors.matrix.device

    @property
    def copies(self) -> int:
        """How many times the one head was asked for: any index may repeat."""
        return self._copies

    def prepare(self) -> None:
        self.vectors.matrix.prepare()

    def narrow(self, batch: Indices, head: Indices) -> Self:
        new = self.of_batch(batch)
        new._copies = head.stop - head.start if isinstance(head, slice) else len(head)
        return new

    @abstractmethod
    def of_batch(self, batch: Indices) -> Self:
        """Return the same of some batch elements, with what is known already."""

    def columns(self, rows: slice) -> slice:
        """Return columns outside of which these rows hold zeros: those that they see, and themselves."""
        span = self.vectors.matrix.columns(rows)
        if self.vectors.residual is None:
            return span
        own = slice(max(rows.start + self.offset, 0), rows.stop + self.offset)
        return own if span.stop <= span.start else slice(min(span.start, own.start), max(span.stop, own.stop))


class PairReader(Reader):
    """Gives tiles in parts that fit a cache with the entries of all heads.

    Parameters
    ----------
    of : OfPairs
        Whose tiles.
    dtype : torch.dtype
        In which parts are computed.
    keys : int, optional
        How many keys a part may have.
    """

    def __init__(self, of: OfPairs, dtype: torch.dtype, keys: int | None = None) -> None:
        self.vectors = of.vectors
        self.dtype = dtype
        self._given = of.accumulator
        self._copies = of.copies
        self._reader = of.vectors.matrix.reader()
        self._plane = PLANE if of.device.type == "cpu" else ACCELERATOR_PLANE
        self._keys = self._plane if keys is None else keys

    @abstractmethod
    def part(self, weights: Tensor, rows: Indices, cols: Indices, diagonal: Diagonal | None) -> Tensor:
        """Return numbers of some pairs.

        Parameters
        ----------
        weights : Tensor, (batch, head, rows, cols)
            The attention, times the `inner` factors; its memory may be written to.
        rows, cols : slice or Tensor
            Which pairs.
        diagonal : Diagonal, optional
            Where they are of a token with itself.

        Returns
        -------
        Tensor, (batch, rows, cols)
        """

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        del logs
        vectors = self.vectors
        offset, device = vectors.matrix.offset, vectors.matrix.device
        strips = []
        for some_cols in _cut(cols, self._keys):
            lines = []
            for some_rows in _cut(rows, max(1, self._plane // _length(some_cols))):
                weights = self._reader.tile(some_rows, some_cols).values.to(self.dtype)
                if (inner := vectors.factor("inner", some_rows, self.dtype)) is not None:
                    weights.mul_(inner[:, None, :, None])
                diagonal = Diagonal.of(offset, some_rows, some_cols, device)
                lines.append(self.part(weights, some_rows, some_cols, diagonal).to(self._given))
            strips.append(lines[0] if len(lines) == 1 else torch.cat(lines, dim=1))
        values = strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)
        return Tile(values.unsqueeze(1).repeat(1, self._copies, 1, 1) if self._copies > 1 else values.unsqueeze(1))


def _cut(indices: Indices, length: int) -> list[Indices]:
    """Cut rows or columns into parts of at most `length`."""
    if isinstance(indices, Tensor):
        return list(indices.split(length))
    return [slice(start, min(start + length, indices.stop)) for start in range(indices.start, indices.stop, length)]


def _length(indices: Indices) -> int:
    return indices.stop - indices.start if isinstance(indices, slice) else len(indices)
