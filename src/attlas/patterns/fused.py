"""PyTorch's fused kernel for CPUs, wherever its arithmetic is the matrix's own; it tells each row's log-sum-exp too."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own abbreviation
from torch import Tensor

from attlas.matrix import AttentionMatrix


def fused_fits(exact: AttentionMatrix, value: Tensor) -> bool:
    """Tell whether PyTorch's fused kernel for CPUs can answer this exactly, and with the gradients that are wanted."""
    seen = exact.visibility
    _, _, n_query, n_key = exact.shape
    same = exact.device.type == "cpu" and value.dtype == exact.dtype and value.shape[1] == exact.key.shape[1]
    if not same or exact.softcap or exact.bias is not None or n_query > n_key:
        return False
    if seen.mask is not None and _padding(exact) is None:
        return False
    wanted = (exact.query, exact.key, value, exact.sinks)
    recorded = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in wanted)
    # The kernel's log-sum-exp carries no gradient.
    return not recorded or (exact.sinks is None and (not seen.causal or n_query in (1, n_key)))


def _padding(exact: AttentionMatrix) -> Tensor | None:
    """Return a mask that says the same of all heads and rows, (batch or 1, 1, 1, n_key)."""
    mask = exact.visibility.mask
    if isinstance(mask, Tensor) and mask.shape[1] == mask.shape[2] == 1:
        return mask.expand(-1, -1, -1, exact.shape[3])
    return None


def fused(exact: AttentionMatrix, value: Tensor) -> Tensor:
    """Return ``exact @ value`` where `fused_fits`; NaN where a score overflows the kernel's precision."""
    n_query, n_key = exact.shape[2:]
    width = value.shape[3]
    dim = max(width, exact.query.shape[3])
    # The kernel wants values as wide as the keys; zeros change no score and no answer.
    query, key, value = (
        t if t.shape[3] == dim else F.pad(t, (0, dim - t.shape[3])) for t in (exact.query, exact.key, value)
    )
    if torch.is_grad_enabled() and (key.requires_grad or value.requires_grad):
        groups = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    padding = _padding(exact)
    before = n_key - n_query
    if not exact.visibility.causal or n_query == 1:
        out, lse = _kernel(query, key, value, exact.scale, padding, causal=False)
    elif before == 0:
        out, lse = _kernel(query, key, value, exact.scale, padding, causal=True)
    else:
        # The kernel's causal rule begins at the first key: so the keys before the queries' own are a call of their own.
        halves = []
        for keys, causal in ((slice(0, before), False), (slice(before, n_key), True)):
            own = None if padding is None else padding[..., keys]
            half = _kernel(query, key[:, :, keys], value[:, :, keys], exact.scale, own, causal=causal)
            halves.append((half[0], half[1].masked_fill(~_sees(own, n_query, causal=causal), -math.inf)))
        out, lse = _joined(*halves)
    if exact.sinks is not None:
        out = out * torch.sigmoid(lse - exact.sinks.to(lse.dtype).view(1, -1, 1)).unsqueeze(-1).to(out.dtype)
    return out[..., :width]


def _kernel(
    query: Tensor, key: Tensor, value: Tensor, scale: float, padding: Tensor | None, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Call PyTorch's fused kernel for CPUs, which gives the log-sum-exp too; rows that see nothing are 0."""
    mask = None
    if padding is not None and not bool(padding.all()):
        mask = torch.zeros(padding.shape, dtype=query.dtype).masked_fill_(~padding, -math.inf)
    query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=mask, scale=scale
    )
    return out, lse


def _sees(padding: Tensor | None, n_query: int, *, causal: bool) -> Tensor:
    """Tell which rows see any of some keys: boolean, broadcastable to (batch, head, n_query)."""
    if padding is None:
        return torch.ones(1, 1, 1, dtype=torch.bool)
    seen = padding[:, :, 0]
    # Under causal order these keys are the queries' own positions.
    return seen.cummax(-1).values if causal else seen.any(-1, keepdim=True).expand(-1, -1, n_query)


def _joined(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Join what rows give to two sets of keys, by their log-sum-exps."""
    (a, lse_a), (b, lse_b) = first, second
    lse = torch.logaddexp(lse_a, lse_b)
    shares = [torch.exp(part - lse).nan_to_num(0.0).unsqueeze(-1) for part in (lse_a, lse_b)]
    return (a * shares[0] + b * shares[1]).to(a.dtype), lse
