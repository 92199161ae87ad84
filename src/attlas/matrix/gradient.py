"""The gradient of any number with respect to an attention matrix: two thin factors, so as lazy as the matrix itself.

With ``O = A V``, the derivative of a loss with respect to the entry (i, j) is ``dO_i · V_j``, where dO is the gradient
that an ordinary backward pass leaves at the heads' outputs. No kernel has to show its weights for that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.hiding import Hiding
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.validation import check_finite
from attlas.matrix.visibility import Indices, take, take_heads, take_shared

if TYPE_CHECKING:
    from typing import Self


class AttentionGradient(AttentionOperator):
    """``∂L/∂A = dO · Vᵀ``, lazily; it has a sign.

    Parameters
    ----------
    matrix : AttentionMatrix, (batch, head, n_query, n_key)
        The matrix that the gradient is taken with respect to.
    gradient : Tensor, (batch, head, n_query, value_dim)
        dO: the loss's gradient with respect to the heads' outputs, before the output projection.
    value : Tensor, (batch, kv_head, n_key, value_dim)
        V: what was passed on; `kv_head` divides `head`.
    visible_only : bool
        Entries of hidden keys are 0, because there is no edge that could change: the default. False gives the bare
        product, which is what automatic differentiation of a dense implementation shows.

    Raises
    ------
    ArgumentError
        Shapes, dtypes or devices do not fit; `NonFiniteError` for NaN or infinity in `gradient` or `value`.

    Notes
    -----
    A tile is one product of width value_dim; no log-sum-exp is needed. Where the matrix has sinks, the gradient is that
    of the keys' entries.
    """

    def __init__(self, matrix: AttentionMatrix, gradient: Tensor, value: Tensor, *, visible_only: bool = True) -> None:
        _check(matrix, gradient, value)
        self.matrix = matrix
        self.gradient = gradient.detach()
        self.value = value.detach()
        self.visible_only = bool(visible_only)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.matrix.shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.gradient.dtype, self.value.dtype)

    @property
    def device(self) -> torch.device:
        return self.gradient.device

    @property
    def signed(self) -> bool:
        return True

    @property
    def nbytes(self) -> int:
        """Bytes that the gradient holds beside the matrix."""
        return sum(t.numel() * t.element_size() for t in (self.gradient, self.value))

    def narrow(self, batch: Indices, head: Indices) -> Self:
        # What was checked once is not checked again.
        new = object.__new__(type(self))
        new.matrix = self.matrix.narrow(batch, head)
        new.gradient = take_heads(self.gradient, batch, head)
        new.value = take_shared(self.value, self.shape[1], batch, head)
        new.visible_only = self.visible_only
        return new

    def reader(self) -> Reader:
        return _GradientReader(self)

    def columns(self, rows: slice) -> slice:
        return self.matrix.columns(rows) if self.visible_only else slice(0, self.shape[3])

    def occupied(self, rows: slice, cols: slice) -> bool:
        return not self.visible_only or self.matrix.occupied(rows, cols)


class _GradientReader(Reader):
    def __init__(self, of: AttentionGradient) -> None:
        self._gradient = of.gradient.to(of.accumulator)
        self._value = of.value.to(of.accumulator)
        self._groups = of.shape[1] // of.value.shape[1]
        self._hiding = Hiding(of.matrix) if of.visible_only else None
        self._buffer = self._value.new_empty(0)

    def tile(self, rows: Indices, cols: Indices, *, logs: bool = False) -> Tile:
        del logs
        gradient, value = take(self._gradient, 2, rows), take(self._value, 2, cols)
        batch, head = gradient.shape[:2]
        shape = (batch, head, gradient.shape[2], value.shape[2])
        size = math.prod(shape)
        if self._buffer.numel() < size:
            self._buffer = self._buffer.new_empty(size)
        out = self._buffer[:size].view(shape)
        if batch * head == 1:
            torch.mm(gradient[0, 0], value[0, 0].T, out=out[0, 0])
        else:
            if self._groups > 1:
                value = value.repeat_interleave(self._groups, dim=1)
            torch.bmm(gradient.flatten(0, 1), value.flatten(0, 1).mT, out=out.flatten(0, 1))
        if self._hiding is not None:
            self._hiding.clear(out, rows, cols)
        return Tile(out)


def _check(matrix: AttentionMatrix, gradient: Tensor, value: Tensor) -> None:
    if not isinstance(matrix, AttentionMatrix):
        raise ArgumentError(complaint("matrix", wanted="an AttentionMatrix", got=type(matrix).__name__))
    batch, head, n_query, n_key = matrix.shape
    for name, tensor, wanted in (
        ("gradient", gradient, f"(batch, head, n_query, value_dim) = ({batch}, {head}, {n_query}, value_dim)"),
        ("value", value, f"(batch, kv_head, n_key, value_dim) = ({batch}, kv_head, {n_key}, value_dim)"),
    ):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = getattr(tensor, "dtype", type(tensor).__name__)
            raise ArgumentError(complaint(name, wanted="a tensor of floats", got=got))
        length = n_query if name == "gradient" else n_key
        if tensor.ndim != 4 or tensor.shape[0] != batch or tensor.shape[2] != length:
            raise ArgumentError(complaint(name, wanted=f"shape {wanted}", got=f"shape {tuple(tensor.shape)}"))
        if tensor.device != matrix.device:
            raise ArgumentError(complaint(name, wanted=f"the matrix' device {matrix.device}", got=tensor.device))
    if gradient.shape[1] != head:
        raise ArgumentError(complaint("gradient", wanted=f"the matrix' {head} heads", got=gradient.shape[1]))
    if value.shape[1] == 0 or head % value.shape[1]:
        raise ArgumentError(
            complaint("value", wanted=f"a number of heads that divides the matrix' {head}", got=value.shape[1])
        )
    if value.shape[3] != gradient.shape[3] or value.shape[3] == 0:
        raise ArgumentError(
            complaint("value", wanted=f"the gradient's value_dim of {gradient.shape[3]}", got=value.shape[3])
        )
    check_finite("gradient", gradient)
    check_finite("value", value)
