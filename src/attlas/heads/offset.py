"""The question what a line beside the diagonal holds: how much each query gives to the key a fixed way before it."""

from __future__ import annotations

from attlas.matrix import AttentionOperator, Tile
from attlas.matrix.rows import RowPart, RowQuestion


class AtOffset(RowQuestion):
    """The entry ``offset`` keys before each query's position, ``A[i, position_i - offset]``; (batch, head, n_query).

    Rows whose key would lie outside of the matrix have 0. Only tiles that the line crosses are computed.

    Parameters
    ----------
    offset : int
        1 for the previous token, 0 for the token itself; negative for keys behind.
    """

    def __init__(self, offset: int = 1) -> None:
        self.offset = offset

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        first = rows.start + operator.offset - self.offset
        return first < cols.stop and first + (rows.stop - rows.start) > cols.start

    def add(self, state: RowPart, rows: slice, cols: slice, tile: Tile) -> None:
        # Of the tile's row i the key is column i + shift: a diagonal of the tile.
        shift = rows.start + state.offset - self.offset - cols.start
        height, width = tile.values.shape[-2:]
        if not -height < shift < width:
            return
        line = tile.values.diagonal(shift, dim1=-2, dim2=-1)
        first = max(0, -shift)
        state.of(rows)[..., first : first + line.shape[-1]] += line
