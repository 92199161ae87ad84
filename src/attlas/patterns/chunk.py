"""The two products and the softmax between them, for many small chunks of rows at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Keys = Sequence[tuple[Tensor, Tensor]]
"""Spans of keys and their values, (chunks or 1, dim, keys) and (chunks or 1, keys, value_dim).

The last span may have further keys in front, as many as there are columns before it: their scores are overwritten by
those of the columns that belong there. So one product fills all columns, which is what a batched product is fast at.
"""


class Scratch:
    """Memory that each step leaves to the next one: fresh pages would cost as much as what is written there."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return a tensor of this shape with anything in it, of the dtype and device of `like`.

        Where gradients may be recorded it is a fresh one each time: what was recorded must stay.
        """
        if torch.is_grad_enabled():
            return like.new_empty(shape)
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.numel() < size or (kept.dtype, kept.device) != (like.dtype, like.device):
            kept = self._kept[name] = like.new_empty(size)
        return kept[:size].view(shape)


@dataclass(frozen=True)
class Bend:
    """What bends scores, beside what hides them.

    Parameters
    ----------
    scale : float
        What products are multiplied with.
    softcap : float, optional
        Scores become ``softcap * tanh(score / softcap)``.
    sinks : Tensor, (chunks, rows, 1), optional
        A logit per row that takes part in the softmax and attends to nothing.
    """

    scale: float
    softcap: float | None = None
    sinks: Tensor | None = None


@dataclass(frozen=True)
class Rules:
    """What chunks' rows may see, and what is added to their scores.

    Parameters
    ----------
    shape : tuple of int
        (batch, kv_head, chunks, group, rows): what the chunks' and rows' axes of the scores are made of.
    hidden : sequence of (slice, Tensor)
        Spans of columns in which something is hidden, and what is added there: 0 or minus infinity; broadcastable to
        `shape` and the span.
    seen : Tensor, optional
        Which keys may be seen, where that takes more than `hidden` to say; broadcastable to `shape` and all columns. A
        row that sees nothing is answered with 0.
    bias : Tensor, optional
        Added to the scores; broadcastable likewise.
    """

    shape: tuple[int, int, int, int, int]
    hidden: Sequence[tuple[slice, Tensor]] = ()
    seen: Tensor | None = None
    bias: Tensor | None = None


def attend_chunks(query: Tensor, keys: Keys, bend: Bend, rules: Rules, scratch: Scratch) -> Tensor:
    """Return softmax(scores) · values of each chunk.

    Parameters
    ----------
    query : Tensor, (chunks, rows, dim)
        Rows of one chunk that share its keys.
    keys : sequence of (Tensor, Tensor)
        Spans of keys, whose scores stand side by side.
    bend : Bend
    rules : Rules
    scratch : Scratch
        Where scores are made.

    Returns
    -------
    Tensor, (chunks, rows, value_dim)
    """
    scores = _scores(query, keys, bend, scratch)
    spare = 0 if bend.sinks is None else 1
    plane = scores.unflatten(1, rules.shape[3:]).unflatten(0, rules.shape[:3])[..., spare:]
    if rules.bias is not None:
        plane.add_(rules.bias)
    for columns, added in rules.hidden:
        plane[..., columns].add_(added)
    hollow = None
    if rules.seen is not None:
        hollow = ~rules.seen.any(-1, keepdim=True)
        # A row of nothing but minus infinity would have no softmax, and no gradient either.
        plane.masked_fill_(~(rules.seen | hollow), -math.inf)
    weights = torch.softmax(scores, -1) if scores.requires_grad else torch.softmax(scores, -1, out=scores)
    out: Tensor | None = None
    first = spare
    for _, value in keys:
        part = weights[..., first : first + value.shape[1]]
        first += value.shape[1]
        if value.shape[0] == 1:
            # The same few values for all chunks: one product.
            given = (part.flatten(0, 1) @ value[0]).unflatten(0, part.shape[:2])
            out = given if out is None else out.add_(given)
        else:
            out = torch.bmm(part, value) if out is None else out.baddbmm_(part, value)
    if out is None:
        raise ValueError("a chunk needs at least one span of keys")
    if hollow is not None and bool(hollow.any()):
        rows = out.unflatten(1, rules.shape[3:]).unflatten(0, rules.shape[:3])
        out = rows.masked_fill(hollow, 0).flatten(0, 2).flatten(1, 2)
    return out


def _scores(query: Tensor, keys: Keys, bend: Bend, scratch: Scratch) -> Tensor:
    """Return scores side by side, the sinks' first: (chunks, rows, columns)."""
    factor = bend.scale / bend.softcap if bend.softcap else bend.scale
    sinks = [] if bend.sinks is None else [bend.sinks]
    widths = [value.shape[1] for _, value in keys]
    if any(tensor.requires_grad for tensor in (query, *(key for key, _ in keys), *sinks)) and torch.is_grad_enabled():
        scaled = query * factor
        own = (key[..., key.shape[2] - width :] for (key, _), width in zip(keys, widths, strict=True))
        scores = torch.cat([torch.matmul(scaled, key) for key in own], dim=-1)
        if bend.softcap:
            scores = torch.tanh(scores) * bend.softcap
        return torch.cat([*sinks, scores], dim=-1)
    stop = len(sinks) + sum(widths)
    scores = scratch.take("scores", (*query.shape[:2], stop), query)
    for (key, _), width in zip(reversed(keys), reversed(widths), strict=True):
        columns = scores[..., stop - key.shape[2] : stop]
        stop -= width
        if key.shape[0] == 1 < query.shape[0]:
            # The same few keys for all chunks: one product.
            columns.copy_((query.flatten(0, 1) @ key[0]).mul_(factor).view(columns.shape))
        else:
            # In place, and straight into its columns: scores are the largest thing here, and not worth a copy.
            columns.baddbmm_(query, key, beta=0, alpha=factor)
    if bend.softcap:
        scores[..., len(sinks) :].tanh_().mul_(bend.softcap)
    if sinks:
        scores[..., :1] = sinks[0]
    return scores
