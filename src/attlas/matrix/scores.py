"""Scores of one tile, in base 2 and relative to a number per row.

Everything that turns a query and a key into a score happens here, and nowhere else: scale, soft cap, bias, visibility.
Two choices make it fast. Scores carry a factor log2(e), because ``exp2`` costs about a third of ``exp`` on a CPU. And
the number that is subtracted from a row (its log-sum-exp, or the largest score so far) rides in the product itself: it
is appended to the query, and 1 to the key, which saves a pass over the tile. It rides in two parts, the largest score
and the logarithm of the sum relative to it, so that entries are computed by the same roundings as the sum they are
divided by, and rows sum to 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attlas.matrix.visibility import Indices, take

if TYPE_CHECKING:
    from attlas.matrix.softmax import AttentionMatrix

LOG2E = math.log2(math.e)

HIDDEN = -1e30
"""The base-2 score of a key that may not be seen: its ``exp2`` is exactly 0, and 0 times it is not NaN."""


class Scores:
    """The scores of one block of heads, given tile by tile.

    Parameters
    ----------
    matrix : AttentionMatrix
        The heads to give scores of.
    dtype : torch.dtype
        float32 or float64: what scores are computed in.
    shift : Tensor, (batch, head, n_query, 2), optional
        What is subtracted from each row, in base-2 units, in two parts; `relative_to` sets it later.
    """

    def __init__(self, matrix: AttentionMatrix, dtype: torch.dtype, shift: Tensor | None = None) -> None:
        self.dtype = dtype
        self._matrix = matrix
        self._shift = matrix.query.new_zeros((*matrix.shape[:3], 2), dtype=dtype) if shift is None else shift.to(dtype)
        self._groups = matrix.shape[1] // matrix.key.shape[1]
        self._keys: dict[tuple[int, int], Tensor] = {}
        self._strip: tuple[slice, Tensor] | None = None
        self._bands: dict[tuple[int, int, int], Tensor] = {}
        self._buffer = matrix.query.new_empty(0, dtype=dtype)

    def relative_to(self, rows: slice, shift: Tensor) -> None:
        """Subtract `shift`, in base-2 units and (batch, head, rows), from these rows' scores from now on."""
        self._shift[:, :, rows, 0] = shift
        if self._strip is not None and self._strip[0] == rows and not self._matrix.softcap:
            self._strip[1][..., -2] = -shift

    def tile(self, rows: Indices, cols: Indices) -> Tensor:
        """Return log2(e) · score − shift, and `HIDDEN` or about it where a key may not be seen.

        Returns
        -------
        Tensor, (batch, head, rows, cols)
            Lent memory: the next tile overwrites it.
        """
        matrix = self._matrix
        x = self.raw_tile(rows, cols)
        if matrix.softcap:
            first, second = _select(self._shift, rows).split(1, dim=-1)
            x.tanh_().mul_(matrix.softcap * LOG2E).sub_(first).sub_(second)
        if matrix.bias is not None:
            x.add_(self._bias_tile(rows, cols), alpha=LOG2E)
            # A bias of minus infinity hides a key; a finite number in its place keeps products with it free of NaN.
            x.clamp_(min=HIDDEN)
        if matrix.visibility.banded:
            self._hide_band(x, rows, cols)
        seen = matrix.visibility.masked_tile(rows, cols)
        if seen is not None:
            x.masked_fill_(~seen, HIDDEN)
        return x

    def raw_tile(self, rows: Indices, cols: Indices) -> Tensor:
        """Return the product alone: log2(e) · scale · q·k − shift; under a soft cap, what its tanh is applied to."""
        query, key = self._query(rows), self._key(cols)
        batch, head = query.shape[:2]
        shape = (batch, head, query.shape[2], key.shape[2])
        size = math.prod(shape)
        if self._buffer.numel() < size:
            self._buffer = self._buffer.new_empty(size)
        out = self._buffer[:size].view(shape)
        if batch * head == 1:
            torch.mm(query[0, 0], key[0, 0].T, out=out[0, 0])
            return out
        if self._groups > 1:
            key = key.repeat_interleave(self._groups, dim=1)
        torch.bmm(query.flatten(0, 1), key.flatten(0, 1).mT, out=out.flatten(0, 1))
        return out

    def _query(self, rows: Indices) -> Tensor:
        """Return some rows' queries with scale and shift folded in.

        The last strip is kept, because all its tiles follow one another.
        """
        if self._strip is not None and isinstance(rows, slice) and self._strip[0] == rows:
            return self._strip[1]
        matrix = self._matrix
        factor = matrix.scale / matrix.softcap if matrix.softcap else matrix.scale * LOG2E
        query = _with_room(_select(matrix.query.detach(), rows), self.dtype)
        query[..., :-2] *= factor
        query[..., -2:] = 0 if matrix.softcap else -_select(self._shift, rows)
        if isinstance(rows, slice):
            self._strip = rows, query
        return query

    def _key(self, cols: Indices) -> Tensor:
        """Return some columns' keys with ones behind them; kept, because every strip of rows needs them."""
        span = (cols.start, cols.stop) if isinstance(cols, slice) else None
        if span in self._keys:
            return self._keys[span]
        key = _with_room(_select(self._matrix.key.detach(), cols), self.dtype)
        key[..., -2:] = 1
        if span is not None:
            self._keys[span] = key
        return key

    def _hide_band(self, x: Tensor, rows: Indices, cols: Indices) -> None:
        visibility = self._matrix.visibility
        if not (isinstance(rows, slice) and isinstance(cols, slice)):
            seen = visibility.band(rows, cols)
            x.masked_fill_(~seen, HIDDEN)
        elif not visibility.whole(rows, cols):
            # Tiles on the diagonal all look alike, and adding costs a tenth of filling.
            like = (rows.start - cols.start, x.shape[2], x.shape[3])
            if like not in self._bands:
                self._bands[like] = x.new_zeros(x.shape[2:]).masked_fill_(~visibility.band(rows, cols), HIDDEN)
            x.add_(self._bands[like])

    def _bias_tile(self, rows: Indices, cols: Indices) -> Tensor:
        matrix = self._matrix
        if isinstance(matrix.bias, Tensor):
            bias = take(take(matrix.bias.detach(), 2, rows), 3, cols)
        elif matrix.bias is not None:
            bias = matrix.visibility.evaluate(matrix.bias, rows, cols)
        else:
            return self._buffer.new_zeros(1)
        # Many models write "hidden" as the lowest finite number; a row of nothing else must come out as zeros, not as
        # an even spread.
        lowest = torch.finfo(bias.dtype).min / 2
        return bias.to(self.dtype).masked_fill(bias <= lowest, -math.inf)


def _with_room(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy with room for two more numbers at the end of each row."""
    wider = tensor.new_empty((*tensor.shape[:-1], tensor.shape[-1] + 2), dtype=dtype)
    wider[..., :-2] = tensor
    return wider


def _select(tensor: Tensor, rows: Indices) -> Tensor:
    return tensor[:, :, rows] if isinstance(rows, slice) else tensor.index_select(2, rows.to(tensor.device))
