"""The transpose of any attention operator, as lazy as what it transposes."""

from __future__ import annotations

from attlas.matrix.derived import Derived
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.visibility import Indices


class Transposed(Derived):
    """``A.T``: rows are keys, columns are queries."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, head, n_query, n_key = self.of.shape
        return batch, head, n_key, n_query

    @property
    def T(self) -> AttentionOperator:  # noqa: N802 - the name that NumPy and PyTorch users expect
        """What was transposed."""
        return self.of

    def narrow(self, batch: Indices, head: Indices) -> AttentionOperator:
        return Transposed(self.of.narrow(batch, head))

    def reader(self) -> Reader:
        return _TransposedReader(self.of.reader())

    def columns(self, rows: slice) -> slice:
        del rows
        # A matrix says which columns its rows see, and not which rows see a column.
        return slice(0, self.shape[3])

    def occupied(self, rows: slice, cols: slice) -> bool:
        return self.of.occupied(cols, rows)


class _TransposedReader(Reader):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        tile = self._reader.tile(cols, rows, logs=logs)
        return Tile(tile.values.mT, None if tile.logs is None else tile.logs.mT)
