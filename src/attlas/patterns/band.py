"""A band along the diagonal, whole or every so many keys, and some keys that all rows keep.

Sliding windows, dilated windows and windows with global tokens are all of this form. Away from the matrix's edges every
chunk of rows sees its keys the same way, so that many chunks share one batched product over a strided view of the keys,
of which nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attlas.patterns.keep import HEIGHT, FixedKeep, Run, chunks, merged

LONG = 2**18
"""Scores of a chunk of rows that keep everything, at most, unless one row has more."""


@dataclass(frozen=True)
class Band(FixedKeep):
    """Keys near the diagonal, and tokens that all rows keep.

    Parameters
    ----------
    width : int
        How many keys, counted from the row's own position: with `step` 1, ``0 <= position - key < width`` when causal,
        ``|position - key| < width`` otherwise.
    causal : bool
        Whether the band lies behind the row alone.
    step : int
        Keep every step-th key only.
    sinks : int
        How many first keys all rows keep.
    tokens : tuple of int
        Keys that all rows keep, in order.
    whole : bool
        Whether the rows of `tokens` keep everything in turn.
    """

    width: int
    causal: bool
    step: int = 1
    sinks: int = 0
    tokens: tuple[int, ...] = ()
    whole: bool = False

    @cached_property
    def _tokens(self) -> Tensor:
        return torch.tensor(self.tokens, dtype=torch.int64)

    @property
    def reach(self) -> int:
        """How far away the band ends, exclusive."""
        return self.width * self.step

    def near(self, query: Tensor, key: Tensor) -> Tensor:
        ahead = query - key
        kept = (ahead >= 0) & (ahead < self.reach) if self.causal else ahead.abs() < self.reach
        return kept & (ahead % self.step == 0) if self.step > 1 else kept

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        kept = self.near(query, key)
        if self.sinks:
            kept = kept | (key < self.sinks)
        if self.tokens:
            tokens = self._tokens.to(key.device)
            kept = kept | torch.isin(key, tokens)
            if self.whole:
                kept = kept | torch.isin(query, tokens)
        return kept

    def columns(self, positions: slice, n_key: int) -> tuple[slice, ...]:
        if self.whole and any(positions.start <= token < positions.stop for token in self.tokens):
            return (slice(0, n_key),)
        after = 0 if self.causal else self.reach - 1
        near = (positions.start - self.reach + 1, positions.stop + after)
        return merged([(0, self.sinks), near, *((token, token + 1) for token in self.tokens)], n_key)

    def complete(self, n_query: int, n_key: int) -> int:
        return max(self.width + self.sinks - (n_key - n_query), 0) if self.step == 1 else 0

    def runs(self, n_query: int, n_key: int) -> Iterator[Run]:
        offset = n_key - n_query
        fixed = tuple(dict.fromkeys([*range(min(self.sinks, n_key)), *(t for t in self.tokens if t < n_key)]))
        for first in range(min(self.step, n_query)):
            # Rows that are a multiple of `step` apart see keys that are so, too: a plain window among themselves.
            before, own = divmod(offset + first, self.step)
            rows, keys = range(first, n_query, self.step), range(own, n_key, self.step)
            for run in self._window(len(rows), len(keys), before, len(fixed)):
                if run.rows:
                    yield self._with_fixed(run, rows, keys, fixed, offset)
        if self.whole:
            for span in merged(((token, token + 1) for token in self.tokens), n_key):
                height = min(HEIGHT, max(1, LONG // n_key))
                for positions in chunks(max(span.start, offset), span.stop, height):
                    seen = range(positions.stop if self.causal else n_key)
                    yield Run(range(positions.start - offset, positions.stop - offset), (seen,), whole=True)

    def _window(self, n_query: int, n_key: int, offset: int, fixed: int) -> Iterator[Run]:
        """Cut the rows of a plain window, the first of which stands at position `offset`.

        Chunks that look alike begin where there are `fixed` more keys before their own; see `attlas.patterns.chunk`.
        """
        before, after = self.width - 1, 0 if self.causal else self.width - 1

        def alone(first: int, stop: int) -> Iterator[Run]:
            for rows in chunks(first, stop, HEIGHT):
                start, end = rows.start + offset - before, rows.stop + offset + after
                yield Run(rows, (range(max(start, 0), max(min(end, n_key), max(start, 0))),))

        first = min(max(before + fixed - offset, 0), n_query)
        count = max(min(n_query, n_key - after - offset) - first, 0) // HEIGHT
        stop = first + count * HEIGHT
        yield from alone(0, first)
        if count:
            start = first + offset - before
            keys = range(start, start + HEIGHT + before + after)
            yield Run(range(first, first + HEIGHT), (keys,), count=count)
        yield from alone(stop, n_query)

    def _with_fixed(self, run: Run, rows: range, keys: range, fixed: tuple[int, ...], offset: int) -> Run:
        """Give a run of every step-th row its place in the matrix, and the keys that all rows keep."""
        (near,) = run.keys
        spread = Run(rows[run.rows.start : run.rows.stop], (keys[near.start : near.stop],), count=run.count)
        last = spread.rows[-1] + (run.count - 1) * spread.shift + offset
        if self.causal:
            fixed = tuple(key for key in fixed if key <= last)
        if run.count == 1:
            fixed = tuple(key for key in fixed if key not in spread.keys[0])
        return Run(spread.rows, spread.keys, fixed, run.count)
