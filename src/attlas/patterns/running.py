"""Running a pattern that keeps a few keys of each row: chunks of rows, each with the keys that it needs and no others.

A chunk is two small products with a softmax between them. Its heads that share keys are stacked on top of each other,
so that a chunk can be low, and waste little, while its products stay large. Chunks that look alike go through one
batched product; their keys are an overlapping view of the matrix's own, never a copy. So many chunks run at once as
have scores that fit the cores' caches. With gradients the same steps are recorded by automatic differentiation.

The first rows of a causal matrix keep all that they see, and PyTorch's fused kernel answers them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.matrix import AttentionMatrix
from attlas.matrix.hiding import hidden_by
from attlas.matrix.visibility import Formula, Visibility, take, take_shared
from attlas.patterns.chunk import Bend, Rules, Scratch, attend_chunks
from attlas.patterns.fused import fused, fused_fits
from attlas.patterns.keep import NEIGHBOURS, FixedKeep, HeadKeep, Keep, Run, restricted

SCORES = 2**18
"""Scores that a core works on at a time: 1 MiB in float32, as large as many a core's own cache."""

RECORDED = 2**20
"""Scores of one step where gradients are recorded; every step's weights are kept then anyway."""

ACCELERATOR_SCORES = 2**26
"""Scores of one step on an accelerator."""

GAP = 16
"""Hidden columns this near to each other are hidden together."""


@dataclass(frozen=True)
class Piece:
    """What one step does: some chunks of a run, for some batch elements and heads."""

    batch: slice
    head: slice
    run: Run
    chunks: slice

    @property
    def rows(self) -> slice:
        """The rows that it answers."""
        rows, shift = self.run.rows, self.run.shift
        return slice(rows[0] + self.chunks.start * shift, rows[-1] + (self.chunks.stop - 1) * shift + 1, rows.step)

    def row_indices(self, device: torch.device) -> Tensor:
        """Return the rows of each chunk, (chunks, rows)."""
        rows = self.rows
        return torch.arange(rows.start, rows.stop, rows.step, device=device).view(-1, len(self.run.rows))

    def key_indices(self, device: torch.device) -> Tensor:
        """Return the keys of each chunk, the fixed ones first, (chunks, keys)."""
        shifts = torch.arange(self.chunks.start, self.chunks.stop, device=device) * self.run.shift
        fixed = torch.tensor(self.run.fixed, dtype=torch.int64, device=device).expand(len(shifts), -1)
        near = torch.tensor([key for keys in self.run.keys for key in keys], dtype=torch.int64, device=device)
        return torch.cat([fixed, shifts.unsqueeze(1) + near], dim=1)


def attend(exact: AttentionMatrix, value: Tensor, keep: FixedKeep) -> Tensor:
    """Return ``restricted(exact, keep) @ value``, the fast way.

    Parameters
    ----------
    exact : AttentionMatrix, (batch, head, n_query, n_key)
        Any visibility, bias, soft cap and sinks.
    value : Tensor, (batch, kv_head, n_key, value_dim)
        With as many heads as the keys have, or one a head.
    keep : FixedKeep
        What is kept.

    Returns
    -------
    Tensor, (batch, head, n_query, value_dim)
        In the dtype of `value`; with a gradient where one is asked for.

    Notes
    -----
    Time is that of the pairs that its runs count; memory is that of the answer, and of a few chunks' scores a thread.
    Scores that float32 cannot hold are left to the streaming product, which can, or says what overflows.
    """
    runs = [run for run in keep.runs(*exact.shape[2:]) if run.width]
    if not runs:
        return streamed(exact, value, keep)
    out = in_pieces(exact, value, keep, runs, _Sight(keep, exact.visibility).attend)
    # One overflow makes a whole sum NaN, and a sum is cheap.
    return streamed(exact, value, keep) if math.isnan(float(out.detach().sum())) else out


def attend_by_head(exact: AttentionMatrix, value: Tensor, keep: HeadKeep) -> Tensor:
    """Return ``restricted(exact, keep) @ value``, one head after the other; see `attend`."""
    batch, head, _, _ = exact.shape
    parts = []
    for b in range(batch):
        for h in range(head):
            one = slice(b, b + 1), slice(h, h + 1)
            parts.append(attend(exact.narrow(*one), take_shared(value, head, *one), keep.of(b, h)))
    return torch.cat(parts).unflatten(0, (batch, head)).squeeze(2)


def streamed(exact: AttentionMatrix, value: Tensor, keep: Keep) -> Tensor:
    """Return ``restricted(exact, keep) @ value`` the slow way, which holds for all numbers and rules."""
    return restricted(exact, keep) @ value


class _Sight:
    """What the rows of a keep's runs see, for the heads of one matrix.

    Parameters
    ----------
    keep : FixedKeep
    visibility : Visibility
        The matrix's own rules.
    """

    def __init__(self, keep: FixedKeep, visibility: Visibility) -> None:
        self._keep = keep
        self._visibility = visibility
        self._nearby: dict[Run, Tensor] = {}
        self._hidden: dict[Run, list[tuple[slice, Tensor]] | None] = {}

    def attend(self, heads: AttentionMatrix, value: Tensor, piece: Piece, scratch: Scratch) -> Tensor:
        """Answer a piece; (batch, head, rows, value_dim)."""
        count, height = piece.chunks.stop - piece.chunks.start, len(piece.run.rows)
        batch, head, _, _ = heads.shape
        kv_head, dtype = heads.key.shape[1], heads.accumulator
        group = head // kv_head
        query = heads.query[:, :, piece.rows].to(dtype).unflatten(2, (count, height)).unflatten(1, (kv_head, group))
        query = query.transpose(2, 3).reshape(batch * kv_head * count, group * height, -1)
        before = len(piece.run.fixed) + (heads.sinks is not None)
        spans = list(zip(_spans(heads.key, piece, dtype, before), _spans(value, piece, dtype), strict=True))
        sinks = None
        if heads.sinks is not None:
            sinks = heads.sinks.to(dtype).view(1, kv_head, 1, group, 1)
            sinks = sinks.expand(batch, -1, count, -1, height).reshape(len(query), -1, 1)
        rules = self._rules(heads, piece, (batch, kv_head, count, group, height))
        out = attend_chunks(
            query, [(k.mT, v) for k, v in spans], Bend(heads.scale, heads.softcap, sinks), rules, scratch
        )
        out = out.view(batch, kv_head, count, group, height, -1).transpose(2, 3)
        return out.reshape(batch, head, count * height, -1)

    def _rules(self, heads: AttentionMatrix, piece: Piece, shape: tuple[int, int, int, int, int]) -> Rules:
        run = piece.run
        nearby, fixed = self._near(run), self._fixed(piece)
        width = len(run.fixed)
        if run not in self._hidden:
            corners = [(_moved(s, width), a.to(heads.accumulator)) for s, a in _corners(nearby)]
            # Where some row sees none of its keys, hiding them is not enough.
            self._hidden[run] = corners if bool(nearby.any(1).all()) else None
        corners = self._hidden[run]
        if corners is not None and heads.visibility.mask is None and heads.bias is None:
            hidden = list(corners)
            if fixed is not None:
                added = torch.zeros(fixed.shape, dtype=heads.accumulator, device=fixed.device)
                hidden.append((slice(0, width), added.masked_fill_(~fixed, -math.inf).unsqueeze(1)))
            return Rules(shape, hidden)
        if fixed is None:
            fixed = nearby.new_ones((1, len(run.rows), width))
        seen = torch.cat([fixed, nearby.expand(len(fixed), -1, -1)], dim=-1)[None, None, :, None]
        own, bias = own_rules(heads, piece.row_indices(heads.device), piece.key_indices(heads.device))
        return Rules(shape, seen=seen if own is None else seen & own, bias=bias)

    def _near(self, run: Run) -> Tensor:
        """Return what a chunk's rows see of the keys beside them; boolean, (rows, keys)."""
        if run not in self._nearby:
            device = self._visibility.batches.device
            rows = torch.arange(run.rows.start, run.rows.stop, run.rows.step, device=device)
            keys = torch.cat([torch.arange(k.start, k.stop, k.step, device=device) for k in run.keys])
            seen = self._visibility.band(rows, keys)
            positions = (rows + self._visibility.offset).unsqueeze(1)
            if run.count > 1:
                seen &= self._keep.near(positions, keys)
            elif not run.whole:
                seen &= self._keep(keys, keys, positions, keys)
            self._nearby[run] = seen
        return self._nearby[run]

    def _fixed(self, piece: Piece) -> Tensor | None:
        """Return what rows see of the keys that all rows keep: (chunks, rows, keys); None if that is all of them."""
        run, seen = piece.run, self._visibility
        if not run.fixed:
            return None
        nearest = min((keys[0] for keys in run.keys if keys), default=0) + piece.chunks.start * run.shift
        last, first = max(run.fixed), piece.rows.start + seen.offset
        if seen.window is None and last < nearest and (last <= first or not seen.causal):
            return None
        rows = piece.row_indices(seen.batches.device)
        fixed = torch.tensor(run.fixed, device=rows.device)
        kept = seen.band(rows.flatten(), fixed).unflatten(0, rows.shape)
        return kept if run.count == 1 else kept & ~self._keep.near(rows.unsqueeze(-1) + seen.offset, fixed)


def _spans(tensor: Tensor, piece: Piece, dtype: torch.dtype, before: int = 0) -> Iterator[Tensor]:
    """Yield a piece's spans of keys or values, the fixed ones first: (chunks or 1, keys, width).

    A single span of keys beside the rows begins `before` keys earlier where there are so many; see `Keys`.
    """
    run, first, count = piece.run, piece.chunks.start, piece.chunks.stop - piece.chunks.start
    heads = tensor.shape[0] * tensor.shape[1]
    if run.fixed:
        lasting = range(run.fixed[0], run.fixed[-1] + 1)
        if len(lasting) == len(run.fixed):
            fixed = tensor[:, :, lasting.start : lasting.stop].to(dtype)
        else:
            fixed = tensor.index_select(2, torch.tensor(run.fixed, device=tensor.device)).to(dtype)
        if heads > 1:
            fixed = fixed.unsqueeze(2).expand(-1, -1, count, -1, -1)
        yield fixed.reshape(-1, *fixed.shape[-2:])
    near = []
    for keys in run.keys:
        if not keys:
            continue
        start, last = keys[0] + first * run.shift, keys[-1] + (first + count - 1) * run.shift
        spare = before if len(run.keys) == 1 and start >= before * keys.step else 0
        span = tensor[:, :, start - spare * keys.step : last + 1 : keys.step].to(dtype)
        # Keys of chunks that follow one another overlap; a view of one head's needs no copy.
        span = span.unsqueeze(2) if count == 1 else span.unfold(2, spare + len(keys), len(run.rows)).mT
        near.append(span.reshape(heads * count, spare + len(keys), -1))
    if count == 1 and len(near) > NEIGHBOURS:
        yield torch.cat(near, dim=1)
    else:
        yield from near


def _corners(seen: Tensor) -> list[tuple[slice, Tensor]]:
    """Return the spans of columns in which something is hidden, and what is added there, (rows, columns)."""
    columns = (~seen).any(0).nonzero().flatten().tolist()
    spans: list[slice] = []
    for column in columns:
        if spans and column <= spans[-1].stop + GAP:
            spans[-1] = slice(spans[-1].start, column + 1)
        else:
            spans.append(slice(column, column + 1))
    zeros = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -math.inf)
    return [(span, zeros[:, span].contiguous()) for span in spans]


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def own_rules(heads: AttentionMatrix, rows: Tensor, keys: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return what a matrix's own mask and bias say of chunks of rows and their keys.

    Parameters
    ----------
    heads : AttentionMatrix, (batch, head, n_query, n_key)
    rows, keys : Tensor, (chunks, rows) and (chunks, keys)
        Indices.

    Returns
    -------
    seen : Tensor or None
        Boolean, broadcastable to (batch, kv_head, chunks, group, rows, keys); None where that is all.
    bias : Tensor or None
        Likewise, in the dtype that scores have; 0 where a key is hidden by it.
    """
    mask, bias = heads.visibility.mask, heads.bias
    seen = None
    if isinstance(mask, Tensor) and mask.shape[1] == mask.shape[2] == 1:
        padding = mask.expand(-1, -1, -1, heads.shape[3])[:, 0, 0][:, keys]
        seen = None if bool(padding.all()) else padding[:, None, :, None, None]
    elif mask is not None:
        seen = _stacked(heads, mask, rows, keys)
    if bias is None:
        return seen, None
    added = _stacked(heads, bias, rows, keys)
    hidden = hidden_by(added)
    seen = ~hidden if seen is None else seen & ~hidden
    return seen, added.masked_fill(hidden, 0).to(heads.accumulator)


def _stacked(heads: AttentionMatrix, of: Tensor | Formula, rows: Tensor, keys: Tensor) -> Tensor:
    """Ask a mask or a bias for one chunk after the other: (batch, kv_head, chunks, group, rows, keys), any may be 1."""
    parts = []
    for own, kept in zip(rows, keys, strict=True):
        if isinstance(of, Tensor):
            parts.append(take(take(of, 2, own), 3, kept))
        else:
            parts.append(heads.visibility.evaluate(of, own, kept))
    stacked = torch.stack(parts, dim=2)
    kv_head = heads.key.shape[1]
    by_head = (1, 1) if stacked.shape[1] == 1 else (kv_head, stacked.shape[1] // kv_head)
    return stacked.unflatten(1, by_head).transpose(2, 3)


Work = Callable[[AttentionMatrix, Tensor, Piece, Scratch], Tensor]
"""``work(heads, values, piece, scratch)``: what a piece gives, (batch, head, rows, value_dim), from its heads alone."""


def in_pieces(exact: AttentionMatrix, value: Tensor, keep: Keep, runs: Sequence[Run], work: Work) -> Tensor:
    """Answer the runs of a keep's rows piece by piece; rows of no run are 0."""
    tensors = (exact.query, exact.key, value, exact.sinks, exact.bias)
    if value.shape[1] != exact.key.shape[1]:
        # Values of their own for each head: then keys are not shared either.
        exact, value = _apart(exact), value.repeat_interleave(exact.shape[1] // value.shape[1], dim=1)
    recorded = torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)
    if recorded:
        return _recorded(exact, value, runs, work)
    batch, head, n_query, n_key = exact.shape
    covered = sum(run.count * len(run.rows) for run in runs if not run.whole)
    # Heads side by side in memory are what the projection after them wants.
    like = value.new_empty if covered == n_query else value.new_zeros
    out = like((batch, n_query, head, value.shape[3])).transpose(1, 2)
    count = keep.first_rows(n_query, n_key, causal=exact.visibility.causal)
    if count and (first := _first_rows(exact, value, count)) is not None:
        out[:, :, :count] = first
        runs = [run for run in runs if run.last >= count]
    budget = SCORES * torch.get_num_threads() if exact.device.type == "cpu" else ACCELERATOR_SCORES
    narrowed: dict[tuple[int, int, int, int], tuple[AttentionMatrix, Tensor]] = {}
    scratch = Scratch()
    with torch.no_grad(), torch.autocast(exact.device.type, enabled=False):
        for run in sorted(runs, key=lambda run: run.whole):
            for piece in _cut(exact, run, budget):
                if _place(piece) not in narrowed:
                    own = take_shared(value, head, piece.batch, piece.head)
                    narrowed[_place(piece)] = exact.narrow(piece.batch, piece.head), own
                out[piece.batch, piece.head, piece.rows] = work(*narrowed[_place(piece)], piece, scratch)
    return out


def _first_rows(exact: AttentionMatrix, value: Tensor, count: int) -> Tensor | None:
    """Answer the first rows, which keep all that they see, by the fused kernel; None where its arithmetic differs."""
    seen = exact.visibility
    n_key = count + seen.offset
    if seen.window is not None or exact.bias is not None or not isinstance(seen.mask, Tensor | None):
        return None
    mask = seen.mask
    if mask is not None and mask.shape[3] > 1:
        mask = mask[..., :n_key]
    part = AttentionMatrix(
        exact.query[:, :, :count],
        exact.key[:, :, :n_key],
        exact.scale,
        causal=True,
        mask=mask,
        softcap=exact.softcap,
        sinks=exact.sinks,
    )
    return fused(part, value[:, :, :n_key]) if fused_fits(part, value) else None


def _apart(exact: AttentionMatrix) -> AttentionMatrix:
    """Return the matrix with keys of its own for each head."""
    key = exact.key.repeat_interleave(exact.shape[1] // exact.key.shape[1], dim=1)
    apart = AttentionMatrix(exact.query, key, exact.scale, bias=exact.bias, softcap=exact.softcap, sinks=exact.sinks)
    return apart.with_visibility(exact.visibility)


def _recorded(exact: AttentionMatrix, value: Tensor, runs: Sequence[Run], work: Work) -> Tensor:
    """Do the same with gradients, all heads at once."""
    batch, head, n_query, _ = exact.shape
    every = (slice(0, batch), slice(0, head))
    parts: list[Tensor] = [value.new_zeros((batch, head, 1, value.shape[3]))]
    place = torch.zeros(n_query, dtype=torch.int64)
    count = 1
    scratch = Scratch()
    with torch.autocast(exact.device.type, enabled=False):
        for run in runs:
            step = max(1, RECORDED // (batch * head * len(run.rows) * run.width))
            for first in range(0, run.count, step):
                piece = Piece(*every, run, slice(first, min(first + step, run.count)))
                part = work(exact, value, piece, scratch).to(value.dtype)
                parts.append(part)
                place[piece.rows] = torch.arange(count, count + part.shape[2])
                count += part.shape[2]
    # Rows that come from several runs are taken from the last.
    return torch.cat(parts, dim=2).index_select(2, place.to(exact.device))


def _place(piece: Piece) -> tuple[int, int, int, int]:
    return piece.batch.start, piece.batch.stop, piece.head.start, piece.head.stop


def _cut(exact: AttentionMatrix, run: Run, budget: int) -> Iterator[Piece]:
    """Cut a run into pieces of at most so many scores: by chunks, then by heads and batch elements."""
    batch, head, _, _ = exact.shape
    kv_head = exact.key.shape[1]
    group = head // kv_head
    chunk = group * len(run.rows) * run.width
    chunks = min(max(1, budget // chunk), run.count)
    # Chunks of a single head need no copy of their keys.
    alone = run.count > 1 and exact.device.type == "cpu"
    kv_heads = 1 if alone else min(max(1, budget // (chunk * chunks)), kv_head)
    batches = 1 if alone or kv_heads < kv_head else min(max(1, budget // (chunk * chunks * kv_head)), batch)
    for first in range(0, run.count, chunks):
        for b in range(0, batch, batches):
            for h in range(0, kv_head, kv_heads):
                heads = slice(h * group, min(h + kv_heads, kv_head) * group)
                yield Piece(slice(b, min(b + batches, batch)), heads, run, slice(first, min(first + chunks, run.count)))
