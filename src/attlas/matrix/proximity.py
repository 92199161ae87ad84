"""How near what a token passes on brings another one to what it becomes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.contributions import STRIP, Contributions
from attlas.matrix.gram import Triangles
from attlas.matrix.operator import Reader
from attlas.matrix.pairs import Diagonal, OfPairs, PairReader
from attlas.matrix.visibility import Indices

STEP = 2**17
"""Numbers of vectors that are made at a time on a CPU: half a megabyte, which stays in its cache."""

ACCELERATOR_STEP = 2**26


class Proximity(OfPairs):
    """``max(0, ‖y_i‖ − ‖y_i − T_ij‖)``: how much nearer to what it becomes token `i` is for token `j`; one head.

    Parameters
    ----------
    vectors : Contributions
        T.
    state : Tensor, (batch, n_query, width)
        y: what the layer makes of each token, everything that depends on no token included.
    order : {1, 2}
        Which norm: the sum of absolute values, as in ALTI, or the Euclidean length.

    Raises
    ------
    ArgumentError
        `state` or `order` does not fit.

    Notes
    -----
    Source: ALTI, Ferrando et al. 2022 (arXiv 2203.04212), before its rows are divided by their sums.

    Order 1 has no short form: every vector is made once, a few at a time, in O(head · width) for an entry. Its terms
    are taken as ``|y| − |y − t| = min(s t, 2|y| − s t)`` with s the sign of y, which does not lose small vectors beside
    a large state. Order 2 needs no vectors: O(head · (head + value_dim)) for an entry, in float64, because lengths are
    subtracted from each other there.
    """

    def __init__(self, vectors: Contributions, state: Tensor, order: Literal[1, 2] = 1) -> None:
        super().__init__(vectors)
        shape = (*vectors.matrix.shape[:1], vectors.matrix.shape[2], vectors.width)
        if not isinstance(state, Tensor) or tuple(state.shape) != shape:
            raise ArgumentError(complaint("state", wanted=f"shape {shape}", got=getattr(state, "shape", state)))
        if order not in (1, 2):
            raise ArgumentError(complaint("order", wanted="1 or 2", got=order))
        self.state = state
        self.order: Literal[1, 2] = order
        self._triangles: Triangles | None = None
        self._heard: Tensor | None = None

    @property
    def triangles(self) -> Triangles:
        """The tokens' triangular factors, which order 2 needs; computed on first use and kept."""
        if self._triangles is None:
            self._triangles = Triangles.of(self.vectors, torch.float64)
        return self._triangles

    @property
    def heard(self) -> Tensor:
        """``y_i (W^h)ᵀ``, (batch, head, n_query, value_dim): its product with v is ⟨y_i, v_j^h W^h⟩, for order 2."""
        if self._heard is None:
            self._heard = self.state.detach().double().unsqueeze(1) @ self.vectors.output.detach().double().mT
        return self._heard

    def of_batch(self, batch: Indices) -> Proximity:
        narrowed = Proximity(self.vectors.narrow(batch), self.state[batch], self.order)
        narrowed._triangles = None if self._triangles is None else self._triangles.narrow(batch)
        narrowed._heard = None if self._heard is None else self._heard[batch]
        return narrowed

    def prepare(self) -> None:
        super().prepare()
        if self.order == 2:
            _ = self.triangles, self.heard

    def reader(self) -> Reader:
        return _Sums(self) if self.order == 1 else _Lengths(self)


class _Sums(PairReader):
    """Order 1: the vectors of a few keys at a time, a strip of their width at a time."""

    def __init__(self, of: Proximity) -> None:
        vectors = of.vectors
        super().__init__(of, of.accumulator, max(1, STRIP // (vectors.matrix.shape[1] * vectors.width)))
        self._state = of.state
        self._written: tuple[Indices, Tensor] | None = None
        self._step = STEP if of.device.type == "cpu" else ACCELERATOR_STEP
        self._buffers = (of.state.new_empty(0, dtype=self.dtype), of.state.new_empty(0, dtype=self.dtype))

    def part(self, weights: Tensor, rows: Indices, cols: Indices, diagonal: Diagonal | None) -> Tensor:
        vectors = self.vectors
        state = self._state[:, rows].detach().to(self.dtype)
        sign, twice = state.sign(), state.abs().mul_(2)
        outer = vectors.factor("outer", rows, self.dtype)
        if outer is not None:
            weights.mul_(outer[:, None, :, None])
        # (batch, cols, rows, head): a small product for each key.
        weights = weights.permute(0, 3, 2, 1).contiguous()
        written = self._all_written(cols)
        batch, n_cols, n_rows, _ = weights.shape
        total = weights.new_zeros((batch, n_cols, n_rows))
        width = min(vectors.width, max(1, self._step // n_rows))
        keys = max(1, self._step // (batch * n_rows * width))
        own = self._own(rows, outer, diagonal)
        for first in range(0, n_cols, keys):
            some = slice(first, min(first + keys, n_cols))
            for start in range(0, vectors.width, width):
                strip = slice(start, min(start + width, vectors.width))
                shape = (batch, some.stop - some.start, n_rows, strip.stop - strip.start)
                made, rest = self._room(shape)
                torch.matmul(weights[:, some], written[:, some, :, strip], out=made)
                if diagonal is not None and own is not None:
                    here = (diagonal.cols >= some.start) & (diagonal.cols < some.stop)
                    if bool(here.any()):
                        made[:, diagonal.cols[here] - some.start, diagonal.rows[here]] += own[:, here, strip]
                made.mul_(sign[:, None, :, strip])
                torch.sub(twice[:, None, :, strip], made, out=rest)
                total[:, some] += torch.minimum(made, rest, out=made).sum(-1)
        return total.clamp_(min=0).mT

    def _all_written(self, cols: Indices) -> Tensor:
        """Return what heads write of some keys, (batch, keys, head, width); kept, for the rows that come next."""
        if self._written is None or self._written[0] is not cols:
            self._written = cols, self.vectors.written(cols).transpose(1, 2)
        return self._written[1]

    def _own(self, rows: Indices, outer: Tensor | None, diagonal: Diagonal | None) -> Tensor | None:
        """Return what the tokens on the diagonal hand on to themselves, (batch, crossings, width)."""
        if diagonal is None or self.vectors.residual is None:
            return None
        own = self.vectors.residual[:, diagonal.queries].detach().to(self.dtype)
        return own if outer is None else own * outer[:, diagonal.rows].unsqueeze(-1)

    def _room(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        size = torch.Size(shape).numel()
        if self._buffers[0].numel() < size:
            self._buffers = (self._buffers[0].new_empty(size), self._buffers[0].new_empty(size))
        made, rest = (buffer[:size].view(shape) for buffer in self._buffers)
        return made, rest


class _Lengths(PairReader):
    """Order 2: ``‖y‖ − ‖y − T‖ = (2⟨y, T⟩ − ‖T‖²) / (‖y‖ + ‖y − T‖)``, of inner products alone."""

    def __init__(self, of: Proximity) -> None:
        super().__init__(of, torch.float64)
        self._state = of.state
        self._triangles = of.triangles
        self._heard = of.heard

    def part(self, weights: Tensor, rows: Indices, cols: Indices, diagonal: Diagonal | None) -> Tensor:
        vectors = self.vectors
        state = self._state[:, rows].detach().double()
        heard = self._heard[:, :, rows]
        value = vectors.value[:, :, cols].detach().double()
        squares = self._triangles.squares(weights, cols, diagonal)
        along = torch.zeros_like(squares)
        for h in range(weights.shape[1]):
            along.addcmul_(heard[:, h] @ value[:, h // vectors.group].mT, weights[:, h])
        if diagonal is not None and vectors.residual is not None:
            own = vectors.residual[:, diagonal.queries].detach().double()
            along[:, diagonal.rows, diagonal.cols] += (state[:, diagonal.rows] * own).sum(-1)
        if (outer := vectors.factor("outer", rows, self.dtype)) is not None:
            along.mul_(outer.unsqueeze(-1))
            squares.mul_(outer.square().unsqueeze(-1))
        size = state.square().sum(-1, keepdim=True)
        nearer = along.mul_(2).sub_(squares)
        left = (size - nearer).clamp_(min=0).sqrt_()
        return nearer.div_(left.add_(size.sqrt()).clamp_(min=torch.finfo(self.dtype).tiny)).clamp_(min=0)
