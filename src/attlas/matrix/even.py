"""The even spread: what attention would be if every query looked at all keys it may see alike.

It is itself an attention matrix, of queries that are zero, so every question and every picture of it comes from the
same code as that of the real one. It is the baseline of what is said of a head, and what lift is relative to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attlas.matrix.hiding import can_hide, hidden_by
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Formula


def even_spread(matrix: AttentionMatrix) -> AttentionMatrix:
    """Return the matrix that spreads each row evenly over the keys that it may see.

    Parameters
    ----------
    matrix : AttentionMatrix
        Whose visibility to take: causal, window, mask, and the keys that a bias hides.

    Returns
    -------
    AttentionMatrix, (batch, head or 1, n_query, n_key)
        With one head where all heads of `matrix` see the same. Its `lse` is the logarithm of how many keys a row sees.

    Notes
    -----
    Costs nothing; its tiles are products of width 1.
    """
    batch, heads, n_query, n_key = matrix.shape
    rules = matrix.visibility
    hiding = _hiding(matrix)
    alike = _same_for_all_heads(rules.mask) and (hiding is None or _same_for_all_heads(matrix.bias))
    like = matrix.query.new_zeros(1, dtype=matrix.accumulator)
    return AttentionMatrix(
        like.new_zeros((batch, 1 if alike else heads, n_query, 1)),
        like.new_zeros((batch, 1, n_key, 1)),
        causal=rules.causal,
        window=rules.window,
        mask=_renumbered(rules.mask, matrix) if callable(rules.mask) else rules.mask,
        bias=hiding,
    )


def _same_for_all_heads(rule: Tensor | Formula | None) -> bool:
    return rule is None or (isinstance(rule, Tensor) and rule.shape[1] == 1)


def _hiding(matrix: AttentionMatrix) -> Formula | None:
    """Return a bias that hides what the matrix' own hides and changes nothing else; None if it hides nothing."""
    bias = matrix.bias
    if bias is None or not can_hide(bias):
        return None
    formula = _looked_up(bias, matrix.offset) if isinstance(bias, Tensor) else _renumbered(bias, matrix)

    def hide(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.where(hidden_by(formula(batch, head, query, key)), -math.inf, 0.0)

    return hide


def _looked_up(bias: Tensor, offset: int) -> Formula:
    """Return a bias tensor as a formula over positions, so that no copy of it is made."""

    def look_up(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        indices = (batch, head, query - offset, key)
        # An axis of size 1 broadcasts.
        return bias[tuple(i if size > 1 else i * 0 for i, size in zip(indices, bias.shape, strict=True))]

    return look_up


def _renumbered(formula: Formula, matrix: AttentionMatrix) -> Formula:
    """Let a formula see the batch elements and heads that it was made for: `matrix` may be a narrowed one."""
    batches, heads = matrix.visibility.batches, matrix.visibility.heads

    def renumbered(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return formula(batches[batch], heads[head], query, key)

    return renumbered
