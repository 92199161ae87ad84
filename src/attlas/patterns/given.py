"""What patterns are given: the matrix that they stand in for, and the values that are attended to."""

from __future__ import annotations

from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.softmax import AttentionMatrix


def check_exact(exact: AttentionMatrix) -> None:
    """Raise `ArgumentError` for what is no attention matrix, such as a dense tensor of one."""
    if not isinstance(exact, AttentionMatrix):
        way_out = "make one of queries and keys: attlas.AttentionMatrix(query, key, causal=True)"
        got = type(exact).__name__
        raise ArgumentError(complaint("exact", wanted="an AttentionMatrix", got=got, way_out=way_out))


def check_value(exact: AttentionMatrix, value: Tensor) -> None:
    """Raise `ArgumentError` if `value` is not (batch, kv_head, n_key, value_dim) for these heads."""
    check_exact(exact)
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
