"""One more token: what the last row of each head gives under its pattern, from those keys alone that the row keeps.

A step of cached decoding has one query, so there are no chunks of rows to share keys, and what counts is that keys are
read once, in place, and few times: the heads that share a key head are the rows of one small product, and heads whose
key heads stand side by side go through one call. Which keys a row keeps is known from its position; they are sliced out
of the cache, and no more than they are ever looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own abbreviation
from torch import Tensor

from attlas.patterns.chunk import Bend, Rules, Scratch, attend_chunks
from attlas.patterns.full import Full
from attlas.patterns.keep import merged
from attlas.patterns.keep_set import KeepSet
from attlas.patterns.pattern import Pattern

Spans = tuple[range, ...]
"""Keys, as disjoint ranges."""


def keys_of(pattern: Pattern, n_key: int, window: int | None = None) -> Spans | None:
    """Return which keys the last row of a causal head keeps.

    Parameters
    ----------
    pattern : Pattern
    n_key : int
        How many keys there are, the row's own the last of them.
    window : int, optional
        The head's own sliding window, out of which nothing is seen.

    Returns
    -------
    tuple of range or None
        None where this depends on more than positions, or the row keeps no key.
    """
    if not isinstance(pattern, Full | KeepSet):
        return None
    return _keys_of(pattern, n_key, n_key if window is None else min(window, n_key))


@lru_cache(maxsize=256)
def _keys_of(pattern: Full | KeepSet, n_key: int, window: int) -> Spans | None:
    spans: Spans = (range(n_key),)
    if isinstance(pattern, KeepSet):
        keep = pattern.fixed(n_key, causal=True)
        if keep is None:
            return None
        spans = ()
        # A run that keeps the whole row replaces what an earlier one gave.
        for run in keep.runs(1, n_key):
            fixed = merged(((key, key + 1) for key in run.fixed), n_key)
            spans = (*(range(span.start, span.stop) for span in fixed), *run.keys)
    first = n_key - window
    seen = (span[max(0, -((span.start - first) // span.step)) :] for span in spans)
    return tuple(span for span in seen if span) or None


def attend_last(query: Tensor, key: Tensor, value: Tensor, heads: Sequence[int], spans: Spans, bend: Bend) -> Tensor:
    """Return the softmax over some keys, times their values, for some heads of one query.

    Parameters
    ----------
    query : Tensor, (batch, head, 1, dim)
        Of all heads.
    key : Tensor, (batch, kv_head, n_key, dim)
        In the query's dtype.
    value : Tensor, (batch, kv_head, n_key, value_dim)
        Likewise.
    heads : sequence of int
        Which heads, in order.
    spans : tuple of range
        The keys that are kept; no other is read.
    bend : Bend
        Scale, soft cap, and sinks: a logit for each of all heads, (head,).

    Returns
    -------
    Tensor, (batch, len(heads), 1, value_dim)
        NaN where a number overflows, or one that is read is not finite.

    Notes
    -----
    O(kept keys · dim) for each key head that any of the heads use, however many of its heads do. Without soft cap and
    sinks PyTorch's own `scaled_dot_product_attention` runs.
    """
    batch, head, _, dim = query.shape
    kv_head, sinks, parts = key.shape[1], bend.sinks, []
    for seats in _seated(tuple(heads), head, kv_head, query.device):
        rows, near, passed = query, key, value
        if seats.heads is not None:
            rows = query.index_select(1, seats.heads)
            sinks = None if bend.sinks is None else bend.sinks.index_select(0, seats.heads)
        if seats.count < kv_head:
            near, passed = (tensor.narrow(1, seats.first, seats.count) for tensor in (key, value))
        rows = rows.reshape(batch, seats.count, -1, dim)
        bent = Bend(bend.scale, bend.softcap, sinks)
        out = _softmax(rows, _gathered(near, spans), _gathered(passed, spans), bent)
        out = out.reshape(batch, -1, 1, value.shape[3])
        parts.append(out if seats.places is None else out.index_select(1, seats.places))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _softmax(query: Tensor, key: Tensor, value: Tensor, bend: Bend) -> Tensor:
    """Answer rows that see the same keys, (batch, kv_head, rows, dim)."""
    if bend.softcap is None and bend.sinks is None:
        return F.scaled_dot_product_attention(query, key, value, scale=bend.scale)
    own, dtype = value.dtype, torch.promote_types(value.dtype, torch.float32)
    batch, kv_head, rows, _ = query.shape
    sinks = None
    if bend.sinks is not None:
        sinks = bend.sinks.to(dtype).view(1, kv_head, rows, 1).expand(batch, -1, -1, -1).flatten(0, 1)
    query, key, value = (tensor.to(dtype).flatten(0, 1) for tensor in (query, key, value))
    rules = Rules((batch, kv_head, 1, rows, 1))
    out = attend_chunks(query, [(key.mT, value)], Bend(bend.scale, bend.softcap, sinks), rules, Scratch())
    return out.unflatten(0, (batch, kv_head)).to(own)


def _gathered(tensor: Tensor, spans: Spans) -> Tensor:
    """Return some keys or values of (batch, kv_head, n_key, width), a view of them where they are one span."""
    if len(spans) == 1:
        span = spans[0]
        return tensor[:, :, span.start : span.stop : span.step]
    return tensor.index_select(2, _indices(spans, tensor.device))


@lru_cache(maxsize=64)
def _indices(spans: Spans, device: torch.device) -> Tensor:
    return torch.tensor([key for span in spans for key in span], device=device)


@dataclass(frozen=True, eq=False)
class _Seats:
    """Heads that go through one call, because their key heads stand side by side.

    Parameters
    ----------
    first, count : int
        The first key head, and how many.
    heads : Tensor, (count · rows,), int64, optional
        The heads, as many rows for each key head; where it has fewer its last one is repeated. None: all, in order.
    places : Tensor, int64, optional
        Where the heads that were asked for stand among them, in order; None: they are all there is.
    """

    first: int
    count: int
    heads: Tensor | None
    places: Tensor | None


@lru_cache(maxsize=256)
def _seated(heads: tuple[int, ...], total: int, kv_heads: int, device: torch.device) -> tuple[_Seats, ...]:
    group = total // kv_heads
    by_key: dict[int, list[int]] = {}
    for head in heads:
        by_key.setdefault(head // group, []).append(head)
    runs: list[list[int]] = []
    for kv_head in by_key:
        if runs and kv_head == runs[-1][-1] + 1:
            runs[-1].append(kv_head)
        else:
            runs.append([kv_head])
    return tuple(_seats([by_key[kv_head] for kv_head in run], run, total, device) for run in runs)


def _seats(rows: list[list[int]], kv_heads: list[int], total: int, device: torch.device) -> _Seats:
    height = max(map(len, rows))
    filled = [head for own in rows for head in (*own, *own[-1:] * (height - len(own)))]
    places = [number * height + place for number, own in enumerate(rows) for place in range(len(own))]
    return _Seats(
        kv_heads[0],
        len(kv_heads),
        None if filled == list(range(total)) else torch.tensor(filled, device=device),
        None if len(places) == len(filled) else torch.tensor(places, device=device),
    )
