"""Matrices mixed and weighed: the mean over heads, a share of the identity, divided rows, scaled rows and columns.

These are the steps of attention rollout: with A a layer's matrix, ``WithIdentity(HeadMean(A))`` is what Abnar and
Zuidema (2020, arXiv 2005.00928) multiply over the layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix import streaming
from attlas.matrix.derived import ChangingReader, Derived
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.visibility import Indices, index_tensor, take, take_heads


class HeadMean(Derived):
    """One head made of all: ``sum_h w_h A_h``.

    Parameters
    ----------
    of : AttentionOperator, (batch, head, n_query, n_key)
        Whose heads are mixed.
    weights : Tensor, (head,) or (batch, head), optional
        What each head counts for, used as they are; by default 1 / head each, which is the mean.

    Raises
    ------
    ArgumentError
        `weights` does not fit, or is not finite.

    Notes
    -----
    Shape (batch, 1, n_query, n_key). A tile costs one of every head, added up; memory is that of one tile a head,
    whatever n. For column sums alone, the mean of ``of.received(w)`` is the same and spares the adding.
    """

    def __init__(self, of: AttentionOperator, weights: Tensor | None = None) -> None:
        super().__init__(of)
        batch, head = of.shape[:2]
        if weights is None:
            weights = torch.full((batch, head), 1 / head, dtype=of.accumulator, device=of.device)
        elif not isinstance(weights, Tensor) or tuple(weights.shape) not in ((head,), (batch, head)):
            got = f"shape {tuple(weights.shape)}" if isinstance(weights, Tensor) else type(weights).__name__
            raise ArgumentError(
                complaint("weights", wanted=f"shape (head,) = ({head},) or (batch, head) = ({batch}, {head})", got=got)
            )
        self.weights = _finite("weights", weights, of).expand(batch, head)
        self._turns = bool((self.weights < 0).any())
        self._copies = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, _, n_query, n_key = self.of.shape
        return batch, self._copies, n_query, n_key

    @property
    def signed(self) -> bool:
        return self.of.signed or self._turns

    def narrow(self, batch: Indices, head: Indices) -> HeadMean:
        every = slice(0, self.of.shape[1])
        new = HeadMean(self.of.narrow(batch, every), take_heads(self.weights, batch, every))
        # The one head may be asked for several times, as any index may repeat.
        new._copies = head.stop - head.start if isinstance(head, slice) else len(head)
        return new

    def reader(self) -> Reader:
        return _MeanReader(self.of, self.weights, self._copies)


class _MeanReader(Reader):
    def __init__(self, of: AttentionOperator, weights: Tensor, copies: int) -> None:
        batch, heads = of.shape[:2]
        every, together = slice(0, batch), _heads_at_once(of)
        groups = [slice(first, min(first + together, heads)) for first in range(0, heads, together)]
        self._groups = [(of.narrow(every, g).reader(), weights[:, g].reshape(batch, -1, 1, 1)) for g in groups]
        self._copies = copies
        self._buffer = weights.new_empty(0)

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        del logs
        out: Tensor | None = None
        for reader, weights in self._groups:
            values = reader.tile(rows, cols).values
            if values.shape[1] > 1:
                values = values.mul_(weights).sum(1, keepdim=True)
                out = values if out is None else out.add_(values)
            elif out is None:
                out = torch.mul(values, weights, out=self._room(values.shape))
            else:
                out.addcmul_(values, weights)
        if out is None:
            raise ArgumentError(complaint("of", wanted="at least one head", got="none"))
        return Tile(out if self._copies == 1 else out.repeat(1, self._copies, 1, 1))

    def _room(self, shape: torch.Size) -> Tensor:
        size = math.prod(shape)
        if self._buffer.numel() < size:
            self._buffer = self._buffer.new_empty(size)
        return self._buffer[:size].view(shape)


def _heads_at_once(of: AttentionOperator) -> int:
    """Return of how many heads a tile is read in one go: one after the other, each fits a core's cache."""
    if of.device.type != "cpu":
        return of.shape[1]
    rows, cols = (min(size, streaming.TILE) for size in of.shape[2:])
    return max(1, streaming.TILE**2 // (rows * cols))


class WithIdentity(Derived):
    """``share · A + (1 − share) · I``: attention and the residual connection beside it.

    Parameters
    ----------
    of : AttentionOperator, (batch, head, n_query, n_key)
        With fewer queries than keys, the queries are the last rows, so the identity's ones stand at the rows' own
        positions.
    share : float
        What attention counts for; 0.5 by default, as in attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928).

    Raises
    ------
    ArgumentError
        There are more queries than keys, so that some rows have no position; or `share` is not finite.
    """

    def __init__(self, of: AttentionOperator, share: float = 0.5) -> None:
        super().__init__(of)
        if of.offset < 0:
            raise ArgumentError(
                complaint("of", wanted="at most as many queries as keys, each at a key's position", got=of.shape)
            )
        if not math.isfinite(share):
            raise ArgumentError(complaint("share", wanted="a finite number", got=share))
        self.share = float(share)

    @property
    def signed(self) -> bool:
        return self.of.signed or not 0 <= self.share <= 1

    def narrow(self, batch: Indices, head: Indices) -> WithIdentity:
        return WithIdentity(self.of.narrow(batch, head), self.share)

    def reader(self) -> Reader:
        return _IdentityReader(self.of.reader(), self.share, self.offset)

    def columns(self, rows: slice) -> slice:
        inner = self.of.columns(rows)
        own = slice(rows.start + self.offset, rows.stop + self.offset)
        if inner.start >= inner.stop:
            return own
        return slice(min(inner.start, own.start), max(inner.stop, own.stop))

    def occupied(self, rows: slice, cols: slice) -> bool:
        own = rows.start + self.offset < cols.stop and cols.start < rows.stop + self.offset
        return own or self.of.occupied(rows, cols)


class _IdentityReader(ChangingReader):
    def __init__(self, of: Reader, share: float, offset: int) -> None:
        super().__init__(of)
        self._share = share
        self._offset = offset

    def change(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        values.mul_(self._share)
        if isinstance(rows, slice) and isinstance(cols, slice):
            diagonal = rows.start + self._offset - cols.start
            if -values.shape[2] < diagonal < values.shape[3]:
                values.diagonal(diagonal, 2, 3).add_(1 - self._share)
            return
        positions = index_tensor(rows, values.device).view(-1, 1) + self._offset
        values.add_(positions == index_tensor(cols, values.device), alpha=1 - self._share)


class RowNormalised(Derived):
    """Rows divided by their sums; a row that sums to 0 stays 0.

    Parameters
    ----------
    of : AttentionOperator
        Without negative entries: a sum in which entries cancel says nothing about their size.

    Raises
    ------
    ArgumentError
        `of` has a sign.

    Notes
    -----
    The sums are computed once, in a streaming pass of their own, when the first question is asked.
    """

    def __init__(self, of: AttentionOperator) -> None:
        super().__init__(of)
        if of.signed:
            raise ArgumentError(
                complaint("of", wanted="a matrix without negative entries", got=repr(of), way_out="take Positive(of)")
            )
        self._sums: Tensor | None = None

    @property
    def sums(self) -> Tensor:
        """The sums that rows were divided by, computed on first use; (batch, head, n_query)."""
        return self._row_sums().squeeze(-1)

    def narrow(self, batch: Indices, head: Indices) -> RowNormalised:
        new = RowNormalised(self.of.narrow(batch, head))
        new._sums = None if self._sums is None else take_heads(self._sums, batch, head)
        return new

    def reader(self) -> Reader:
        return _NormalisedReader(self.of.reader(), self._row_sums())

    def prepare(self) -> None:
        super().prepare()
        self._row_sums()

    def _row_sums(self) -> Tensor:
        if self._sums is not None:
            return self._sums
        from attlas.matrix.products import Apply
        from attlas.matrix.questions import ask

        batch, head, _, n_key = self.shape
        ones = torch.ones(1, dtype=self.accumulator, device=self.device).expand(batch, head, n_key, 1)
        sums: Tensor = ask(self.of, Apply(ones))[0]
        self._sums = sums
        return sums


class _NormalisedReader(ChangingReader):
    def __init__(self, of: Reader, sums: Tensor) -> None:
        super().__init__(of)
        self._divisors = sums.masked_fill(sums == 0, 1)

    def change(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        del cols
        values.div_(take(self._divisors, 2, rows))


class Scaled(Derived):
    """``diag(rows) · A · diag(columns)``: rows and columns counted more or less.

    Parameters
    ----------
    of : AttentionOperator, (batch, head, n_query, n_key)
        What is scaled.
    rows : Tensor, broadcastable to (batch, head, n_query), optional
        What each row is multiplied with.
    columns : Tensor, broadcastable to (batch, head, n_key), optional
        What each column is multiplied with, such as the norms of what keys pass on.

    Raises
    ------
    ArgumentError
        A factor does not fit, or is not finite.
    """

    def __init__(self, of: AttentionOperator, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
        super().__init__(of)
        self.row_factors = None if rows is None else _factors("rows", rows, of, 2)
        self.column_factors = None if columns is None else _factors("columns", columns, of, 3)
        factors = (self.row_factors, self.column_factors)
        self._turns = any(f is not None and bool((f < 0).any()) for f in factors)

    @property
    def signed(self) -> bool:
        return self.of.signed or self._turns

    def narrow(self, batch: Indices, head: Indices) -> Scaled:
        rows, columns = (
            None if f is None else take(take(f, 0, batch), 1, head) for f in (self.row_factors, self.column_factors)
        )
        return Scaled(self.of.narrow(batch, head), rows, columns)

    def reader(self) -> Reader:
        return _ScaledReader(self.of.reader(), self.row_factors, self.column_factors)


class _ScaledReader(ChangingReader):
    def __init__(self, of: Reader, rows: Tensor | None, columns: Tensor | None) -> None:
        super().__init__(of)
        self._rows = None if rows is None else rows.unsqueeze(-1)
        self._columns = None if columns is None else columns.unsqueeze(-2)

    def change(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        if self._rows is not None:
            values.mul_(take(self._rows, 2, rows))
        if self._columns is not None:
            values.mul_(take(self._columns, 3, cols))


def _factors(name: str, factors: Tensor, of: AttentionOperator, axis: int) -> Tensor:
    """Check factors of rows or columns and give them three axes."""
    full = (*of.shape[:2], of.shape[axis])
    wanted = f"a shape that broadcasts to (batch, head, {('n_query', 'n_key')[axis - 2]}) = {full}"
    if not isinstance(factors, Tensor) or factors.ndim > 3:
        got = f"shape {tuple(factors.shape)}" if isinstance(factors, Tensor) else type(factors).__name__
        raise ArgumentError(complaint(name, wanted=wanted, got=got))
    shape = (1,) * (3 - factors.ndim) + tuple(factors.shape)
    if any(size not in (1, whole) for size, whole in zip(shape, full, strict=True)):
        raise ArgumentError(complaint(name, wanted=wanted, got=f"shape {tuple(factors.shape)}"))
    return _finite(name, factors, of).view(shape)


def _finite(name: str, numbers: Tensor, of: AttentionOperator) -> Tensor:
    """Return numbers in the dtype that tiles have; refuse NaN and infinity."""
    numbers = numbers.detach().to(device=of.device, dtype=of.accumulator)
    if not bool(numbers.isfinite().all()):
        raise ArgumentError(complaint(name, wanted="finite numbers", got="NaN or infinity"))
    return numbers
