"""Rotary position encoding: queries and keys are turned by angles that grow with their positions."""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10000.0
"""Of the wavelengths; the paper's."""


def rotated(states: Tensor, first: int = 0, base: float = BASE) -> Tensor:
    """Return queries or keys, turned so that their products depend on how far apart they are.

    Parameters
    ----------
    states : Tensor, (..., n, dim)
        `dim` is even: number i and number i + dim / 2 are a pair that is turned together, as in Llama.
    first : int
        The position of the first.
    base : float
        Pair i turns by ``position * base ** (-2 i / dim)``.

    Returns
    -------
    Tensor, (..., n, dim)
        In the dtype of `states`; angles and products are float32 at least.

    References
    ----------
    Su et al. (2021), "RoFormer: Enhanced transformer with rotary position embedding", arXiv 2104.09864, section 3.2.
    """
    n, dim = states.shape[-2:]
    # Half precision could not tell neighbouring positions of a long text apart.
    dtype = torch.promote_types(states.dtype, torch.float32)
    steps = torch.arange(0, dim, 2, dtype=dtype, device=states.device) / dim
    positions = torch.arange(first, first + n, dtype=dtype, device=states.device)
    angles = torch.outer(positions, base**-steps)
    cos, sin = angles.cos(), angles.sin()
    left, right = states.to(dtype).chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(states.dtype)
