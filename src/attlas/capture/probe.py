"""Proof that a captured matrix is the one that the kernel used: a thin shadow of the kernel's own output.

Following Freivalds, the values V and the output O = A·V are both projected on a few fixed random directions R. The
shadows V·R and O·R are four numbers a token and head, so every capture can keep them, and A·(V·R) = O·R can be checked
at any later time on any row, from the q and k that are stored, without V and without the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from attlas.matrix import AttentionMatrix

DIRECTIONS = 4
_SEED = 20
_TILE_ENTRIES = 2**24


@lru_cache(maxsize=64)
def directions(width: int) -> Tensor:
    """Return the fixed directions for vectors of this width: (width, 4), entries ±1/√width."""
    generator = torch.Generator().manual_seed(_SEED)
    signs = torch.randint(0, 2, (width, DIRECTIONS), generator=generator) * 2 - 1
    return signs.to(torch.float64) / width**0.5


def shadow_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of shadows: float64 for float64, float32 for all else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def shadow(vectors: Tensor) -> Tensor:
    """Project the last axis on the fixed directions; the result is of `shadow_dtype`."""
    if vectors.dim() == 4 and not vectors.is_contiguous() and vectors.transpose(1, 2).is_contiguous():
        # As models lay it out, heads next to one another: one product for all of them.
        return shadow(vectors.transpose(1, 2)).transpose(1, 2).contiguous()
    dtype = shadow_dtype(vectors.dtype)
    return vectors.detach().to(dtype) @ directions(vectors.shape[-1]).to(vectors.device, dtype)


@dataclass(frozen=True, eq=False)
class Probe:
    """The shadows of one layer's values and output.

    Parameters
    ----------
    values : Tensor, (batch, kv_head, n_key, 4)
        V·R.
    output : Tensor, (batch, head, n_query, 4)
        O·R. With a head axis of size 1 before several heads, the sum over heads: code that projects its heads together
        shows no more.
    precision : float
        The rounding unit of the dtype that the kernel gave its output in, and of the stored q and k.
    score_precision : float
        The rounding unit of the kernel's scores: float32's in a fused kernel, whatever the dtype.
    """

    values: Tensor
    output: Tensor
    precision: float
    score_precision: float

    def error(self, matrix: AttentionMatrix, rows: int | None) -> tuple[float, float]:
        """Compare the matrix with the kernel's output on sampled rows.

        Parameters
        ----------
        matrix : AttentionMatrix
            The captured matrix.
        rows : int, optional
            How many rows: the first, the last, and the rest at random (the same ones each time). None for all.

        Returns
        -------
        error, tolerance : float
            The worst of ``|A·(V·R) − O·R|`` relative to ``Σ_j A_ij ‖(V·R)_j‖``, over batch elements, heads and rows,
            and what rounding can explain. Rows that see nothing are left out. Not a number becomes infinity.
        """
        _, heads, n_query, n_key = matrix.shape
        values = self.values.repeat_interleave(heads // self.values.shape[1], dim=1)
        chosen = sample(n_query, rows)
        height = max(1, _TILE_ENTRIES // max(1, matrix.shape[0] * heads * n_key))
        worst = tolerance = 0.0
        for part in chosen.split(height):
            error, allowed = self._part(matrix, values, part)
            worst, tolerance = max(worst, error), max(tolerance, allowed)
        return worst, tolerance

    def _part(self, matrix: AttentionMatrix, values: Tensor, rows: Tensor) -> tuple[float, float]:
        rows = rows.to(values.device)
        tile = _rows_of(matrix, rows).to(values.dtype)
        found, size = tile @ values, tile @ values.norm(dim=-1, keepdim=True)
        kernel = self.output[:, :, rows]
        if kernel.shape[1] < found.shape[1]:
            found, size = found.sum(1, keepdim=True), size.sum(1, keepdim=True)
        difference = (found - kernel).abs() / size.clamp(min=torch.finfo(size.dtype).tiny)
        counts = (
            matrix.valid_rows[:, :, rows].any(1, keepdim=True)
            if kernel.shape[1] < tile.shape[1]
            else matrix.valid_rows[:, :, rows]
        )
        difference = difference[counts.unsqueeze(-1).expand_as(difference)]
        if difference.numel() == 0:
            return 0.0, self.precision
        worst = float(difference.nan_to_num(nan=float("inf")).max())
        # A score is a sum of products, each rounded: its error is a few rounding units of |q|·|k|·scale.
        query, key = matrix.query[:, :, rows].to(values.dtype), matrix.key.to(values.dtype)
        largest = float(query.norm(dim=-1).max() * key.norm(dim=-1).max()) * matrix.scale
        return worst, 16 * self.precision + 8 * self.score_precision * largest


def _rows_of(matrix: AttentionMatrix, rows: Tensor) -> Tensor:
    tile = matrix[:, :, rows, :]
    if not isinstance(tile, Tensor):
        raise TypeError("rows of a matrix are a tensor")
    return tile


def sample(n_rows: int, rows: int | None) -> Tensor:
    """Return which rows to look at: the first, the last, and others at random, always the same."""
    if rows is None or rows >= n_rows:
        return torch.arange(n_rows)
    generator = torch.Generator().manual_seed(_SEED)
    inner = torch.randperm(max(n_rows - 2, 0), generator=generator)[: max(rows - 2, 0)] + 1
    ends = torch.tensor([n_rows - 1, 0][:rows])
    return torch.cat([ends, inner]).unique()
