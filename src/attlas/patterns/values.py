"""What values must be, to be attended to by some heads."""

from __future__ import annotations

from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.softmax import AttentionMatrix


def check_value(exact: AttentionMatrix, value: Tensor) -> None:
    """Raise `ArgumentError` if `value` is not (batch, kv_head, n_key, value_dim) for these heads."""
    batch, head, _, n_key = exact.shape
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = getattr(value, "dtype", type(value).__name__)
        raise ArgumentError(complaint("value", wanted="a tensor of floats", got=got))
    if value.ndim != 4 or value.shape[0] != batch or value.shape[2] != n_key or 0 in value.shape:
        wanted = f"shape ({batch}, kv_head, {n_key}, value_dim)"
        raise ArgumentError(complaint("value", wanted=wanted, got=f"shape {tuple(value.shape)}"))
    if head % value.shape[1]:
        wanted = f"a number of heads that divides the matrix' {head}"
        raise ArgumentError(complaint("value", wanted=wanted, got=value.shape[1]))
    if value.device != exact.device:
        raise ArgumentError(complaint("value", wanted=f"the matrix' device {exact.device}", got=value.device))
