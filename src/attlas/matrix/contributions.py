"""What each token passes on to each other one, as vectors: kept as their factors, never as n × n × width numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.entries import entries
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Indices

STRIP = 2**21
"""Numbers of written values that are held at a time: 8 MiB in float32."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """The vectors ``T_ij = outer_i · (inner_i · Σ_h A^h_ij · v_j^h W^h + [j is i] · residual_i)`` of one layer.

    ``v_j^h W^h`` is what head `h` writes of token `j`. The sum over `j` of the vectors is what the layer makes of token
    `i`, but for what does not depend on any token (output bias, a norm's bias).

    Parameters
    ----------
    matrix : AttentionMatrix, (batch, head, n_query, n_key)
        A.
    value : Tensor, (batch, kv_head, n_key, value_dim)
        v; `kv_head` divides `head`.
    output : Tensor, (head, value_dim, width)
        W, with whatever is linear behind it folded in: a norm's gain and centring.
    residual : Tensor, (batch, n_query, width), optional
        What a token hands on to itself past the attention, with the same folded in.
    inner, outer : Tensor, (batch, n_query), optional
        Factors of each row: what norms divide by, of the attention's part alone and of all. 1 by default.

    Raises
    ------
    ArgumentError
        Shapes do not fit each other.
    """

    matrix: AttentionMatrix
    value: Tensor
    output: Tensor
    residual: Tensor | None = None
    inner: Tensor | None = None
    outer: Tensor | None = None

    def __post_init__(self) -> None:
        batch, head, n_query, n_key = self.matrix.shape
        kv_head = self.value.shape[1] if self.value.ndim == 4 else 0
        if kv_head < 1 or head % kv_head or (self.value.shape[0], self.value.shape[2]) != (batch, n_key):
            wanted = f"(batch {batch}, a divisor of {head} heads, n_key {n_key}, value_dim)"
            raise ArgumentError(complaint("value", wanted=wanted, got=f"shape {tuple(self.value.shape)}"))
        if self.output.ndim != 3 or self.output.shape[:2] != (head, self.value.shape[3]):
            wanted = f"(head {head}, value_dim {self.value.shape[3]}, width)"
            raise ArgumentError(complaint("output", wanted=wanted, got=f"shape {tuple(self.output.shape)}"))
        shapes = {
            "residual": (batch, n_query, self.width),
            "inner": (batch, n_query),
            "outer": (batch, n_query),
        }
        for name, shape in shapes.items():
            given = getattr(self, name)
            if given is not None and tuple(given.shape) != shape:
                raise ArgumentError(complaint(name, wanted=f"shape {shape}", got=f"shape {tuple(given.shape)}"))

    @property
    def width(self) -> int:
        """How wide the vectors are."""
        return self.output.shape[2]

    @property
    def group(self) -> int:
        """How many heads share one head of values."""
        return self.matrix.shape[1] // self.value.shape[1]

    def narrow(self, batch: Indices) -> Contributions:
        """Return those of some batch elements."""
        size = self.matrix.shape[0]
        if isinstance(batch, slice) and batch.stop - batch.start == size:
            return self
        parts = (self.value, self.residual, self.inner, self.outer)
        value, residual, inner, outer = (None if t is None else t[batch] for t in parts)
        matrix = self.matrix.narrow(batch, slice(0, self.matrix.shape[1]))
        return replace(self, matrix=matrix, value=value, residual=residual, inner=inner, outer=outer)

    def written(self, keys: Indices, dtype: torch.dtype | None = None) -> Tensor:
        """Return what each head writes of some tokens, ``v_j^h W^h``; (batch, head, keys, width).

        Computed in `dtype`, by default that of the matrix's sums.
        """
        value = self.value[:, :, keys].detach().to(dtype or self.matrix.accumulator)
        output = self.output.detach().to(value)
        return value.repeat_interleave(self.group, dim=1) @ output

    def gathered(self, rows: Tensor) -> Tensor:
        """Return the sum of all that some rows are given, ``Σ_j T_ij``; (batch, rows, width).

        Costs the rows of every head, dense.
        """
        weights = self.matrix[:, :, rows.tolist(), :]
        if not isinstance(weights, Tensor):
            raise ArgumentError(complaint("rows", wanted="row numbers", got="none"))
        value = self.value.detach().to(weights.dtype).repeat_interleave(self.group, dim=1)
        return self._joined(weights @ value, rows)

    def of_heads(self, heads: Tensor) -> Tensor:
        """Return ``Σ_j T_ij`` of every row from what the heads gave, ``A^h v^h``; (batch, n_query, width).

        Parameters
        ----------
        heads : Tensor, (batch, head, n_query, value_dim)
        """
        return self._joined(heads, torch.arange(self.matrix.shape[2], device=heads.device))

    def own(self) -> Tensor:
        """Return what each token keeps, ``T_ii``; (batch, n_query, width)."""
        _, _, n_query, _ = self.matrix.shape
        rows = torch.arange(n_query, device=self.matrix.device)
        keys = rows + self.matrix.offset
        weights = entries(self.matrix, rows, keys).unsqueeze(-1)
        value = self.value.detach().to(weights.dtype).index_select(2, keys).repeat_interleave(self.group, dim=1)
        return self._joined(weights * value, rows)

    def factor(self, name: str, rows: Indices, dtype: torch.dtype) -> Tensor | None:
        """Return some rows' `inner` or `outer` factors, (batch, rows)."""
        factors = getattr(self, name)
        return None if factors is None else factors.detach()[:, rows].to(dtype)

    def _joined(self, heads: Tensor, rows: Tensor) -> Tensor:
        """Project heads' vectors (batch, head, rows, value_dim), add them up, and do to them what the layer does."""
        made = heads.transpose(1, 2).flatten(2) @ self.output.detach().flatten(0, 1).to(heads.dtype)
        if (inner := self.factor("inner", rows, made.dtype)) is not None:
            made *= inner.unsqueeze(-1)
        if self.residual is not None:
            made += self.residual.detach()[:, rows].to(made.dtype)
        if (outer := self.factor("outer", rows, made.dtype)) is not None:
            made *= outer.unsqueeze(-1)
        return made
