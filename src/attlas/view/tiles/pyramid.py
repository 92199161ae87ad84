"""Tiles of every level of a matrix: the deep ones computed when they are asked for, the others pooled once and kept.

A tile of a deep level covers few entries, so it is computed from queries and keys in milliseconds. A tile of a level
above covers so many that all tiles of such levels come from one pass over the whole matrix: its finest cells are kept,
and larger cells are made of them. Those of a head that was measured are put aside in a file: it opens at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionOperator, PoolCells, Question, ask
from attlas.view.tiles.aside import Aside
from attlas.view.tiles.cells import coarser, lift, sizes
from attlas.view.tiles.grid import TILE, Grid, Place
from attlas.view.tiles.kept import Check, Kept
from attlas.view.tiles.matrices import Shown
from attlas.view.tiles.preparing import prepare

REDUCERS = ("max", "mean", "mass", "lift")

DEEP = 4096**2
"""Entries of all heads that are read for a tile, up to which it is computed on request."""

FINEST = 1024
"""Cells along a side that are kept of a matrix at most."""

OPENED = 4
"""Matrices whose finest cells are kept in memory at least: at once at hand while somebody looks at them."""

SPREADS_BYTES = 8 * 2**20
RECENT_BYTES = 16 * 2**20
"""Of tiles that were computed on request: one that comes back into sight is there at once."""

_TURN = 0.05  # seconds between looks at whether a pass is still wanted, while another one is under way


def _deepest(grid: Grid, heads: int) -> int:
    """Return the deepest of the levels that are kept: they go from 0 up to it; -1 for none."""
    deepest = -1
    for level in range(grid.levels):
        cell = grid.cell(level)
        few = (TILE * cell) ** 2 * heads <= DEEP
        if few or -(-max(grid.n_query, grid.n_key) // cell) > FINEST:
            break
        deepest = level
    return deepest


def kept_cell(shape: tuple[int, int]) -> int:
    """Return the size of the cells that `Pyramid.keep` takes, for the exact matrix of a head of n_query × n_key."""
    grid = Grid(*shape)
    return grid.cell(max(0, _deepest(grid, 1)))


def cells_of(cell: int) -> list[PoolCells]:
    """Return the questions whose answers are cells as they are kept: their largest entry, and their sum."""
    return [PoolCells(cell, "max"), PoolCells(cell, "sum")]


class Pyramid:
    """Gives tiles of matrices."""

    def __init__(self) -> None:
        self._aside = Aside()
        self._opened = Kept(OPENED * 2 * 4 * FINEST**2)
        self._spreads = Kept(SPREADS_BYTES)
        self._recent = Kept(RECENT_BYTES)
        self._passing = Lock()

    @property
    def nbytes(self) -> int:
        """How many bytes are kept."""
        return sum(kept.nbytes for kept in self._all)

    def tile(self, matrix: Shown, level: int, row: int, col: int, reduce: str, check: Check) -> Tensor:
        """Return a tile; (cells down, cells across).

        Parameters
        ----------
        matrix : Shown
        level, row, col : int
            Which one.
        reduce : {"max", "mean", "mass", "lift"}
            What a cell shows: its largest entry, in size and with its sign where entries may be negative; the mean or
            the sum of its entries, hidden ones as the zeros that they are; or the sum over that of the even spread, NaN
            where nothing is visible.
        check : callable
            Called now and then; raises when nobody waits for the tile any more.

        Raises
        ------
        ArgumentError
            There is no such tile, or the matrix has no such reducer.
        """
        if reduce not in REDUCERS or (reduce == "lift" and matrix.spread is None):
            known = REDUCERS[: len(REDUCERS) - (matrix.spread is None)]
            raise ArgumentError(complaint("reduce", wanted=" or ".join(known), got=ascii(reduce[:20])))
        place = matrix.grid.place(level, row, col)
        check()
        if level == matrix.grid.levels:
            return self._entries(matrix, place, reduce, check)
        base = "max" if reduce == "max" else "sum"
        cells = self._kept(matrix, level, place, base, check)
        if cells is None:
            question = PoolCells(place.cell, _base(matrix, base), rows=place.rows, cols=place.cols)
            key = (matrix.name, level, row, col, base)
            cells = self._recent.get(key, lambda: tuple(self._ask(matrix.operator, [question], check)), check)[0]
        if reduce == "mean":
            return cells / sizes(place, cells)
        return lift(cells, self._spread(matrix, place, check)) if reduce == "lift" else cells

    def keep(self, name: str, peak: Tensor, mass: Tensor) -> None:
        """Keep what a pass has found of a head, in cells of size `kept_cell`; (cells down, cells across) each."""
        self._aside.keep(name, peak, mass)

    @contextmanager
    def passing(self, check: Check) -> Iterator[None]:
        """Wait until no other pass over a whole matrix is under way, and let no other one begin meanwhile.

        Several would only make each other late; tiles that cost little go beside it.
        """
        while not self._passing.acquire(timeout=_TURN):
            check()
        try:
            yield
        finally:
            self._passing.release()

    def clear(self) -> None:
        """Let go of everything."""
        for kept in self._all:
            kept.clear()
        self._aside.clear()

    @property
    def _all(self) -> tuple[Kept, ...]:
        return self._opened, self._spreads, self._recent

    def _entries(self, matrix: Shown, place: Place, reduce: str, check: Check) -> Tensor:
        prepare(matrix.operator, check)
        tile = matrix.operator[0, 0, place.rows, place.cols]
        if reduce == "lift" and matrix.spread is not None:
            lifted = tile * matrix.spread.counts[place.rows].unsqueeze(-1)
            return lifted.where(self._spread(matrix, place, check) > 0, torch.nan)
        return tile

    def _kept(self, matrix: Shown, level: int, place: Place, base: str, check: Check) -> Tensor | None:
        """Return a tile of a level that is kept, made of the finest cells that are; None if no such cells are."""
        deepest = _deepest(matrix.grid, matrix.operator.heads_read)
        if level > max(0, deepest):
            return None
        finest = self._opened.known(matrix.name)
        if finest is None and deepest < 0 and not self._aside.has(matrix.name):
            return None
        if finest is None:
            finest = self._opened.get(
                matrix.name,
                lambda: self._aside.read(matrix.name) or self._pooled(matrix, max(0, deepest), check),
                check,
            )
        which = 0 if base == "max" else 1
        factor = place.cell // matrix.grid.cell(max(0, deepest))
        cells = coarser(finest[which], factor, largest=which == 0)
        down, across = (slice(s.start // place.cell, -(-s.stop // place.cell)) for s in (place.rows, place.cols))
        return cells[down, across]

    def _pooled(self, matrix: Shown, level: int, check: Check) -> tuple[Tensor, ...]:
        """Pool the cells of a level, in one pass."""
        cell = matrix.grid.cell(level)
        questions = [PoolCells(cell, _base(matrix, base)) for base in ("max", "sum")]
        with self.passing(check):
            return tuple(self._ask(matrix.operator, questions, check))

    def _spread(self, matrix: Shown, place: Place, check: Check) -> Tensor:
        spread = matrix.spread
        if spread is None:
            raise ArgumentError(complaint("matrix", wanted="one that has an even spread", got=matrix.name))
        key = (spread.known_as, place.cell, place.rows.start, place.cols.start)
        return self._spreads.get(key, lambda: (spread.cells(place).cpu(),), check)[0]

    def _ask(self, operator: AttentionOperator, questions: list[PoolCells], check: Check) -> list[Tensor]:
        return [answer[0, 0].cpu() for answer in ask_while_wanted(operator, questions, check)]


def ask_while_wanted(operator: AttentionOperator, questions: Sequence[Question[Any, Any]], check: Check) -> list[Any]:
    """Answer questions; `check` is called now and then, and may raise to end it."""
    prepare(operator, check)
    return ask(operator, *questions, progress=lambda done, total: check())


def _base(matrix: Shown, base: str) -> str:
    """Return the reducer of a matrix' cells: what may be below zero has no maximum that says how strong it is."""
    return "extreme" if base == "max" and matrix.operator.signed else base
