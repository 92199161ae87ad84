"""A mask as a pattern's formula over positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attlas.matrix.visibility import Formula, Selection


@dataclass(frozen=True, eq=False)
class KeptMask(Selection):
    """What a pattern keeps and may be seen, of heads that may differ.

    Parameters
    ----------
    formula : callable
        As `AttentionMatrix` takes it.
    extent : (int, int)
        How many batch elements and heads there are.
    heads : tuple of int, optional
        Which heads of those that the formula knows; all by default.
    """

    formula: Formula
    extent: tuple[int, int]
    heads: tuple[int, ...] | None = None

    def of_heads(self, heads: Sequence[int]) -> KeptMask:
        """Return the mask of some heads."""
        chosen = tuple(head if self.heads is None else self.heads[head] for head in heads)
        return replace(self, extent=(self.extent[0], len(chosen)), heads=chosen)

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.formula(batch, self._own(head), query, key)

    def occupied(self, batches: Tensor, heads: Tensor, positions: slice, keys: slice) -> bool:
        if not isinstance(self.formula, Selection):
            return True
        return self.formula.occupied(batches, self._own(heads), positions, keys)

    def _own(self, heads: Tensor) -> Tensor:
        return heads if self.heads is None else torch.tensor(self.heads, device=heads.device)[heads]
