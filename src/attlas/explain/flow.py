"""Attention flow: the largest flow that the layers' attention can carry from each token to the target, between bounds.

The capacity of an edge is what rollout's matrix Â holds there; a maximum flow asks how much of the target a token can
reach when paths need not share what they carry (Abnar and Zuidema 2020, section 3). Over whole matrices that is out of
reach for more than a sentence; three facts make it possible to say much about long texts.

* Rollout's own paths to a token are a flow, so the flow is never less than rollout.
* What flows into a token is at most what its edges carry, and at most what their other ends are given: so
  ``U_j = min(1, Σ_i min(Â_ij, U_i))``, layer by layer, is never less than the flow. It costs a pass a layer.
* On the strongest edges alone, a maximum flow can be computed. It exists in the whole, too; and the cut that proves it,
  with all edges added that were dropped across it, is a cut of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attlas.capture.attended import Attended
from attlas.errors import ArgumentError, complaint
from attlas.explain.max_flow import Network
from attlas.explain.passing import LimitedTopK, Passed, PassedUpTo, RowSums
from attlas.explain.reading import Reading
from attlas.explain.walk import Found, Walker, check_one_text, checked_share, chosen_heads
from attlas.matrix import HeadMean, WithIdentity, ask

START = 0
"""The node that the target's flow begins in."""


@dataclass(frozen=True, eq=False)
class _Stage:
    """What one attention call adds to the network: edges that are kept, and how much was dropped."""

    start: NDArray[np.int64]
    """The node of every query."""
    end: NDArray[np.int64]
    """The node of every key."""
    rows: NDArray[np.int64]
    """Which queries' edges are kept."""
    keys: NDArray[np.int64]
    """Their keys, (row, k)."""
    capacity: NDArray[np.float64]
    """What they carry, (row, k); 0 is no edge."""
    reach: NDArray[np.bool_]
    """Which queries each target's flow can reach, (target, n_query)."""
    row_drop: NDArray[np.float64]
    """How much of each query's capacity was dropped, (n_query,)."""
    received: NDArray[np.float64]
    """Capacity into each key from the queries that each target reaches, (target, n_key), dropped or not."""
    after: NDArray[np.int64] | None
    """The decoder's nodes below a cross-attention, to which all queries keep an edge."""

    def edges(self, target: int, residual: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the edges that a target's flow may use: from, to, capacity."""
        here = (self.capacity > 0) & self.reach[target, self.rows][:, None]
        start = np.broadcast_to(self.start[self.rows][:, None], self.keys.shape)[here]
        end, capacity = self.end[self.keys[here]], self.capacity[here]
        if self.after is None:
            return start, end, capacity
        on = self.reach[target]
        through = np.full(int(on.sum()), residual)
        return (
            np.concatenate([start, self.start[on]]),
            np.concatenate([end, self.after[on]]),
            np.concatenate([capacity, through]),
        )

    def dropped_across(self, target: int, in_source_side: NDArray[np.bool_]) -> float:
        """Return at most how much was dropped of what leads from the source's side of a cut to the sink's."""
        reach = self.reach[target]
        from_rows = float(self.row_drop[reach & in_source_side[self.start]].sum())
        use = reach[self.rows]
        kept = np.bincount(self.keys[use].ravel(), self.capacity[use].ravel(), minlength=len(self.end))
        into_keys = (self.received[target] - kept)[~in_source_side[self.end]]
        return min(from_rows, float(into_keys.clip(min=0).sum()))


class Flow(Walker):
    """Attention flow on the streamed strongest edges, with a lower and an upper bound.

    Parameters
    ----------
    topk : int
        Edges that are kept of each query: the largest entries of Â. Where fewer than `width` queries matter, as in the
        top layer, each keeps more, up to `width`.
    width : int
        Queries of each layer whose edges are kept: those that rollout gives most.
    sources : int
        Tokens whose maximum flow through the kept edges is computed: those that rollout gives most. The others have the
        bounds of rollout and of what they can be given.
    residual : float
        As in rollout.
    heads : int or sequence of int, optional
        Which heads of each layer; all by default.
    normalised : bool
        Divide flows by their sum, as published; the bounds are those of the quotient.

    Notes
    -----
    `Found.scores` are the lower bounds: flows that exist. With `topk`, `width` and `sources` of n and more, nothing is
    dropped, and both bounds are the flow itself. Beside a pass a layer, the time is that of `sources` maximum flows
    through ``layers · width · topk`` edges, in Python.
    """

    def __init__(
        self,
        topk: int = 8,
        width: int = 128,
        sources: int = 256,
        residual: float = 0.5,
        heads: int | Sequence[int] | None = None,
        *,
        normalised: bool = True,
    ) -> None:
        for name, number, least in (("topk", topk, 1), ("width", width, 1), ("sources", sources, 0)):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ArgumentError(complaint(name, wanted=f"a whole number from {least}", got=number))
        self.topk, self.width, self.sources = topk, width, sources
        self.residual = checked_share(residual)
        self.heads = heads
        self.normalised = normalised

    def start(self, reading: Reading) -> None:
        self._begun = reading.rows
        self._nodes = START + 1
        self._stages: list[_Stage] = []
        first = self._new(reading.rows.shape[1])
        self._first = first
        self._own = _Level(first, reading.rows, reading.rows)
        self._read: _Level | None = None

    def visit(self, attended: Attended) -> None:
        on_encoder = self._read is not None and attended.side == "encoder" and not attended.cross
        above = self._read if on_encoder and self._read is not None else self._own
        check_one_text(attended, len(above.nodes))
        if attended.cross:
            self._read = self._below(attended, above, self._read)
            after = self._stages[-1].after
            if after is None:
                raise RuntimeError("a cross-attention below which the decoder has no nodes")
            self._own = _Level(after, above.low * self.residual, above.high.clamp(max=self.residual))
        elif on_encoder:
            self._read = self._below(attended, above, None)
        else:
            self._own = self._below(attended, above, None)

    def _below(self, attended: Attended, above: _Level, met: _Level | None) -> _Level:
        """Add a call to the network; return its keys, which may have been `met` in another call."""
        matrix = chosen_heads(attended, self.heads)
        n_key, share = matrix.shape[3], 1 - self.residual
        if attended.cross:
            of_each = matrix.query.new_full((matrix.shape[1],), share / matrix.shape[1], dtype=matrix.accumulator)
            edges = HeadMean(matrix, of_each)
        else:
            edges = WithIdentity(HeadMean(matrix), share)
        reach = above.high > 0
        wanted = reach.any(0)
        # One pass: the strongest edges, rollout, what is carried at most, and the sums that tell what was dropped.
        # Near the target few queries matter, and what one of them drops is lost for all tokens: there each keeps more.
        count = min(max(self.topk, min(self.width, self.topk * self.width // max(1, int(wanted.sum())))), n_key)
        weights = torch.cat([above.low, reach.double()]).unsqueeze(1)
        top, passed, given, sums = ask(
            edges, LimitedTopK(count, wanted), Passed(weights), PassedUpTo(above.high), RowSums(wanted)
        )
        passed, given = passed[:, 0].double().cpu(), given.double().cpu()
        capacity = top.values[0, 0].double().cpu().clamp(min=0)
        rows = self._strongest(above, wanted)
        kept = capacity[rows].sum(1)
        drop = torch.where(wanted, sums[0, 0].double().cpu(), 0.0)
        drop[rows] -= kept
        targets = len(above.low)
        stage = _Stage(
            start=above.nodes,
            end=self._new(n_key) if met is None else met.nodes,
            rows=rows.numpy(),
            keys=top.indices[0, 0].cpu()[rows].numpy(),
            capacity=capacity[rows].numpy(),
            reach=reach.numpy(),
            row_drop=drop.clamp(min=0).numpy(),
            received=passed[targets:].numpy(),
            after=self._new(len(above.nodes)) if attended.cross else None,
        )
        self._stages.append(stage)
        low, high = passed[:targets], given
        if met is not None:
            low, high = low + met.low, high + met.high
        return _Level(stage.end, low, torch.minimum(high, self._begun.sum(1, keepdim=True)))

    def _strongest(self, above: _Level, wanted: Tensor) -> Tensor:
        """Return the queries whose edges are kept, for whichever target."""
        if int(wanted.sum()) <= self.width:
            return wanted.nonzero().flatten()
        best = above.low.topk(self.width, dim=1)
        return best.indices[best.values > 0].unique()

    def _new(self, count: int) -> NDArray[np.int64]:
        nodes = np.arange(self._nodes, self._nodes + count)
        self._nodes += count
        return nodes

    # ---- when all layers are known

    def finish(self) -> Found:
        level = self._own if self._read is None else self._read
        low, high = level.low.clone(), level.high.clone()
        solved = []
        for target in range(len(low)):
            order = level.low[target].argsort(descending=True, stable=True)[: self.sources]
            chosen = [int(token) for token in order if level.low[target, token] > 0]
            solved.append(sorted(chosen))
            self._tighten(target, level, chosen, low[target], high[target])
        high = torch.maximum(high, low)
        notes = {"solved": solved, "widest": (high - low).amax(1).tolist(), "flow": low.sum(1).tolist()}
        if not self.normalised:
            return Found(low, low=low, high=high, notes=notes)
        others_low, others_high = (one.sum(1, keepdim=True) - one for one in (low, high))
        scores = _share(low, others_low)
        # Where bounds meet, three roundings must not put them in another order.
        low, high = torch.minimum(_share(low, others_high), scores), torch.maximum(_share(high, others_low), scores)
        return Found(scores, low=low, high=high, notes=notes)

    def _tighten(self, target: int, level: _Level, tokens: Sequence[int], low: Tensor, high: Tensor) -> None:
        """Raise what flows at least to some tokens and lower what flows at most to any, (n,) each, in place."""
        begun = self._begun[target].numpy()
        parts = [stage.edges(target, self.residual) for stage in self._stages]
        parts.append((np.full(len(begun), START), self._first, begun))
        start, end, capacity = (np.concatenate(column) for column in zip(*parts, strict=True))
        used, places = np.unique(np.concatenate([[START], start, end]), return_inverse=True)
        start_at, end_at = places[1 : len(start) + 1], places[len(start) + 1 :]
        network = Network(start_at, end_at, capacity, len(used))
        for token in tokens:
            sink = int(np.searchsorted(used, level.nodes[token]))
            if sink == len(used) or used[sink] != level.nodes[token]:
                continue
            flow = network.flow(0, sink, enough=float(level.high[target, token]))
            low[token] = max(float(low[token]), flow.value)
            # Nodes that are not in the network are on the sink's side of the first cut, and the source's of the second.
            for side, others in ((flow.reached, False), (~flow.reaching, True)):
                if not side[0] or side[sink]:
                    continue  # enough was found before there was a cut
                across = float(capacity[side[start_at] & ~side[end_at]].sum())
                in_source_side = np.full(self._nodes, others)
                in_source_side[used] = side
                across += sum(stage.dropped_across(target, in_source_side) for stage in self._stages)
                # A cut is one for every token on the sink's side, and the first one mostly has them all there.
                beyond = torch.from_numpy(~in_source_side[level.nodes])
                high[beyond] = high[beyond].clamp(max=across)


@dataclass(frozen=True, eq=False)
class _Level:
    """The tokens between two calls: their nodes, and what each can be given at least and at most, (target, n)."""

    nodes: NDArray[np.int64]
    low: Tensor
    high: Tensor


def _share(one: Tensor, others: Tensor) -> Tensor:
    whole = one + others
    return torch.where(whole > 0, one / torch.where(whole > 0, whole, 1.0), 0.0)
