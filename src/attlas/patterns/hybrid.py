"""Rows that are exact near by and features far away, under one denominator: the passes that sum them.

The near keys of a row, those inside its window and the first ones, are scored one by one. The far ones go through a
feature map into running sums, chunk by chunk: a chunk of rows reads the sums over what all of its rows are far from,
and meets the few keys that only some of them are far from in a triangle of its own. Nothing is n × n, and with no
window at all the near part is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own abbreviation
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.bias import ALiBi, RelativeBias
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Indices, take
from attlas.patterns.features import Features, shared
from attlas.patterns.sums import Partial, Running, join, merge, scored, triangular

CHUNK = 256
"""Rows that are read together."""

FEW = 64
"""Rows whose near keys are scored together, at least: more rows share more keys that only some of them are near to."""

Part = Callable[[slice], Tensor]
"""Gives some rows of something with an axis of tokens: (batch, head, rows, width)."""


@dataclass(frozen=True)
class Near:
    """Which keys are exact.

    Parameters
    ----------
    window : int
        ``0 <= position - key < window`` when causal, ``|position - key| < window`` otherwise; 0 for none.
    sinks : int
        The first keys.
    """

    window: int
    sinks: int
    causal: bool

    @property
    def height(self) -> int:
        """How many rows are scored together."""
        return min(CHUNK, max(FEW, self.window)) if self.window else CHUNK

    def seen(self, position: Tensor, key: Tensor) -> Tensor:
        """Tell which keys are near to which positions; boolean, of the shape that the two broadcast to."""
        ahead = position - key
        near = (key < self.sinks) | ((ahead if self.causal else ahead.abs()) < self.window)
        return near & (ahead >= 0) if self.causal else near

    def far(self, position: Tensor, key: Tensor) -> Tensor:
        """Tell which keys are far from which positions."""
        ahead = position - key
        return (key >= self.sinks) & ((ahead if self.causal else ahead.abs()) >= self.window)


def key_weights(exact: AttentionMatrix) -> Tensor | None:
    """Return what is added to all scores of a key, (batch or 1, head or 1, n_key); minus infinity hides it.

    None where no key is special.
    """
    mask, bias = exact.visibility.mask, exact.bias
    weights = None
    if isinstance(bias, Tensor):
        lowest = torch.finfo(bias.dtype).min / 2
        weights = bias[:, :, 0].to(exact.accumulator).masked_fill(bias[:, :, 0] <= lowest, -torch.inf)
    if isinstance(mask, Tensor):
        hidden = torch.zeros(1, dtype=exact.accumulator, device=exact.device) if weights is None else weights
        weights = torch.where(mask[:, :, 0], hidden, -torch.inf)
    if weights is None or weights.shape[-1] == exact.shape[3]:
        return weights
    return weights.expand(*weights.shape[:2], exact.shape[3])


def check_rules(exact: AttentionMatrix, window: int) -> None:
    """Raise `ArgumentError` where a rule of these heads is not one of single keys, so that no sum can follow it."""
    _, _, n_query, n_key = exact.shape
    seen = exact.visibility
    exactly = "plan Full or SlidingWindow for these heads"
    if seen.window is not None and seen.window < n_key:
        raise ArgumentError(
            complaint("window", wanted="heads without a window of their own", got=seen.window, way_out=exactly)
        )
    if seen.mask is not None and not (isinstance(seen.mask, Tensor) and seen.mask.shape[2] == 1):
        got = f"shape {tuple(seen.mask.shape)}" if isinstance(seen.mask, Tensor) else "a formula"
        wanted = "a mask that hides keys from all queries alike, (batch, head, 1, n_key)"
        raise ArgumentError(complaint("mask", wanted=wanted, got=got, way_out=exactly))
    if exact.bias is not None and not (isinstance(exact.bias, Tensor) and exact.bias.shape[2] == 1):
        named = type(exact.bias).__name__ if isinstance(exact.bias, ALiBi | RelativeBias) else "a formula"
        got = f"shape {tuple(exact.bias.shape)}" if isinstance(exact.bias, Tensor) else named
        wanted = "no bias, or one that is the same for all queries, (batch, head, 1, n_key)"
        raise ArgumentError(complaint("bias", wanted=wanted, got=got, way_out=exactly))
    if window and not seen.causal and n_query > n_key:
        raise ArgumentError(
            complaint(
                "window",
                wanted=f"0 where there are more queries than keys, {n_query} and {n_key}, without common positions",
                got=window,
            )
        )


@dataclass(frozen=True)
class Hybrid:
    """Some heads, and what of them is exact.

    Parameters
    ----------
    exact : AttentionMatrix
        Whose rules `check_rules` has let pass.
    features : Features
        For the far keys.
    near : Near
    dtype : torch.dtype
        float32 or float64: what sums are taken in.
    weights : Tensor, (batch or 1, head or 1, n_key), optional
        What `key_weights` says of them.
    """

    exact: AttentionMatrix
    features: Features
    near: Near
    dtype: torch.dtype
    weights: Tensor | None

    @staticmethod
    def of(exact: AttentionMatrix, features: Features, window: int, sinks: int, dtype: torch.dtype) -> Hybrid:
        """Check the heads, and look once at which of their keys are special."""
        check_rules(exact, window)
        features.check(exact)
        weights = key_weights(exact)
        near = Near(window, sinks, exact.visibility.causal)
        return Hybrid(exact, features, near, dtype, None if weights is None else weights.to(dtype))

    def narrow(self, batch: Indices, head: Indices) -> Hybrid:
        """Return some of the heads."""
        weights = None if self.weights is None else take(take(self.weights, 0, batch), 1, head)
        exact, features = self.exact.narrow(batch, head), self.features.narrow(head)
        return replace(self, exact=exact, features=features, weights=weights)

    def sums(self, value: Tensor | None) -> Partial:
        """Return every row's sums; with `value`, (batch, kv_head, n_key, width), over values too."""
        values = self.values(value)
        return self._with_near(self.read(values)[0] if self.near.causal else self._around(values), values)

    def continued(self, value: Tensor, running: Running | None) -> tuple[Partial, Running]:
        """Return causal rows' sums, and the sums over keys that will be far from the row after the last one.

        `running` holds the sums over keys that came before these and are far from all rows.
        """
        values = self.values(value)
        far, running = self.read(values, running)
        return self._with_near(far, values), running

    def read(self, values: Part, running: Running | None = None) -> tuple[Partial, Running]:
        """Sum causal rows over the far keys."""
        _, _, n_query, n_key = self.exact.shape
        reach = min(self.near.sinks, n_key), self.exact.offset - self.near.window
        return prefix(self.log_query, self.log_key, values, n_query, reach, running or self._running(values))

    def values(self, value: Tensor | None) -> Part:
        """Return what gives some keys' values with a one behind each, (batch, head, keys, width + 1)."""
        batch, head, _, _ = self.exact.shape

        def part(keys: slice) -> Tensor:
            length = keys.stop - keys.start
            ones = self.exact.query.new_ones((batch, head, length, 1), dtype=self.dtype)
            return ones if value is None else torch.cat([shared(value[:, :, keys].to(self.dtype), head), ones], dim=-1)

        return part

    def log_query(self, rows: Indices) -> Tensor:
        """Return some rows' log features."""
        return self.features.log_query(self.exact.query[:, :, rows].to(self.dtype), self.exact.scale)

    def log_key(self, keys: Indices) -> Tensor:
        """Return some keys' log features, minus infinity where a key is hidden."""
        heads = self.exact.shape[1]
        logs = self.features.log_key(self.exact.key[:, :, keys].to(self.dtype), heads, self.exact.scale)
        return logs if self.weights is None else logs + self.weights[:, :, keys].unsqueeze(-1)

    def scores(self, rows: slice, keys: Tensor) -> Tensor:
        """Return the exact scores of some rows with some keys, minus infinity where a key is not near."""
        exact = self.exact
        query, key = exact.query[:, :, rows].to(self.dtype), exact.key.index_select(2, keys).to(self.dtype)
        scores = query @ shared(key, exact.shape[1]).mT * exact.scale
        if exact.softcap:
            scores = exact.softcap * (scores / exact.softcap).tanh()
        if self.weights is not None:
            scores = scores + self.weights.index_select(2, keys).unsqueeze(2)
        position = torch.arange(rows.start, rows.stop, device=exact.device) + exact.offset
        return scores.masked_fill(~self.near.seen(position.unsqueeze(-1), keys), -torch.inf)

    def _running(self, values: Part) -> Running:
        """Return the sums over no key."""
        batch, head, _, dim = self.exact.query.shape
        like = values(slice(0, 0))
        return Running.nothing(like, batch, head, self.features.count(dim), like.shape[3])

    def _with_near(self, far: Partial, values: Part) -> Partial:
        """Add the near keys, and the learned sinks."""
        parts = [far]
        if self.near.window or self.near.sinks:
            parts.append(self._near(values))
        if self.exact.sinks is not None:
            parts.append(self._sinks(self.exact.sinks.to(self.dtype), far))
        return merge(parts)

    def _sinks(self, sinks: Tensor, like: Partial) -> Partial:
        """Return the learned sinks' share of the rows, which attends to nothing."""
        sinks = sinks.view(1, -1, 1).expand(like.top.shape)
        weight = (sinks - sinks.detach()).exp().unsqueeze(-1)
        return Partial(sinks.detach(), F.pad(weight, (like.out.shape[-1] - 1, 0)))

    def _near(self, values: Part) -> Partial:
        """Sum over the near keys."""
        _, _, n_query, n_key = self.exact.shape
        device, window = self.exact.device, self.near.window
        first = torch.arange(min(self.near.sinks, n_key), device=device)
        sinks_values = values(slice(0, len(first)))
        parts = []
        for start in range(0, n_query, self.near.height):
            rows = slice(start, min(start + self.near.height, n_query))
            low, high = rows.start + self.exact.offset, rows.stop + self.exact.offset
            if not self.near.causal:
                high += window - 1
            begin = max(low - window + 1, len(first))
            stop = max(begin, min(high, n_key)) if window else begin
            keys = torch.cat([first, torch.arange(begin, stop, device=device)])
            value = torch.cat([sinks_values, values(slice(begin, stop))], dim=2)
            parts.append(scored(self.scores(rows, keys), value) if len(keys) else self._empty(rows, value))
        return join(parts)

    def _empty(self, rows: slice, value: Tensor) -> Partial:
        batch, head = self.exact.shape[:2]
        return Partial.nothing(value, batch, head, rows.stop - rows.start, value.shape[-1])

    def _around(self, values: Part) -> Partial:
        """Sum rows that are not causal over the far keys."""
        _, _, n_query, n_key = self.exact.shape
        first, window = min(self.near.sinks, n_key), self.near.window
        nothing = self._running(values)
        if window == 0:
            everything = absorb(nothing, self.log_key, values, slice(first, n_key))
            return join([everything.read(self.log_query(rows)) for rows in chunks(slice(0, n_query))])
        before, _ = self.read(values)
        # Seen from the end, keys that come after a row come before it.
        after, _ = prefix(
            _flipped(self.log_query, n_query),
            _flipped(lambda keys: self._hiding_first(keys, first), n_key),
            _flipped(values, n_key),
            n_query,
            (0, -window),
            nothing,
        )
        return merge([before, Partial(after.top.flip(2), after.out.flip(2))])

    def _hiding_first(self, keys: slice, first: int) -> Tensor:
        logs = self.log_key(keys)
        hidden = torch.arange(keys.start, keys.stop, device=logs.device) < first
        return logs.masked_fill(hidden.unsqueeze(-1), -torch.inf)


def prefix(
    log_query: Part, log_key: Part, values: Part, n_query: int, reach: tuple[int, int], running: Running
) -> tuple[Partial, Running]:
    """Sum rows of which each sees one key more than the one before it.

    Parameters
    ----------
    log_query, log_key, values : callable
        Give parts of queries' and keys' log features, and of values with a one behind each.
    n_query : int
        How many rows.
    reach : (first, last)
        Row i sees the keys from `first` up to, and including, ``i + last``.
    running : Running
        The sums over keys before `first`.

    Returns
    -------
    Partial
        All rows' sums; a row that sees no key of these nor of `running` has none.
    Running
        The sums over the keys that the row after the last one sees, all but its last.
    """
    first, last = reach
    begin = min(max(0, first - last), n_query)
    parts = [running.read(log_query(rows)) for rows in chunks(slice(0, begin))]
    running = absorb(running, log_key, values, slice(first, max(first, begin + last)))
    for rows in chunks(slice(begin, n_query)):
        band = slice(rows.start + last, rows.stop + last)
        query, key, value = log_query(rows), log_key(band), values(band)
        parts.append(merge([running.read(query), triangular(query, key, value)]))
        running = running.add(key, value)
    return join(parts), running


def absorb(running: Running, log_key: Part, values: Part, keys: slice) -> Running:
    """Take keys into running sums, a chunk at a time."""
    for chunk in chunks(keys):
        running = running.add(log_key(chunk), values(chunk))
    return running


def chunks(span: slice) -> list[slice]:
    """Cut a span of tokens into chunks."""
    return [slice(start, min(start + CHUNK, span.stop)) for start in range(span.start, span.stop, CHUNK)]


def _flipped(part: Part, length: int) -> Part:
    return lambda tokens: part(slice(length - tokens.stop, length - tokens.start)).flip(2)
