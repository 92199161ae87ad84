"""Columns and diagonals that each head chooses for itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from attlas.matrix import AttentionMatrix
from attlas.matrix.questions import ask
from attlas.matrix.rows import Rows
from attlas.matrix.visibility import places, take
from attlas.patterns.keep import HEIGHT, FixedKeep, HeadKeep, Run, merged


@dataclass(frozen=True)
class HeadLines(FixedKeep):
    """One head's columns and diagonals.

    Parameters
    ----------
    kept : tuple of int
        Keys that all rows keep.
    diagonals : tuple of (int, int)
        Spans of diagonals, in order and apart: those with ``first <= position - key < stop``.
    causal : bool
        Whether keys after a row are hidden anyway, and need not be computed.
    """

    kept: tuple[int, ...]
    diagonals: tuple[tuple[int, int], ...]
    causal: bool

    def near(self, query: Tensor, key: Tensor) -> Tensor:
        # Spans are in order and apart, so a number lies in one of them if it has passed an odd number of their edges.
        edges = torch.tensor(self.diagonals, dtype=torch.int64, device=key.device).flatten()
        kept = torch.bucketize(query - key, edges, out_int32=True, right=True) % 2 == 1
        return kept & (query >= 0)

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        kept = torch.isin(key, torch.tensor(self.kept, dtype=torch.int64, device=key.device))
        return self.near(query, key) | (kept & (query >= 0))

    def columns(self, positions: slice, n_key: int) -> tuple[slice, ...]:
        if positions.stop <= 0:
            return ()
        near = [(positions.start - stop + 1, positions.stop - first) for first, stop in self.diagonals]
        return merged([*near, *((key, key + 1) for key in self.kept)], n_key)

    def runs(self, n_query: int, n_key: int) -> Iterator[Run]:
        offset = n_key - n_query
        position = max(offset, 0)
        while position < n_key:
            height = min(HEIGHT, n_key - position)
            # Where a chunk's keys begin and end, from its first row; spans that touch are one.
            spans = _joined((1 - stop, height - first) for first, stop in self.diagonals)
            inside = [(a, b) for a, b in spans if position + a >= 0 and position + b <= n_key]
            before = [(a, b) for a, b in spans if position + b <= 0]
            after = [(a, b) for a, b in spans if position + a >= n_key]
            count = (n_key - position) // height
            if len(inside) + len(before) + len(after) == len(spans):
                # So many chunks until a span reaches the matrix's edge.
                ends = [n_key - position - b for _, b in inside] + [-position - b for _, b in before]
                count = min([count - 1, *(end // height for end in ends)]) + 1
            else:
                count = 1
            keys = merged(((position + a, position + b) for a, b in spans), n_key)
            last = position + count * height - 1
            fixed = tuple(key for key in self.kept if key <= last or not self.causal)
            if count == 1:
                fixed = tuple(key for key in fixed if not any(span.start <= key < span.stop for span in keys))
            rows = range(position - offset, position - offset + height)
            yield Run(rows, tuple(range(span.start, span.stop) for span in keys), fixed, count)
            position += count * height


@dataclass(frozen=True, eq=False)
class Lines(HeadKeep):
    """Columns, and bands of neighbouring diagonals, of each batch element and head.

    Parameters
    ----------
    n_key : int
        The matrix's width.
    kept : Tensor, (batch, head, columns)
        Keys that all rows keep; −1 for none.
    bands : Tensor, (batch, head, bands)
        Band `b` holds the diagonals ``b * width <= position - key < (b + 1) * width``; one beyond the matrix is none.
    width : int
        Diagonals of a band.
    causal : bool
        Whether keys after a row are hidden anyway.
    batches, heads : Tensor, (batch,) and (head,)
        The ids that the matrix's formulas are called with, by which the choice is found again after narrowing.
    """

    n_key: int
    kept: Tensor
    bands: Tensor
    width: int
    causal: bool
    batches: Tensor
    heads: Tensor

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        return places(self.batches), places(self.heads)

    @cached_property
    def _lowest(self) -> int:
        """How many bands lie ahead of the row's own."""
        return bands_ahead(self.n_key, self.width)

    @cached_property
    def _column_table(self) -> Tensor:
        """Which keys all rows keep: (batch, head, n_key)."""
        table = torch.zeros((*self.bands.shape[:2], self.n_key + 1), dtype=torch.bool, device=self.bands.device)
        # What is not there goes to a last column, which is then left out.
        return table.scatter_(2, self.kept % (self.n_key + 1), True)[..., : self.n_key]

    @cached_property
    def _band_table(self) -> Tensor:
        """Which bands are kept, from the one that is farthest ahead: (batch, head, bands)."""
        size = 2 * self._lowest + 2
        table = torch.zeros((*self.bands.shape[:2], size), dtype=torch.bool, device=self.bands.device)
        return table.scatter_(2, self.bands + self._lowest, True)

    def _of(self, tensor: Tensor, batches: Tensor, heads: Tensor) -> Tensor:
        return tensor[self._places[0][batches]][:, self._places[1][heads]]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        batch, head = self._places[0][batch], self._places[1][head]
        band = torch.div(query - key, self.width, rounding_mode="floor") + self._lowest
        kept = self._column_table[batch, head, key] | self._band_table[batch, head, band.clamp(min=0)]
        return kept & (query >= 0)

    def columns(self, positions: slice, n_key: int) -> tuple[slice, ...]:
        # Heads differ, and together they leave little out.
        return (slice(0, n_key),) if positions.stop > 0 else ()

    def occupied(self, batches: Tensor, heads: Tensor, positions: slice, keys: slice) -> bool:
        if bool(self._of(self._column_table, batches, heads)[..., keys].any()):
            return True
        nearest, farthest = positions.start - keys.stop + 1, positions.stop - 1 - keys.start
        first, last = (max(ahead // self.width + self._lowest, 0) for ahead in (nearest, farthest))
        return bool(self._of(self._band_table, batches, heads)[..., first : last + 1].any())

    def of(self, batch: int, head: int) -> HeadLines:
        kept = sorted(key for key in self.kept[batch, head].tolist() if key >= 0)
        bands = sorted(band for band in self.bands[batch, head].tolist() if band <= self._lowest)
        diagonals = _joined((band * self.width, (band + 1) * self.width) for band in bands)
        return HeadLines(tuple(kept), tuple(diagonals), self.causal)


def bands_ahead(n_key: int, width: int) -> int:
    """Return how many bands it takes to reach the key that is farthest ahead of a row."""
    return -(-(n_key - 1) // width)


def _joined(spans: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """Put spans in order and join those that touch."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def choose_lines(exact: AttentionMatrix, columns: int, bands: int, width: int, probe: int) -> Lines:
    """Choose each head's columns and bands of diagonals by the mass that its last rows give them.

    Parameters
    ----------
    exact : AttentionMatrix, (batch, head, n_query, n_key)
    columns, bands : int
        How many of each, at most: a line without any mass is not chosen. The band of the row's own position is always
        among them.
    width : int
        Diagonals of a band.
    probe : int
        How many last rows are looked at.

    Notes
    -----
    Time and memory are O(probe · n_key) a head.
    """
    seen = exact.visibility
    n_key = exact.shape[3]
    probe = min(probe, exact.shape[2], n_key)
    with torch.no_grad():
        weights = ask(last_rows(exact, probe), Rows())[0]
        mass, kept = weights.sum(2).topk(min(columns, n_key), dim=-1)
        kept = torch.where(mass > 0, kept, -1)
        lowest = bands_ahead(n_key, width)
        position = torch.arange(n_key - probe, n_key, device=weights.device).unsqueeze(1)
        band = torch.div(position - torch.arange(n_key, device=weights.device), width, rounding_mode="floor") + lowest
        held = weights.new_zeros((*weights.shape[:2], 2 * lowest + 1))
        held.index_add_(2, band.flatten(), weights.flatten(2))
        held[..., lowest] = torch.inf
        first = lowest if seen.causal else 0
        mass, best = held[..., first:].topk(min(bands, held.shape[2] - first), dim=-1)
        # A line without any mass is not chosen, so that no choice is between equals.
        best = torch.where(mass > 0, best + first - lowest, lowest + 1)
    return Lines(n_key, kept, best, width, seen.causal, seen.batches, seen.heads)


def last_rows(exact: AttentionMatrix, count: int) -> AttentionMatrix:
    """Return the matrix of the last rows alone, whose positions stay what they are."""
    rows = slice(exact.shape[2] - count, exact.shape[2])
    seen = exact.visibility
    mask = take(seen.mask, 2, rows) if isinstance(seen.mask, Tensor) else seen.mask
    bias = take(exact.bias, 2, rows) if isinstance(exact.bias, Tensor) else exact.bias
    matrix = AttentionMatrix(
        exact.query[:, :, rows], exact.key, exact.scale, bias=bias, softcap=exact.softcap, sinks=exact.sinks
    )
    return matrix.with_visibility(replace(seen, n_query=count, mask=mask))
