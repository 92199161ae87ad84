"""One captured layer: a matrix, the name of the module it belongs to, and the proof that it is that module's matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attlas.capture.probe import Probe, sample
from attlas.capture.visibility import Rule
from attlas.errors import AttlasError, CaptureError
from attlas.matrix import AttentionMatrix, RelativeBias

_CHECKED_ROWS = 8


@dataclass(frozen=True, eq=False)
class Layer:
    """One captured layer.

    Parameters
    ----------
    name : str
        The attention module's name in the model.
    query : Tensor, (batch, head, n_query, dim)
    key : Tensor, (batch, kv_head, n_key, dim)
    scale : float
    rule : Rule
        Which keys a query may see.
    bias : Tensor or RelativeBias, optional
    softcap : float, optional
    sinks : Tensor, (head,), optional
    lse : Tensor, (batch, head, n_query), optional
        The kernel's own log-sum-exp, minus infinity for rows that see nothing.
    probe : Probe
        The shadow of the kernel's output.
    values : Tensor, (batch, kv_head, n_key, value_dim), optional
    output : Tensor, (batch, head, n_query, value_dim), optional
    """

    name: str
    query: Tensor
    key: Tensor
    scale: float
    rule: Rule
    bias: Tensor | RelativeBias | None
    softcap: float | None
    sinks: Tensor | None
    lse: Tensor | None
    probe: Probe
    values: Tensor | None = None
    output: Tensor | None = None

    @cached_property
    def matrix(self) -> AttentionMatrix:
        """The layer's attention matrix."""
        try:
            matrix = AttentionMatrix(
                self.query,
                self.key,
                self.scale,
                causal=self.rule.causal,
                window=self.rule.window,
                mask=self.rule.mask,
                bias=self.bias,
                softcap=self.softcap,
                sinks=self.sinks,
            )
        except AttlasError as error:
            raise type(error)(f"{self.name}: {error}") from error
        return matrix if self.lse is None else matrix.with_lse(self.lse)

    @property
    def nbytes(self) -> int:
        """Bytes held, all of it together."""
        bias = self.bias.table if isinstance(self.bias, RelativeBias) else self.bias
        mask = self.rule.mask if isinstance(self.rule.mask, Tensor) else None
        held = (
            self.query,
            self.key,
            bias,
            mask,
            self.sinks,
            self.lse,
            self.probe.values,
            self.probe.output,
            self.values,
            self.output,
        )
        return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)

    def error(self, rows: int | None) -> tuple[float, float]:
        """Compare with the kernel's own output; `Probe.error` says how."""
        return self.probe.error(self.matrix, rows)

    def quick_error(self, rows: int) -> tuple[float, float]:
        """Compare a few rows with the kernel's own output, without any pass over the whole matrix."""
        chosen = sample(self.query.shape[2], rows).to(self.query.device)
        n_query, n_key = self.query.shape[2], self.key.shape[2]
        bias = self.bias
        if isinstance(bias, RelativeBias):
            heads = torch.arange(self.query.shape[1], device=chosen.device).view(1, -1, 1, 1)
            position = (chosen + n_key - n_query).view(1, 1, -1, 1)
            bias = bias(heads, heads, position, torch.arange(n_key, device=chosen.device).view(1, 1, 1, -1))
        elif bias is not None and bias.shape[2] > 1:
            bias = bias[:, :, chosen]
        try:
            few = AttentionMatrix(
                self.query[:, :, chosen],
                self.key,
                self.scale,
                mask=self.rule.seen(chosen, n_query, n_key),
                bias=bias,
                softcap=self.softcap,
                sinks=self.sinks,
            )
        except AttlasError as error:
            raise type(error)(f"{self.name}: {error}") from error
        if self.lse is not None:
            few = few.with_lse(self.lse[:, :, chosen])
        shadow = Probe(
            self.probe.values, self.probe.output[:, :, chosen], self.probe.precision, self.probe.score_precision
        )
        return shadow.error(few, None)

    def unproved(self) -> str:
        """Return why the matrix, on a few rows, does not reproduce its kernel's output; empty if it does."""
        error, tolerance = self.quick_error(_CHECKED_ROWS)
        if error <= tolerance:
            return ""
        return (
            f"its output is not the softmax of the scores that it was given (relative error {error:.1e}, "
            f"where rounding explains {tolerance:.1e})"
        )


def kept(tensor: Tensor | None, what: str, option: str, name: str) -> Tensor:
    """Return a tensor that is there only if it was asked for."""
    if tensor is None:
        raise CaptureError(f"{what} of {name}: not kept; capture with {option}=True")
    return tensor


def rounding_unit(dtype: torch.dtype) -> float:
    """Return the distance from 1 to the next number of this dtype."""
    return torch.finfo(dtype).eps if dtype.is_floating_point else math.inf
