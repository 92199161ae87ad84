"""A mask without structure as bits: eight keys a byte, asked for tiles and never expanded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.capture.visibility import Rule

_BLOCK_ENTRIES = 2**22


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A boolean mask as a formula over bits, which may lie in a memory-mapped file.

    Parameters
    ----------
    bits : Tensor, (batch or 1, head or 1, n_query or 1, ceil(n_key / 8)), uint8
        Bit ``key % 8`` of byte ``key // 8`` tells whether the key may be seen.
    n_query, n_key : int
        The matrix's height and width.
    """

    bits: Tensor
    n_query: int
    n_key: int

    @property
    def extent(self) -> tuple[int, int]:
        """Batch elements and heads that the mask tells apart."""
        return self.bits.shape[0], self.bits.shape[1]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = query - (self.n_key - self.n_query)
        batch, head, row = (
            torch.zeros_like(index) if size == 1 else index
            for index, size in zip((batch, head, row), self.bits.shape[:3], strict=True)
        )
        place = (batch, head, row, key >> 3)
        byte = self.bits[tuple(index.to(self.bits.device) for index in place)].to(key.device)
        return (byte >> (key & 7).to(torch.uint8)) & 1 == 1


def pack(rule: Rule, batch: int, heads: int, n_query: int, n_key: int, device: torch.device) -> Tensor:
    """Return the bits of a rule's mask (not of its causal and window parts), a block of rows at a time."""
    mask = Rule(mask=rule.mask)
    height = max(1, _BLOCK_ENTRIES // (n_key * batch * heads))
    parts = [
        _pack_rows(mask.seen(torch.arange(start, min(start + height, n_query), device=device), n_query, n_key))
        for start in range(0, n_query, height)
    ]
    return torch.cat(parts, dim=2)


def _pack_rows(seen: Tensor) -> Tensor:
    missing = -seen.shape[-1] % 8
    padded = torch.nn.functional.pad(seen, (0, missing)).unflatten(-1, (-1, 8))
    weights = 2 ** torch.arange(8, device=seen.device)
    return (padded * weights).sum(-1).to(torch.uint8)
