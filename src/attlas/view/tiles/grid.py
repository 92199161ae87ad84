"""The arithmetic of tiles: which rows and columns of a matrix each tile of each level shows.

At the deepest level a cell is an entry; at each level above it is twice as high and wide, until one tile holds the
whole matrix. A tile is 256 × 256 cells, less at the right and lower edge.
"""

from __future__ import annotations

from dataclasses import dataclass

from attlas.errors import ArgumentError, complaint

TILE = 256


@dataclass(frozen=True)
class Place:
    """What a tile shows.

    Parameters
    ----------
    rows, cols : slice
        Of the matrix, from and up to.
    cell : int
        How many rows, and columns, a cell of it covers; less at the matrix' edge.
    """

    rows: slice
    cols: slice
    cell: int

    @property
    def shape(self) -> tuple[int, int]:
        """How many cells there are, down and across."""
        down, across = (-(-(span.stop - span.start) // self.cell) for span in (self.rows, self.cols))
        return down, across


@dataclass(frozen=True)
class Grid:
    """The tiles of a matrix.

    Parameters
    ----------
    n_query, n_key : int
        Its height and width.
    """

    n_query: int
    n_key: int

    @property
    def levels(self) -> int:
        """The deepest level; the levels are 0 up to and with it."""
        tiles = -(-max(self.n_query, self.n_key) // TILE)
        return max(0, (tiles - 1).bit_length())

    def cell(self, level: int) -> int:
        """Return how many rows, and columns, a cell of a level covers."""
        return 2 ** (self.levels - level)

    def tiles(self, level: int) -> tuple[int, int]:
        """Return how many tiles a level has, down and across."""
        side = TILE * self.cell(level)
        return -(-self.n_query // side), -(-self.n_key // side)

    def place(self, level: int, row: int, col: int) -> Place:
        """Return what a tile shows.

        Raises
        ------
        ArgumentError
            There is no such level, or no such tile.
        """
        if not 0 <= level <= self.levels:
            raise ArgumentError(complaint("level", wanted=f"0 to {self.levels}", got=level))
        cell = self.cell(level)
        spans = []
        lengths = (self.n_query, self.n_key)
        for name, index, count, length in zip(("row", "col"), (row, col), self.tiles(level), lengths, strict=True):
            if not 0 <= index < count:
                raise ArgumentError(complaint(f"{name} of a tile", wanted=f"0 to {count - 1}", got=index))
            start = index * TILE * cell
            spans.append(slice(start, min(start + TILE * cell, length)))
        return Place(spans[0], spans[1], cell)
