"""Small maps: all heads of a layer at once, of at most 128 cells a side.

They are what tiles show, in cells that are a power of two as large, so that one answer does for a layer.
"""

from __future__ import annotations

from torch import Tensor

from attlas.matrix import AttentionMatrix
from attlas.matrix.even import even_cells, even_spread, only_by_position
from attlas.view.tiles.cells import coarser, lift, sizes
from attlas.view.tiles.grid import Grid, Place
from attlas.view.tiles.kept import Check, Kept
from attlas.view.tiles.matrices import Matrices
from attlas.view.tiles.pyramid import Pyramid, ask_while_wanted, cells_of

SIDES = (128, 64, 32, 16)
"""Cells a side that maps may be asked for, at most; they are kept in the first of these sizes."""

MAPS_BYTES = 160 * 2**20
"""Enough for 1,280 heads."""

SPREADS_BYTES = 4 * 2**20


class Maps:
    """Gives the small maps of layers.

    Parameters
    ----------
    matrices : Matrices
        Gives the layers.
    pyramid : Pyramid
        Whose passes over whole matrices those for maps do not run beside.
    """

    def __init__(self, matrices: Matrices, pyramid: Pyramid) -> None:
        self._matrices = matrices
        self._pyramid = pyramid
        self._layers = Kept(MAPS_BYTES)
        self._spreads = Kept(SPREADS_BYTES)

    @property
    def nbytes(self) -> int:
        """How many bytes are kept."""
        return self._layers.nbytes + self._spreads.nbytes

    def of_layer(self, capture: str, number: int, reduce: str, check: Check, *, side: int = SIDES[0]) -> Tensor:
        """Return the maps of all heads of a layer; (head, cells down, cells across).

        Parameters
        ----------
        capture : str
        number : int
            The layer's.
        reduce : {"max", "mean", "mass", "lift"}
            What a cell shows; see `Pyramid.tile`.
        check : callable
            Called now and then; raises when nobody waits for the maps any more.
        side : int
            How many cells they have down and across, at most; one of `SIDES`.

        Raises
        ------
        UnknownMatrix
            There is no such capture, or no such layer in it.
        """
        layer = self._matrices.layer(capture, number)
        check()
        kept = self._layers.get((capture, number), lambda: self._pooled(layer, check), check)
        at, place = (0 if reduce == "max" else 1), _place(layer, side)
        cells = coarser(kept[at], place.cell // _place(layer, SIDES[0]).cell, largest=at == 0)
        if reduce == "mean":
            return cells / sizes(place, cells)
        return lift(cells, self._even(layer, (capture, number), place, check)) if reduce == "lift" else cells

    def keep(self, capture: str, number: int, cell: int, peak: Tensor, mass: Tensor) -> None:
        """Keep the maps of a layer, made of smaller cells of its heads, (head, cells down, cells across) each."""
        layer = self._matrices.layer(capture, number)
        self._layers.keep((capture, number), *_of_cells(layer, cell, peak, mass))

    def clear(self) -> None:
        """Let go of everything."""
        self._layers.clear()
        self._spreads.clear()

    def _pooled(self, layer: AttentionMatrix, check: Check) -> tuple[Tensor, ...]:
        """Pool the cells of all heads in one pass."""
        cell = _place(layer, SIDES[0]).cell
        with self._pyramid.passing(check):
            peak, mass = ask_while_wanted(layer, cells_of(cell), check)
        return _of_cells(layer, cell, peak[0], mass[0])

    def _even(self, layer: AttentionMatrix, known_as: tuple[str, int], place: Place, check: Check) -> Tensor:
        """Return what the even spread puts into each cell; (head, cells down, cells across), or one for all heads."""
        even = even_spread(layer)
        rules = even.visibility
        alike = (layer.shape[2:], rules.causal, rules.window) if only_by_position(even) else known_as
        made = self._spreads.get(
            (alike, place.cell), lambda: (even_cells(even, place.cell, place.rows, place.cols)[0].cpu(),), check
        )
        return made[0]


def _place(layer: AttentionMatrix, side: int) -> Place:
    """Return a whole matrix in cells of which there are at most so many down and across."""
    n_query, n_key = layer.shape[2:]
    cell = Grid(n_query, n_key).cell(0)
    while max(n_query, n_key) > side * cell:
        cell *= 2
    return Place(slice(0, n_query), slice(0, n_key), cell)


def _of_cells(layer: AttentionMatrix, cell: int, peak: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Return cells in the size in which they are kept."""
    factor = _place(layer, SIDES[0]).cell // cell
    return coarser(peak.cpu(), factor, largest=True), coarser(mass.cpu(), factor, largest=False)
