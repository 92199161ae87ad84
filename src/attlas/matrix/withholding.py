"""Attention with some keys taken away: what the same queries do with the rest of what they see.

Taking a key away divides what is left of a row by what it held, ``1 − Σ_k α_ik``, so that the log-sum-exp changes by
the logarithm of that. Where most of a row is taken the difference cancels, and the row's sum is computed anew.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.logsumexp import RowSums, attend_rows
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.streaming import Block, each_block, tiling_of
from attlas.matrix.visibility import Formula, Visibility, looked_up

FEW = 64
"""Up to so many keys, what rows lose is gathered; for more, sums are computed anew."""

KEPT = 0.5
"""A row that keeps less than this is summed anew: the rounding of what it loses would grow by more than twice."""


def without_keys(matrix: AttentionMatrix, keys: Sequence[int]) -> AttentionMatrix:
    """Return the matrix in which no query sees some keys, and every row is divided anew.

    Parameters
    ----------
    matrix : AttentionMatrix
        Any visibility and bias.
    keys : sequence of int
        The keys to take away, from 0; negative ones count from the end.

    Returns
    -------
    AttentionMatrix
        Of the same shape. The withheld keys' columns are 0, and so is a row that sees nothing else; `valid_rows` says
        so. With learned sinks, rows are divided by what the sink and the keys that are left hold.

    Raises
    ------
    ArgumentError
        A key is not there.

    Notes
    -----
    Where the matrix knows its row sums, they cost a product with the withheld keys, and a pass over those strips of
    rows that lose more than half of a row. Otherwise they are computed when they are first needed.
    """
    withheld = _checked(keys, matrix.shape[3])
    if not withheld:
        return matrix
    keep = torch.ones(matrix.shape[3], dtype=torch.bool, device=matrix.device)
    keep[withheld] = False
    mask = _restricted(matrix.visibility, keep)
    less = matrix.with_visibility(replace(matrix.visibility, mask=mask))
    known = matrix.row_sums if matrix.sums_known else None
    # A learned sink's share hides whether a row still sees a key; large sums are kept in float64, which is rare.
    if known is not None and len(withheld) <= FEW and matrix.sinks is None and not known.precise:
        less.keep_sums(_reduced(matrix, less, torch.tensor(withheld)))
    return less


def _checked(keys: Iterable[int], n_key: int) -> list[int]:
    picked = set()
    for key in keys:
        try:
            at = operator.index(key)
        except TypeError:
            raise ArgumentError(complaint("keys", wanted="whole numbers", got=repr(key))) from None
        if isinstance(key, bool) or not -n_key <= at < n_key:
            raise ArgumentError(complaint("keys", wanted=f"whole numbers from {-n_key} to {n_key - 1}", got=key))
        picked.add(at % n_key)
    return sorted(picked)


def _restricted(visibility: Visibility, keep: Tensor) -> Tensor | Formula:
    """Return a mask that also hides the keys that are not to be kept, of no more memory than the one there is."""
    mask = visibility.mask
    if mask is None:
        return keep.view(1, 1, 1, -1)
    if isinstance(mask, Tensor) and mask.shape[2] == 1:
        return mask & keep
    see = looked_up(mask, visibility) if isinstance(mask, Tensor) else mask

    def restricted(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return see(batch, head, query, key) & keep[key]

    return restricted


def _reduced(matrix: AttentionMatrix, less: AttentionMatrix, withheld: Tensor) -> RowSums:
    """Return the sums that are left when what rows gave to the withheld keys is taken out of them."""
    tiling = tiling_of(matrix)

    def work(block: Block) -> RowSums:
        heads, fewer = (m.narrow(block.batch, block.head) for m in (matrix, less))
        reader, sums = heads.reader(), heads.row_sums
        parts = []
        for rows in tiling.strips(block.rows):
            kept = 1 - reader.tile(rows, withheld).values.sum(-1)
            top, rest, valid = (part[:, :, rows] for part in (sums.top, sums.rest, sums.valid))
            if bool((kept >= KEPT).all()):
                # A row that saw nothing has lost nothing, and stays at minus infinity.
                parts.append(RowSums(top, rest + kept.log2().to(rest.dtype), valid))
            else:
                parts.append(attend_rows(fewer, rows, None)[0])
        return RowSums.merge_strips(parts)

    blocks, parts = each_block(matrix, work)
    return RowSums.merge(matrix, blocks, parts)
