"""The null model's step: rows times the even spread, in closed form wherever every row sees one run of keys."""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.explain.passing import passed
from attlas.matrix import AttentionMatrix
from attlas.matrix.even import even_spread
from attlas.matrix.withholding import without_keys


def evenly_passed(matrix: AttentionMatrix, weights: Tensor, *, without: int = 0) -> Tensor:
    """Return ``weights @ U``, averaged over heads, where U spreads each row evenly over the keys that it may see.

    Parameters
    ----------
    matrix : AttentionMatrix, (1, head, n_query, n_key)
        Whose visibility to take.
    weights : Tensor, (target, n_query)
        What each query counts for; float64 on the CPU.
    without : int
        How many of the first keys are taken away; rows that see nothing else are zeros.

    Returns
    -------
    Tensor, (target, n_key), float64
        On the CPU.

    Notes
    -----
    Costs O(n) where visibility is causal, windowed, both or neither: then each row sees one run of keys, adds its share
    where the run begins and takes it away where it ends, and a running sum is the answer. A mask of one's own costs a
    pass.
    """
    even = even_spread(matrix)
    if even.bias is not None or even.visibility.mask is not None:
        stripped = without_keys(even, range(min(without, matrix.shape[3]))) if without else even
        return passed(stripped, weights).mean(1)
    first, stop = _runs(matrix, without)
    count = (stop - first).clamp(min=0)
    shares = torch.where(count > 0, weights / count.clamp(min=1), 0.0)
    n_key = matrix.shape[3]
    if matrix.visibility.causal and matrix.visibility.window is None:
        # A running sum from the end: where no row looks it is exactly 0.
        return _from_the_end(shares, n_key).index_fill_(1, torch.arange(min(without, n_key)), 0)
    # What was added and taken away need not cancel to the last bit, so whether any row looks is counted.
    looking = _run_sums(((shares != 0) & (count > 0)).long(), first, stop, n_key)
    return torch.where(looking > 0, _run_sums(shares, first, stop, n_key), 0.0)


def _run_sums(shares: Tensor, first: Tensor, stop: Tensor, n_key: int) -> Tensor:
    """Give each row's share to every key of its run, (target, n_key)."""
    changes = shares.new_zeros(len(shares), n_key + 1)
    changes.index_add_(1, first.clamp(max=n_key), shares).index_add_(1, stop, -shares)
    return changes.cumsum(1)[:, :n_key]


def _runs(matrix: AttentionMatrix, without: int) -> tuple[Tensor, Tensor]:
    """Return where each row's run of keys begins and ends, (n_query,) each."""
    _, _, n_query, n_key = matrix.shape
    rules = matrix.visibility
    position = torch.arange(n_query) + matrix.offset
    width = n_key if rules.window is None else rules.window
    first = (position - width + 1).clamp(min=0) if rules.window is not None else torch.zeros_like(position)
    stop = position + 1 if rules.causal else (position + width).clamp(max=n_key)
    stop = stop.clamp(max=n_key)
    if not rules.causal and rules.window is None:
        stop = torch.full_like(position, n_key)
    return first.clamp(min=without), stop


def _from_the_end(shares: Tensor, n_key: int) -> Tensor:
    """Sum up the shares of the rows at or after each key, (target, n_key); rows are the last positions."""
    later = shares.flip(1).cumsum(1).flip(1)
    before = later[:, :1].expand(-1, n_key - shares.shape[1])
    return torch.cat([before, later], dim=1)
