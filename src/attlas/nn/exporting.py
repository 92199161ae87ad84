"""What a layer is in an exported graph, where no choice may depend on numbers: full attention under one dense mask.

The kernels of patterns look at what they compute to choose how, and stream over tiles; a graph of `torch.export`, and
with it one of ONNX, cannot. A window can be said as a mask, at the price of full attention.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.bias import ALiBi
from attlas.patterns import Dilated, Full, Pattern, SlidingWindow
from attlas.patterns.keep import FixedKeep


def dense_mask(
    pattern: Pattern, q: Tensor, k: Tensor, seen: Tensor | None, bias: Tensor | ALiBi | None, *, causal: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the mask under which full attention is what a pattern computes.

    Parameters
    ----------
    pattern : Pattern
        Full attention, or a window: nothing else can be said for any length.
    q, k : Tensor, (batch, heads, n_query, dim) and (batch, kv_heads, n_key, dim)
    seen : Tensor, broadcastable to (batch, heads, n_query, n_key), optional
        Booleans of the caller's: True = may be seen.
    bias : Tensor, broadcastable likewise, or ALiBi, optional
        What is added to scores.
    causal : bool
        Hide every key after the query; queries are the last rows.

    Returns
    -------
    seen : Tensor, broadcastable to (batch, heads, n_query, n_key)
        Booleans, True = seen.
    added : Tensor, broadcastable likewise, or None
        What is added to scores, -inf for what is not seen; None where nothing but that is.

    Raises
    ------
    ArgumentError
        The pattern is another.
    """
    n_query, n_key = q.shape[2], k.shape[2]
    query = (torch.arange(n_query, device=q.device) + (n_key - n_query)).view(1, 1, -1, 1)
    key = torch.arange(n_key, device=q.device).view(1, 1, 1, -1)
    first = key.new_zeros(1, 1, 1, 1)
    kept = key <= query if causal else (key >= 0).expand(1, 1, n_query, n_key)
    if not isinstance(pattern, Full):
        kept = kept & _keep(pattern, n_key, causal=causal)(first, first, query, key)
    kept = kept if seen is None else kept & seen
    if isinstance(bias, ALiBi):
        bias = bias(first, torch.arange(q.shape[1], device=q.device).view(1, -1, 1, 1), query, key).to(q.dtype)
    return kept, None if bias is None else bias.masked_fill(~kept, -torch.inf)


def _keep(pattern: Pattern, n_key: int, *, causal: bool) -> FixedKeep:
    """Return which keys a window keeps in a matrix of this width, which may be a symbol."""
    # Only windows are formulas over positions that hold for any length; blocks and tokens are tables for one.
    if not isinstance(pattern, SlidingWindow | Dilated):
        raise ArgumentError(
            complaint(
                "pattern",
                wanted="full attention or a window, to export",
                got=str(pattern),
                way_out="give a layer with full attention these weights, and export that",
            )
        )
    return pattern.at(n_key, causal=causal)
