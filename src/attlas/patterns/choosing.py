"""Running a pattern whose heads choose their keys themselves: each chunk of a head's rows gathers its own keys."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own abbreviation
from torch import Tensor

from attlas.matrix import AttentionMatrix
from attlas.matrix.hiding import hidden_by
from attlas.matrix.visibility import Formula, Visibility, looked_up, take_shared
from attlas.patterns.chunk import Bend, Rules, Scratch, attend_chunks
from attlas.patterns.keep import Keep, Run
from attlas.patterns.running import Piece, in_pieces, streamed


class ChosenKeep(Keep):
    """A keep of which each batch element and head has its own.

    A kind holds the choices of the matrix that it was made for, and finds them again by the ids that the matrix's
    formulas are called with, which survive narrowing. Every row keeps its own position.
    """

    late: int
    """How many of the gathered keys, the first ones, may come after their row."""

    unit: int = 1
    """How many keys that follow one another are always gathered together, from a multiple of this number on."""

    @abstractmethod
    def runs(self, n_query: int, n_key: int) -> Iterator[Run]:
        """Cut rows into chunks; each run has one span of keys, as long as what a chunk gathers."""

    @abstractmethod
    def gathered(self, batches: Tensor, heads: Tensor, positions: Tensor) -> Tensor:
        """Return the keys that chunks of rows keep, (batch, head, chunks, keys); −1 for a place without a key.

        Parameters
        ----------
        batches, heads : Tensor, (batch,) and (head,)
            Which heads, by their ids.
        positions : Tensor, (chunks, rows)
        """


def attend(exact: AttentionMatrix, value: Tensor, keep: ChosenKeep) -> Tensor:
    """Return ``restricted(exact, keep) @ value``, the fast way; see `attlas.patterns.running.attend`.

    Notes
    -----
    Keys and values are copied together for each chunk: `Work.moved` counts them.
    """
    runs = [run for run in keep.runs(*exact.shape[2:]) if run.width]
    if not runs:
        return streamed(exact, value, keep)

    stores = [_in_units(tensor, keep.unit) for tensor in (exact.key, value)]

    def work(heads: AttentionMatrix, values: Tensor, piece: Piece, scratch: Scratch) -> Tensor:
        del values
        key, own = (take_shared(store, exact.shape[1], piece.batch, piece.head) for store in stores)
        return _attend_piece(keep, heads, key, own, piece, scratch)

    out = in_pieces(exact, value, keep, runs, work)
    return streamed(exact, value, keep) if math.isnan(float(out.detach().sum())) else out


def _attend_piece(
    keep: ChosenKeep, heads: AttentionMatrix, key: Tensor, value: Tensor, piece: Piece, scratch: Scratch
) -> Tensor:
    batch, head = heads.shape[:2]
    rules, dtype = heads.visibility, heads.accumulator
    rows = piece.row_indices(heads.device)
    count, height = rows.shape
    positions = rows + rules.offset
    keys = keep.gathered(rules.batches, rules.heads, positions)
    places = keys.clamp(min=0)
    query = heads.query[:, :, piece.rows].to(dtype).unflatten(2, (count, height)).flatten(0, 2)
    units = places[..., :: keep.unit] // keep.unit
    near = [
        _gathered(store, head, units, keep.unit, name, scratch).to(dtype)
        for name, store in (("keys", key), ("values", value))
    ]
    sinks = None
    if heads.sinks is not None:
        sinks = heads.sinks.to(dtype).view(1, head, 1, 1).expand(batch, -1, count, height).reshape(-1, height, 1)
    shape = (batch, head, count, 1, height)
    late = _late(keep, rules, positions, keys)
    if rules.mask is None and rules.window is None and heads.bias is None:
        hidden = [(slice(0, keep.late), _added(late, dtype).unsqueeze(3))]
        rest = slice(keep.late, keys.shape[3])
        there = keys[..., rest] >= 0
        if not bool(there.all()):
            hidden.append((rest, _added(there, dtype)[:, :, :, None, None]))
        by_head = Rules(shape, hidden)
    else:
        seen = (keys[..., keep.late :] >= 0).unsqueeze(-2).expand(-1, -1, -1, height, -1)
        seen = torch.cat([late, seen], dim=-1)
        if rules.window is not None:
            seen &= (positions.unsqueeze(-1) - places.unsqueeze(-2)).abs() < rules.window
        own, bias = _own_rules(heads, positions, places)
        seen = seen if own is None else seen & own
        by_head = Rules(shape, seen=seen.unsqueeze(3), bias=None if bias is None else bias.unsqueeze(3))
    out = attend_chunks(query, [(near[0].mT, near[1])], Bend(heads.scale, heads.softcap, sinks), by_head, scratch)
    return out.view(batch, head, count * height, -1)


def _late(keep: ChosenKeep, rules: Visibility, positions: Tensor, keys: Tensor) -> Tensor:
    """Return which of the first gathered keys rows see; boolean, (batch, head, chunks, rows, late)."""
    keys = keys[..., : keep.late]
    seen = (keys >= 0).unsqueeze(-2).expand(-1, -1, -1, positions.shape[1], -1)
    return seen & (keys.unsqueeze(-2) <= positions.unsqueeze(-1)) if rules.causal else seen


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what hides the rest: 0, or minus infinity."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -math.inf)


def _in_units(tensor: Tensor, unit: int) -> Tensor:
    """Return keys or values with as many more as complete the last unit."""
    missing = -tensor.shape[2] % unit
    return F.pad(tensor, (0, 0, 0, missing)) if missing else tensor


def _gathered(tensor: Tensor, head: int, units: Tensor, unit: int, name: str, scratch: Scratch) -> Tensor:
    """Copy each head's chosen units of keys or values together; (batch · head · chunks, keys, width)."""
    batch, kv_head, n_key, width = tensor.shape
    first = torch.arange(batch * kv_head, device=units.device).view(batch, kv_head) * (n_key // unit)
    first = first.repeat_interleave(head // kv_head, dim=1)[:, :, None, None]
    places, stored = (first + units).flatten(), tensor.reshape(-1, unit * width)
    if tensor.requires_grad:
        chosen = stored.index_select(0, places)
    else:
        chosen = torch.index_select(stored, 0, places, out=scratch.take(name, (len(places), unit * width), stored))
    return chosen.view(-1, units.shape[3] * unit, width)


def _own_rules(heads: AttentionMatrix, positions: Tensor, keys: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return what the matrix's own mask and bias say, (batch, head, chunks, rows, keys); None where there is none."""
    mask, bias, rules = heads.visibility.mask, heads.bias, heads.visibility
    seen = None if mask is None else _asked(mask, rules, positions, keys)
    if bias is None:
        return seen, None
    added = _asked(bias, rules, positions, keys)
    hidden = hidden_by(added)
    return (~hidden if seen is None else seen & ~hidden), added.masked_fill(hidden, 0).to(heads.accumulator)


def _asked(of: Tensor | Formula, rules: Visibility, positions: Tensor, keys: Tensor) -> Tensor:
    """Ask a mask or a bias for the chosen keys of one chunk after the other."""
    formula = looked_up(of, rules) if isinstance(of, Tensor) else of
    batches, heads = rules.batches.view(-1, 1, 1, 1), rules.heads.view(1, -1, 1, 1)
    full = (*keys.shape[:2], positions.shape[1], keys.shape[3])
    parts = [
        formula(batches, heads, own.view(1, 1, -1, 1), keys[:, :, chunk].unsqueeze(2)).expand(full)
        for chunk, own in enumerate(positions)
    ]
    return torch.stack(parts, dim=2)
