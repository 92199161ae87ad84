"""Bootstrap samples: how often each of several things is drawn, with replacement, in each sample."""

from __future__ import annotations

import torch
from torch import Tensor


def times_drawn(count: int, resamples: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return how often each of `count` things is drawn in each sample of as many, (resamples, count)."""
    drawn = torch.randint(0, count, (resamples, count), generator=generator)
    times = torch.zeros(resamples, count, dtype=dtype)
    return times.scatter_add_(1, drawn, torch.ones_like(times))
