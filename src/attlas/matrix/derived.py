"""Matrices made of other matrices: what all such kinds share.

A kind made of another one reads its tiles, changes them in place, and hands them on; so an expression of several kinds
costs one tile of memory for each matrix at its leaves, and no more.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.visibility import Indices


class Derived(AttentionOperator):
    """A matrix made of another one, and of the same shape, dtype and device unless the kind says otherwise.

    Parameters
    ----------
    of : AttentionOperator
        What it is made of.
    """

    def __init__(self, of: AttentionOperator) -> None:
        self.of = checked("of", of)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.of.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.of.dtype

    @property
    def device(self) -> torch.device:
        return self.of.device

    @property
    def signed(self) -> bool:
        return self.of.signed

    @property
    def heads_read(self) -> int:
        return self.of.heads_read

    def prepare(self) -> None:
        self.of.prepare()

    def columns(self, rows: slice) -> slice:
        return self.of.columns(rows)

    def occupied(self, rows: slice, cols: slice) -> bool:
        return self.of.occupied(rows, cols)


class ChangingReader(Reader):
    """Reads another reader's tiles and changes them in place."""

    def __init__(self, of: Reader) -> None:
        self._of = of

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        del logs  # a changed entry's logarithm is not that of what it was made of
        values = self._of.tile(rows, cols).values
        self.change(values, rows, cols)
        return Tile(values)

    @abstractmethod
    def change(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        """Turn the other matrix' entries, (batch, head, rows, cols), into this one's, in place."""


def checked(name: str, operator: AttentionOperator) -> AttentionOperator:
    """Return `operator`; raise `ArgumentError` if it is no attention matrix of any kind."""
    if not isinstance(operator, AttentionOperator):
        raise ArgumentError(complaint(name, wanted="an attention matrix of any kind", got=type(operator).__name__))
    return operator
