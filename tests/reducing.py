"""Matrices of many shapes and rules, and their cells reduced by hand, for tests of tiles and maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attlas.matrix import AttentionMatrix


def random(n_query: int, n_key: int, heads: int = 2, **rules: object) -> AttentionMatrix:
    torch.manual_seed(n_query + n_key)
    return AttentionMatrix(torch.randn(1, heads, n_query, 8) * 2, torch.randn(1, 1, n_key, 8), **rules)  # pyright: ignore[reportArgumentType]


def nothing() -> None:
    return


def by_hand(dense: Tensor, even: Tensor, cell: int, reduce: str) -> Tensor:
    """Reduce a dense matrix to cells; the lift of those in which nothing can be seen is NaN."""
    mass, spread = cells(dense, cell, 0.0).sum((1, 3)), cells(even, cell, 0.0).sum((1, 3))
    if reduce == "max":
        return cells(dense, cell, -math.inf).amax((1, 3))
    if reduce == "mean":
        return mass / cells(torch.ones_like(dense), cell, 0.0).sum((1, 3))
    return mass if reduce == "mass" else torch.where(spread > 0, mass / spread.clamp(min=1e-300), math.nan)


def cells(dense: Tensor, cell: int, beyond: float) -> Tensor:
    """Cut a dense matrix into cells; (cells down, in a cell, cells across, in a cell)."""
    down, across = dense.shape
    padded = torch.nn.functional.pad(dense, (0, -across % cell, 0, -down % cell), value=beyond)
    return padded.unflatten(1, (-1, cell)).unflatten(0, (-1, cell))


PROBLEMS = {
    "causal": random(600, 600, causal=True),
    "window": random(700, 700, causal=True, window=40),
    "cross": random(130, 1100),
    "last rows": random(300, 777, causal=True),
    "more queries than keys": random(900, 300, causal=True),
    "masked": random(530, 530, mask=torch.arange(530).view(1, 1, 1, -1) > 100),
    "by head": random(280, 280, mask=torch.rand(1, 2, 280, 280) > 0.5),
    "small": random(90, 40),
}
