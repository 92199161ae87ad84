"""One step of a walk: rows times a matrix, for several targets in one streaming pass, skipping what weighs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attlas.matrix import AttentionOperator, Question, Tile, TopK, ask
from attlas.matrix.columns import RowsThatCount, sum_over_blocks
from attlas.matrix.rows import RowPart, RowQuestion
from attlas.matrix.streaming import Block

FEW_ROWS = 16
"""Up to so many rows with weight are taken as they are; more of them are streamed."""


def passed(operator: AttentionOperator, weights: Tensor) -> Tensor:
    """Return ``sum_i w_i A_ij`` of every head, for several targets.

    Parameters
    ----------
    operator : AttentionOperator, (1, head, n_query, n_key)
        The matrix, of one text.
    weights : Tensor, (target, n_query) or (target, head, n_query)
        What each query counts for.

    Returns
    -------
    Tensor, (target, head, n_key), float64
        On the CPU.

    Notes
    -----
    Costs one pass over the tiles whose rows have weight, whatever the number of targets: a row only, if only one has.
    """
    weights = weights.unsqueeze(1) if weights.ndim == 2 else weights
    busy = (weights != 0).any(0).any(0).nonzero().flatten()
    heads, n_key = operator.shape[1], operator.shape[3]
    if len(busy) == 0:
        return torch.zeros(len(weights), heads, n_key, dtype=torch.float64)
    if len(busy) > FEW_ROWS:
        return ask(operator, Passed(weights))[0].double().cpu()
    reach = operator.columns(slice(int(busy[0]), int(busy[-1]) + 1))
    out = torch.zeros(len(weights), heads, n_key, dtype=torch.float64)
    if reach.stop > reach.start:
        rows = operator[:, :, busy, reach]
        chosen = weights[..., busy.to(weights.device)].expand(-1, heads, -1)
        out[..., reach] = torch.einsum("thr,hrk->thk", chosen.double().cpu(), rows[0].double().cpu())
    return out


def row_sums(operator: AttentionOperator, wanted: Tensor) -> Tensor:
    """Return the sums of some rows, of every head.

    Parameters
    ----------
    operator : AttentionOperator, (1, head, n_query, n_key)
        The matrix, of one text.
    wanted : Tensor, (n_query,), bool
        Which rows; the others are given as 0.

    Returns
    -------
    Tensor, (head, n_query), float64
        On the CPU.
    """
    busy = wanted.nonzero().flatten()
    if len(busy) > FEW_ROWS:
        return ask(operator, RowSums(wanted))[0][0].double().cpu().where(wanted.cpu(), 0.0)
    out = torch.zeros(operator.shape[1], operator.shape[2], dtype=torch.float64)
    if len(busy):
        out[:, busy.cpu()] = operator[:, :, busy, :][0].double().sum(-1).cpu()
    return out


class Passed(Question[tuple[Tensor, Tensor], Tensor]):
    """``sum_i w_ti A_ij`` for several targets; (target, head, n_key), of a matrix of one text.

    Parameters
    ----------
    weights : Tensor, (target, head or 1, n_query)
        What each query counts for; tiles whose rows all weigh nothing are not computed.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self._counting = RowsThatCount(weights.unsqueeze(-1))

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        del operator, cols
        return self._counting.any_of(rows)

    def start(self, operator: AttentionOperator, block: Block) -> tuple[Tensor, Tensor]:
        _, heads, _, n_key = operator.shape
        weights = self.weights.to(device=operator.device, dtype=operator.accumulator).transpose(0, 1)
        weights = weights[block.head] if len(weights) > 1 else weights.expand(heads, -1, -1)
        return weights.new_zeros(heads, weights.shape[1], n_key), weights

    def add(self, state: tuple[Tensor, Tensor], rows: slice, cols: slice, tile: Tile) -> None:
        total, weights = state
        total[..., cols] += weights[..., rows] @ tile.values[0]

    def gather(
        self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        return sum_over_blocks(operator, blocks, [total.unsqueeze(0) for total, _ in states])[0].transpose(0, 1)


class RowSums(RowQuestion):
    """The sums of some rows; (1, head, n_query), with whatever the same tiles hold of the others.

    Parameters
    ----------
    wanted : Tensor, (n_query,), bool
        Which rows are needed.
    """

    def __init__(self, wanted: Tensor) -> None:
        self._counting = RowsThatCount(wanted.view(1, 1, -1, 1))

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        del operator, cols
        return self._counting.any_of(rows)

    def add(self, state: RowPart, rows: slice, cols: slice, tile: Tile) -> None:
        del cols
        state.of(rows).add_(tile.values.sum(-1))


class PassedUpTo(Passed):
    """``sum_i min(A_ij, level_ti)`` for several targets, of a matrix of one head; (target, n_key).

    Parameters
    ----------
    levels : Tensor, (target, n_query)
        At most so much is taken of each entry of a row; not negative.
    """

    def __init__(self, levels: Tensor) -> None:
        super().__init__(levels.unsqueeze(1))

    def add(self, state: tuple[Tensor, Tensor], rows: slice, cols: slice, tile: Tile) -> None:
        total, levels = state
        for target in range(total.shape[1]):
            level = levels[:, target, rows].unsqueeze(-1)
            total[:, target, cols] += torch.minimum(tile.values[0], level).sum(1)

    def gather(
        self, operator: AttentionOperator, blocks: Sequence[Block], states: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        return super().gather(operator, blocks, states)[:, 0]


class LimitedTopK(TopK):
    """The largest entries of some rows; of the others, whatever the same tiles hold, or -1.

    Parameters
    ----------
    k : int
        How many; from 1 to n_key.
    wanted : Tensor, (n_query,), bool
        Which rows are needed.
    """

    def __init__(self, k: int, wanted: Tensor) -> None:
        super().__init__(k)
        self._counting = RowsThatCount(wanted.view(1, 1, -1, 1))

    def wants(self, operator: AttentionOperator, rows: slice, cols: slice) -> bool:
        del operator, cols
        return self._counting.any_of(rows)
