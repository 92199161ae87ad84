"""The even spread: what attention would be if every query looked at all keys it may see alike.

It is itself an attention matrix, of queries that are zero, so every question and every picture of it comes from the
same code as that of the real one. It is the baseline of what is said of a head, and what lift is relative to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attlas.matrix.hiding import can_hide, hidden_by
from attlas.matrix.pooling import PoolCells
from attlas.matrix.questions import ask
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Formula, Visibility

COUNTED = 2**20
"""Rows times cells that are counted at a time."""


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


def only_by_position(matrix: AttentionMatrix) -> bool:
    """Tell whether position alone decides which keys a query sees: then matrices of one shape are alike in that."""
    return matrix.visibility.mask is None and (matrix.bias is None or not can_hide(matrix.bias))


def seen_keys(even: AttentionMatrix) -> Tensor:
    """Return how many keys each query sees, given the even spread over them; (batch, head, n_query), whole numbers."""
    if not only_by_position(even):
        return torch.where(even.valid_rows, even.lse.exp().round(), 0.0)
    start, stop = _spans(even.visibility, slice(0, even.shape[2]), even)
    return (stop - start).to(even.accumulator).expand(even.shape[:3])


def even_cells(even: AttentionMatrix, width: int, rows: slice, cols: slice) -> Tensor:
    """Return what the even spread puts into each cell of `width` rows and columns of a part of the matrix.

    Parameters
    ----------
    even : AttentionMatrix
        What `even_spread` gave.
    width : int
        Of a cell; see `PoolCells`.
    rows, cols : slice
        The part; both begin at a multiple of `width`, and end at one or at the matrix' edge.

    Returns
    -------
    Tensor, (batch, head, cells down, cells across)

    Notes
    -----
    Where position alone decides what is seen, each row of a cell counts how many of its keys lie in it, and no entry is
    computed; else the entries are summed.
    """
    question = PoolCells(width, "sum", rows=rows, cols=cols)
    if not only_by_position(even):
        return ask(even, question)[0]
    question.check(even)
    step = max(1, COUNTED // (-(-(cols.stop - cols.start) // width)) // width) * width
    strips = [slice(first, min(first + step, rows.stop)) for first in range(rows.start, rows.stop, step)]
    cells = torch.cat([_counted(even, width, strip, cols) for strip in strips])
    return cells.expand(*even.shape[:2], *cells.shape)


def _counted(even: AttentionMatrix, width: int, rows: slice, cols: slice) -> Tensor:
    """Return what the even spread puts into some cells, by counting; (cells down, cells across)."""
    start, stop = _spans(even.visibility, rows, even)
    shares = 1 / (stop - start).clamp(min=1).to(even.accumulator)
    edges = torch.arange(cols.start, cols.stop + width, width, device=even.device).clamp(max=cols.stop)
    inside = torch.minimum(stop.unsqueeze(-1), edges[1:]) - torch.maximum(start.unsqueeze(-1), edges[:-1])
    each = inside.clamp(min=0) * shares.unsqueeze(-1)
    return torch.nn.functional.pad(each, (0, 0, 0, -len(each) % width)).unflatten(0, (-1, width)).sum(1)


def _spans(rules: Visibility, rows: slice, even: AttentionMatrix) -> tuple[Tensor, Tensor]:
    """Return from which key and up to which each of some rows sees, (rows,) each, judged by position alone."""
    position = torch.arange(rows.start, rows.stop, device=even.device) + rules.offset
    start, stop = torch.zeros_like(position), torch.full_like(position, rules.n_key)
    if rules.window is not None:
        start = position - rules.window + 1
        stop = position + rules.window
    if rules.causal:
        stop = position + 1
    start = start.clamp(min=0, max=rules.n_key)
    return start, torch.maximum(stop.clamp(min=0, max=rules.n_key), start)


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
