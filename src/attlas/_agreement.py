"""How well two numbers of the same things agree: correlation of values, and of ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pearson(first: Tensor, second: Tensor) -> float:
    """Return the correlation of two series, (n,); NaN where one of them is constant."""
    a, b = (series.double() - series.double().mean() for series in (first, second))
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else math.nan


def spearman(first: Tensor, second: Tensor) -> float:
    """Return the correlation of two series' ranks, (n,); equal values share their mean rank."""
    return pearson(ranks(first), ranks(second))


def ranks(values: Tensor) -> Tensor:
    """Return each value's rank from 1, (n,), float64; equal values share their mean rank."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
