"""Arithmetic of cells: larger ones made of smaller ones, how many entries each has, and their lift."""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.view.tiles.grid import Place


def coarser(cells: Tensor, factor: int, *, largest: bool) -> Tensor:
    """Return cells that are `factor` times as wide and as high.

    Parameters
    ----------
    cells : Tensor, (..., down, across)
    factor : int
    largest : bool
        Whether a cell is the entry of largest size of those that it is made of, with its sign; else it is their sum.
    """
    if factor == 1:
        return cells
    down, across = cells.shape[-2:]
    # The zeros that are added at the edges change no sum, and no entry of largest size.
    padded = torch.nn.functional.pad(cells, (0, -across % factor, 0, -down % factor))
    blocks = padded.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
    if not largest:
        return blocks.sum((-3, -1))
    high, low = blocks.amax((-3, -1)), blocks.amin((-3, -1))
    return torch.where(high + low >= 0, high, low)


def sizes(place: Place, cells: Tensor) -> Tensor:
    """Return how many entries each cell of a place has, in numbers like those of `cells`; (down, across)."""
    down, across = (
        torch.arange(span.start, span.stop + place.cell, place.cell).clamp(max=span.stop).diff()
        for span in (place.rows, place.cols)
    )
    return (down.unsqueeze(-1) * across).to(cells.dtype)


def lift(mass: Tensor, even: Tensor) -> Tensor:
    """Return sums over those of the even spread, NaN where nothing is visible."""
    return torch.where(even > 0, mass / torch.where(even > 0, even, 1.0), torch.nan)
