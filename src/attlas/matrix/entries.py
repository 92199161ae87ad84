"""Some entries of a matrix, and what chosen rows give to chosen sets of keys, without the rest of it.

What a detector asks of a head is often a line or a few points: the key just before each query, the place where the same
token stood last. Those are gathered one by one, at the price of a product of two short vectors each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.indexing import IndexOutOfRange
from attlas.matrix.operator import AttentionOperator
from attlas.matrix.scores import LOG2E
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.streaming import TILE
from attlas.matrix.threads import each

ENTRIES = 2**19
"""Numbers gathered at a time, of queries or of keys: 2 MiB in float32."""

TOGETHER = 2**16
"""Entries of a tile up to which heads share one."""

STRIP = 128
"""Rows whose sums over sets of keys are taken together."""


def entries(matrix: AttentionMatrix, query: Tensor, key: Tensor) -> Tensor:
    """Gather single entries ``A[b, h, query[p], key[p]]`` of all heads.

    Parameters
    ----------
    matrix : AttentionMatrix
        The matrix, of any visibility and bias.
    query, key : Tensor, (pairs,) or (batch, pairs), integers
        Rows and columns, from 0. With one axis, all batch elements are asked for the same pairs.

    Returns
    -------
    Tensor, (batch, head, pairs)
        In float32, or float64 for a float64 matrix; without gradient. 0 where the query may not see the key.

    Raises
    ------
    ArgumentError
        `query` or `key` is no tensor of integers, or they do not fit together or the matrix.
    IndexOutOfRange
        A row or column is not there; also an IndexError.

    Notes
    -----
    Time is O(pairs · dim) a head, memory that of the answer. The rows' sums, if not known yet, cost a streaming pass
    over the whole matrix first. Masks and biases that are formulas are called with the pairs' own indices, in tensors
    of shape (1, head, pairs, 1).
    """
    query, key = _checked(matrix, query, key)
    matrix.prepare()
    batch, head, _, _ = matrix.shape
    pairs = query.shape[1]
    answer = torch.zeros((batch, head, pairs), dtype=matrix.accumulator, device=matrix.device)
    length = max(1, ENTRIES // (head * matrix.query.shape[3]))
    items = [(b, slice(first, min(first + length, pairs))) for b in range(batch) for first in range(0, pairs, length)]

    def gather(item: tuple[int, slice]) -> None:
        b, part = item
        own = min(b, query.shape[0] - 1)
        answer[b, :, part] = _gathered(matrix, b, query[own, part], key[own, part])

    each(gather, items, matrix.device)
    return answer


def masses(operator: AttentionOperator, rows: Tensor, sets: Tensor) -> Tensor:
    """Sum what chosen rows give to sets of keys, ``sum_j A[b, h, rows[r], j] · sets[r, m, j]``.

    Parameters
    ----------
    operator : AttentionOperator
        The matrix.
    rows : Tensor, (rows,), integers
        Which rows, from 0; in ascending order where the matrix is causal, it is fastest.
    sets : Tensor, (rows, set, n_key) or (1, set, n_key)
        How much each key counts in each set of each row: boolean, or numbers.

    Returns
    -------
    Tensor, (batch, head, set, rows)
        In float32, or float64 for a float64 matrix.

    Raises
    ------
    ArgumentError, IndexOutOfRange
        As `entries`.

    Notes
    -----
    Time is O(rows · n_key · (dim + set)) a head; memory that of `sets` as numbers, for 128 rows at a time.
    """
    batch, head, n_query, n_key = operator.shape
    rows = _indices("rows", rows, n_query, operator)
    if rows.ndim != 1:
        raise ArgumentError(complaint("rows", wanted="one axis", got=f"shape {tuple(rows.shape)}"))
    if sets.ndim != 3 or sets.shape[0] not in (1, len(rows)) or sets.shape[2] != n_key:
        wanted = f"shape ({len(rows)} or 1, set, {n_key})"
        raise ArgumentError(complaint("sets", wanted=wanted, got=f"shape {tuple(sets.shape)}"))
    operator.prepare()
    answer = torch.zeros((batch, head, sets.shape[1], len(rows)), dtype=operator.accumulator, device=operator.device)
    for first in range(0, len(rows), STRIP):
        here = slice(first, first + STRIP)
        chosen = rows[here]
        span = operator.columns(slice(int(chosen.min()), int(chosen.max()) + 1))
        counted = (sets if sets.shape[0] == 1 else sets[here]).to(operator.device, operator.accumulator)
        # Keys that no set counts need no entries.
        wanted = counted.any(0).any(0)

        def work(
            item: tuple[int, slice],
            here: slice = here,
            chosen: Tensor = chosen,
            span: slice = span,
            counted: Tensor = counted,
            wanted: Tensor = wanted,
        ) -> None:
            b, heads = item
            reader = operator.narrow(slice(b, b + 1), heads).reader()
            into = answer[b, heads, :, here]
            for start in range(span.start, span.stop, TILE):
                cols = slice(start, min(start + TILE, span.stop))
                if bool(wanted[cols].any()):
                    tile = reader.tile(chosen, cols).values[0]
                    if counted.shape[0] == 1:
                        into += counted[0, :, cols] @ tile.mT
                    else:
                        # One small product a row: (row, set, key) with (row, key, head).
                        into += (counted[:, :, cols] @ tile.permute(1, 2, 0)).permute(2, 1, 0)

        each(work, _few_heads(operator, len(chosen), span), operator.device)
    return answer


def _few_heads(operator: AttentionOperator, rows: int, span: slice) -> list[tuple[int, slice]]:
    """Cut an operator into batch elements and heads that are worked on together: one, where a head's tile is large."""
    batch, head, _, _ = operator.shape
    together = max(1, TOGETHER // max(1, rows * min(TILE, span.stop - span.start)))
    if operator.device.type != "cpu" or together >= head:
        together = head
    return [(b, slice(h, min(h + together, head))) for b in range(batch) for h in range(0, head, together)]


def _checked(matrix: AttentionMatrix, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Check the pairs and give both two axes, (1 or batch, pairs)."""
    if not isinstance(matrix, AttentionMatrix):
        raise ArgumentError(complaint("matrix", wanted="an AttentionMatrix", got=type(matrix).__name__))
    batch, _, n_query, n_key = matrix.shape
    query = _indices("query", query, n_query, matrix)
    key = _indices("key", key, n_key, matrix)
    if query.shape != key.shape or query.ndim not in (1, 2) or (query.ndim == 2 and query.shape[0] not in (1, batch)):
        got = f"shapes {tuple(query.shape)} and {tuple(key.shape)}"
        raise ArgumentError(complaint("query and key", wanted=f"both (pairs,) or both ({batch}, pairs)", got=got))
    return (query, key) if query.ndim == 2 else (query.unsqueeze(0), key.unsqueeze(0))


def _indices(name: str, indices: Tensor, length: int, operator: AttentionOperator) -> Tensor:
    kind = getattr(indices, "dtype", type(indices).__name__)
    if not isinstance(indices, Tensor) or kind == torch.bool or indices.is_floating_point() or indices.is_complex():
        raise ArgumentError(complaint(name, wanted="a tensor of integers", got=kind))
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < length:
        bad = indices[(indices < 0) | (indices >= length)].flatten()[0]
        raise IndexOutOfRange(complaint(name, wanted=f"numbers from 0 to {length - 1}", got=int(bad)))
    return indices.to(operator.device, torch.int64)


def _gathered(matrix: AttentionMatrix, batch: int, query: Tensor, key: Tensor) -> Tensor:
    """Return one batch element's entries at some pairs, (head, pairs)."""
    sums = matrix.row_sums
    dtype = torch.float64 if sums.precise else matrix.accumulator
    heads, kv_heads = matrix.shape[1], matrix.key.shape[1]
    q = matrix.query[batch].detach().index_select(1, query).to(dtype)
    k = matrix.key[batch].detach().index_select(1, key).to(dtype)
    x = (q.view(kv_heads, heads // kv_heads, *q.shape[1:]) * k.unsqueeze(1)).sum(-1).flatten(0, 1).mul_(matrix.scale)
    if matrix.softcap:
        x = matrix.softcap * torch.tanh(x / matrix.softcap)
    where = _where(matrix, batch, query, key)
    seen = sums.valid[batch].index_select(1, query) & _seen(matrix, batch, query, key, where)
    if matrix.bias is not None:
        bias = matrix.bias
        bias = _looked_up(bias, batch, query, key) if isinstance(bias, Tensor) else _of_pairs(bias(*where))
        # Many models write "hidden" as the lowest finite number.
        seen = seen & (bias > torch.finfo(bias.dtype).min / 2)
        x = x + torch.where(seen, bias, 0.0).to(dtype)
    top, rest = (part[batch].index_select(1, query).to(dtype) for part in (sums.top, sums.rest))
    x = (x * LOG2E).sub_(top).sub_(torch.where(seen, rest, 0.0))
    return torch.where(seen, x.exp2_(), 0.0).to(matrix.accumulator)


def _seen(matrix: AttentionMatrix, batch: int, query: Tensor, key: Tensor, where: tuple[Tensor, ...]) -> Tensor:
    """Return which pairs are visible by position and mask, (head or 1, pairs)."""
    rules = matrix.visibility
    ahead = query + rules.offset - key
    seen = torch.ones_like(ahead, dtype=torch.bool)
    if rules.causal:
        seen &= ahead >= 0
    if rules.window is not None:
        seen &= (ahead if rules.causal else ahead.abs()) < rules.window
    if rules.mask is None:
        return seen.unsqueeze(0)
    mask = rules.mask
    allowed = _looked_up(mask, batch, query, key) if isinstance(mask, Tensor) else _of_pairs(mask(*where))
    return seen & allowed


def _looked_up(tensor: Tensor, batch: int, query: Tensor, key: Tensor) -> Tensor:
    """Return a mask's or bias's numbers at some pairs, (head or 1, pairs); an axis of size 1 broadcasts."""
    own = tensor.detach()[min(batch, tensor.shape[0] - 1)]
    return own[:, query if own.shape[1] > 1 else query * 0, key if own.shape[2] > 1 else key * 0]


def _of_pairs(answer: Tensor) -> Tensor:
    """Return what a formula gave for tensors of `_where`, (head or 1, pairs)."""
    return answer.expand(1, -1, -1, 1)[0, :, :, 0]


def _where(matrix: AttentionMatrix, batch: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a formula is called with: batch, head, query position and key of each pair."""
    rules = matrix.visibility
    position = query + matrix.offset
    return (
        rules.batches[batch].view(1, 1, 1, 1),
        rules.heads.view(1, -1, 1, 1),
        position.view(1, 1, -1, 1),
        key.view(1, 1, -1, 1),
    )
