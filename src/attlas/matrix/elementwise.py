"""Matrices made entry by entry: the product of two, their difference, and the positive part of one."""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.derived import ChangingReader, Derived, checked
from attlas.matrix.operator import AttentionOperator, Reader
from attlas.matrix.visibility import Indices


class _Pair(AttentionOperator):
    """What all kinds made of two matrices of one shape share."""

    def __init__(self, a: AttentionOperator, b: AttentionOperator) -> None:
        self.a, self.b = checked("a", a), checked("b", b)
        if a.shape != b.shape:
            raise ArgumentError(complaint("b", wanted=f"the shape of a, {a.shape}", got=b.shape))
        if a.device != b.device:
            raise ArgumentError(complaint("b", wanted=f"the device of a, {a.device}", got=b.device))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.a.shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.a.dtype, self.b.dtype)

    @property
    def device(self) -> torch.device:
        return self.a.device

    @property
    def heads_read(self) -> int:
        return self.a.heads_read + self.b.heads_read

    def prepare(self) -> None:
        self.a.prepare()
        self.b.prepare()


class Product(_Pair):
    """The entrywise product ``A ⊙ B``, such as attention times its gradient.

    Parameters
    ----------
    a, b : AttentionOperator, (batch, head, n_query, n_key)
        Two matrices of the same shape, on the same device.

    Raises
    ------
    ArgumentError
        They are no attention matrices, or shape or device differ.

    Notes
    -----
    A tile costs one of each, and one pass. A transpose, a narrowing to heads and the columns outside of which rows are
    zero go through to both.
    """

    @property
    def signed(self) -> bool:
        return self.a.signed or self.b.signed

    def narrow(self, batch: Indices, head: Indices) -> Product:
        return Product(self.a.narrow(batch, head), self.b.narrow(batch, head))

    def reader(self) -> Reader:
        # What is changed in place must be able to hold the result.
        first, second = (self.a, self.b) if self.a.accumulator == self.accumulator else (self.b, self.a)
        return _ProductReader(first.reader(), second.reader())

    def columns(self, rows: slice) -> slice:
        a, b = self.a.columns(rows), self.b.columns(rows)
        start = max(a.start, b.start)
        return slice(start, max(start, min(a.stop, b.stop)))

    def occupied(self, rows: slice, cols: slice) -> bool:
        return self.a.occupied(rows, cols) and self.b.occupied(rows, cols)


class _ProductReader(ChangingReader):
    def __init__(self, of: Reader, by: Reader) -> None:
        super().__init__(of)
        self._by = by

    def change(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        values.mul_(self._by.tile(rows, cols).values)


class Difference(_Pair):
    """The difference ``A − B``, such as a head's attention before and after training.

    Parameters
    ----------
    a, b : AttentionOperator, (batch, head, n_query, n_key)
        Two matrices of the same shape, on the same device.

    Raises
    ------
    ArgumentError
        They are no attention matrices, or shape or device differ.

    Notes
    -----
    A tile costs one of each, and one pass; a tile in which both hold only zeros is not made.
    """

    @property
    def signed(self) -> bool:
        return True

    def narrow(self, batch: Indices, head: Indices) -> Difference:
        return Difference(self.a.narrow(batch, head), self.b.narrow(batch, head))

    def reader(self) -> Reader:
        if self.a.accumulator == self.accumulator:
            return _DifferenceReader(self.a.reader(), self.b.reader(), turned=False)
        return _DifferenceReader(self.b.reader(), self.a.reader(), turned=True)

    def columns(self, rows: slice) -> slice:
        a, b = self.a.columns(rows), self.b.columns(rows)
        spans = [span for span in (a, b) if span.start < span.stop]
        if not spans:
            return a
        return slice(min(span.start for span in spans), max(span.stop for span in spans))

    def occupied(self, rows: slice, cols: slice) -> bool:
        return self.a.occupied(rows, cols) or self.b.occupied(rows, cols)


class _DifferenceReader(ChangingReader):
    def __init__(self, of: Reader, by: Reader, *, turned: bool) -> None:
        super().__init__(of)
        self._by = by
        self._turned = turned

    def change(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        values.sub_(self._by.tile(rows, cols).values)
        if self._turned:
            values.neg_()


class Positive(Derived):
    """The positive part, ``max(A, 0)`` entry by entry.

    Parameters
    ----------
    of : AttentionOperator
        Usually one with a sign, such as attention times its gradient.
    """

    @property
    def signed(self) -> bool:
        return False

    def narrow(self, batch: Indices, head: Indices) -> Positive:
        return Positive(self.of.narrow(batch, head))

    def reader(self) -> Reader:
        return _PositiveReader(self.of.reader()) if self.of.signed else self.of.reader()


class _PositiveReader(ChangingReader):
    def change(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        del rows, cols
        values.clamp_(min=0)
