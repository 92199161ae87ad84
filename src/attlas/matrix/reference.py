"""The dense float64 reference: the specification of everything in this room, written straight from the formulas.

It makes n × n numbers on purpose and is as slow as it is plain. Tests compare every streamed answer with it; nothing
else uses it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attlas.matrix.visibility import Formula


def dense_attention(
    query: Tensor,
    key: Tensor,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    mask: Tensor | Formula | None = None,
    bias: Tensor | Formula | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return the attention matrix, dense; (batch, head, n_query, n_key).

    Parameters are those of `AttentionMatrix`; `dtype` is what is computed in. A lower one than float64 shows the error
    that a plain implementation makes, which is the yardstick for the streamed one.
    """
    query, key = query.to(dtype), key.to(dtype)
    batch, head, n_query, dim = query.shape
    n_key = key.shape[2]
    key = key.repeat_interleave(head // key.shape[1], dim=1)
    scores = query @ key.mT * (dim**-0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    device = query.device
    position = (torch.arange(n_query, device=device) + n_key - n_query).view(1, 1, -1, 1)
    column = torch.arange(n_key, device=device).view(1, 1, 1, -1)
    where = (torch.arange(batch, device=device).view(-1, 1, 1, 1), torch.arange(head, device=device).view(1, -1, 1, 1))
    if bias is not None:
        added = bias if isinstance(bias, Tensor) else bias(*where, position, column)
        hidden = added <= torch.finfo(added.dtype).min / 2
        scores = scores + added.to(dtype).masked_fill(hidden, -math.inf)
    seen = torch.ones_like(scores, dtype=torch.bool)
    if causal:
        seen = seen & (position >= column)
    if window is not None:
        near = position - column if causal else (position - column).abs()
        seen = seen & (near < window)
    if mask is not None:
        seen = seen & (mask if isinstance(mask, Tensor) else mask(*where, position, column))
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        sink = sinks.to(dtype).view(1, -1, 1, 1).expand(batch, head, n_query, 1)
        scores = torch.cat([scores, sink], dim=-1)
    top = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - torch.where(top.isfinite(), top, 0.0))
    total = weights.sum(-1, keepdim=True)
    weights = weights / torch.where(total > 0, total, 1.0)
    return weights[..., :n_key]


def dense_entropy(weights: Tensor) -> Tensor:
    """Return each row's entropy in nats."""
    return torch.special.entr(weights).sum(-1)


def dense_distance(weights: Tensor) -> Tensor:
    """Return how far each row looks on average, in tokens."""
    return (weights * _ahead(weights).abs()).sum(-1)


def dense_mass(weights: Tensor, window: int | None, sinks: int) -> Tensor:
    """Return the share of each row on near keys or on the first ones."""
    column = torch.arange(weights.shape[-1], device=weights.device)
    counted = (_ahead(weights).abs() < (window or 0)) | (column < sinks)
    return (weights * counted).sum(-1)


def dense_pool(weights: Tensor, size: tuple[int, int], reduce: str) -> Tensor:
    """Return the matrix shrunk to `size`, bin by bin: rows first, then columns."""
    shrink = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[reduce]
    rows, cols = (_edges(n, s) for n, s in zip(weights.shape[2:], size, strict=True))
    shrunk = torch.stack([shrink(weights[:, :, top:bottom], 2) for top, bottom in rows], 2)
    return torch.stack([shrink(shrunk[..., left:right], 3) for left, right in cols], 3)


def _edges(length: int, count: int) -> list[tuple[int, int]]:
    bins = [(i * length // count, (i + 1) * length // count) for i in range(count)]
    return [(start, max(stop, start + 1)) for start, stop in bins]


def _ahead(weights: Tensor) -> Tensor:
    n_query, n_key = weights.shape[2:]
    position = torch.arange(n_query, device=weights.device) + n_key - n_query
    return position.unsqueeze(-1) - torch.arange(n_key, device=weights.device)
