"""By how much entries of a softmax may be off, in rounding steps: what a tolerance for them has to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def steps(query: Tensor, key: Tensor, rules: Mapping[str, Any]) -> float:
    """Return by how many steps an entry of attention rounds, relative to itself; `rules` are `AttentionMatrix`'s.

    A score is rounded by as many steps as its terms are large, and an exponential by as much of itself as its exponent
    is off. A plain computation can do better by chance: in a row of one key it gives exactly 1, whatever the score.
    """
    return max(1.0, largest_score(query, key, rules))


def largest_score(query: Tensor, key: Tensor, rules: Mapping[str, Any]) -> float:
    """Bound the terms of scores: ‖q‖ ‖k‖ scale, what a bias adds, and what a sink competes with."""
    scale = rules.get("scale") or query.shape[-1] ** -0.5
    product = query.double().norm(dim=-1).max() * key.double().norm(dim=-1).max() * scale
    added = [_bias(query, key, rules.get("bias")), rules.get("sinks")]
    return float(product) + sum(float(one.abs().max()) for one in added if one is not None and one.numel())


def _bias(query: Tensor, key: Tensor, bias: Any) -> Tensor | None:
    """Return what a bias adds to scores, without what it hides."""
    if bias is None:
        return None
    if not isinstance(bias, Tensor):
        batch, head, n_query = (torch.arange(size) for size in query.shape[:3])
        keys = torch.arange(key.shape[2])
        position = n_query + len(keys) - len(n_query)
        bias = bias(batch.view(-1, 1, 1, 1), head.view(1, -1, 1, 1), position.view(1, 1, -1, 1), keys.view(1, 1, 1, -1))
    return bias[bias > torch.finfo(bias.dtype).min / 2]
