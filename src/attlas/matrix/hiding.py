"""What a matrix hides, applied to tiles of something else: everything that makes an entry of the matrix 0 by rule.

Four rules can hide a key from a query: causal order, a window, a mask, and a bias of minus infinity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.matrix.bias import ALiBi, RelativeBias
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Formula, Indices, take


def hidden_by(bias: Tensor) -> Tensor:
    """Tell which numbers of a bias hide their key: minus infinity, and the dtype's lowest finite ones."""
    return bias <= torch.finfo(bias.dtype).min / 2


def can_hide(bias: Tensor | Formula | None) -> bool:
    """Tell whether a bias may hide keys; a formula of the caller's always may."""
    if bias is None or isinstance(bias, ALiBi):
        return False
    if isinstance(bias, RelativeBias):
        return bool(hidden_by(bias.table).any())
    return not isinstance(bias, Tensor) or bool(hidden_by(bias.detach().amin()))


class Hiding:
    """Clears hidden entries from tiles of one block of heads.

    Parameters
    ----------
    matrix : AttentionMatrix
        Whose rules hold.
    """

    def __init__(self, matrix: AttentionMatrix) -> None:
        self._visibility = matrix.visibility
        self._bias = matrix.bias if can_hide(matrix.bias) else None
        self._bands: dict[tuple[int, int, int], Tensor] = {}

    def clear(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        """Set the entries of hidden keys to 0, in place; `values` is (batch, head, rows, cols) and finite."""
        seen = self._visibility
        if seen.banded:
            self._clear_band(values, rows, cols)
        allowed = seen.masked_tile(rows, cols)
        if allowed is not None:
            values.masked_fill_(~allowed, 0)
        if isinstance(self._bias, Tensor):
            values.masked_fill_(hidden_by(take(take(self._bias.detach(), 2, rows), 3, cols)), 0)
        elif self._bias is not None:
            values.masked_fill_(hidden_by(seen.evaluate(self._bias, rows, cols)), 0)

    def _clear_band(self, values: Tensor, rows: Indices, cols: Indices) -> None:
        if not (isinstance(rows, slice) and isinstance(cols, slice)):
            values.mul_(self._visibility.band(rows, cols))
        elif not self._visibility.whole(rows, cols):
            # Tiles on the diagonal all look alike.
            like = (rows.start - cols.start, values.shape[2], values.shape[3])
            if like not in self._bands:
                self._bands[like] = self._visibility.band(rows, cols).to(values.dtype)
            values.mul_(self._bands[like])
