"""How each head's QK and OV changed, from factors no wider than twice an adapter's rank or a head: exact, never d × d.

The difference of two products splits into two, ``W_Q' W_K'ᵀ − W_Q W_Kᵀ = ΔQ W_K'ᵀ + W_Q ΔKᵀ``, and likewise
``ΔV W_O' + W_V ΔO``: each has the width of what changed. An adapter of rank r gives at most 2r, a full fine-tune at
most twice the head's width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.compare.layers import ROLES, Pair
from attlas.compare.records import CircuitChange, LayerChange
from attlas.projections import factors
from attlas.projections.factors import Factors
from attlas.projections.low_rank import LowRank
from attlas.projections.subspaces import basis

KEPT = 8
"""Singular values that are kept of each head."""


def layer_change(pair: Pair, directions: int, merge_dtype: torch.dtype) -> LayerChange:
    """Measure how one layer's heads changed; everything in float64."""
    view = pair.before
    query, output = view.query.double(), view.output.double()
    key, value = _shared(view.key.double(), view.group), _shared(view.value.double(), view.group)
    qk = circuit_change(LowRank(query, key.mT), qk_delta(pair), directions)
    ov = circuit_change(LowRank(value, output), ov_delta(pair), directions)
    relative, lost, moved = {}, torch.zeros(view.heads).double(), torch.zeros(view.heads).double()
    for role in ROLES:
        base, delta = view[role].double(), pair.deltas.get(role)
        group = view.heads // base.shape[0]
        if delta is None:
            relative[role] = torch.zeros(view.heads).double()
            continue
        change = delta.to_dense(None)
        exact = base + change
        error = exact.to(merge_dtype).double() - exact
        relative[role] = _each(_norm(change) / _norm(base), group)
        lost += _each(_norm(error).square(), group)
        moved += _each(_norm(change).square(), group)
    return LayerChange(
        layer=view.layer,
        name=view.name,
        heads=view.heads,
        group=view.group,
        qk=qk,
        ov=ov,
        relative=relative,
        biases=_biases(pair),
        merge_loss=(lost / moved).sqrt(),
    )


def qk_delta(pair: Pair) -> LowRank | None:
    """Return ΔQK of every head, (head, d_model, d_key); None where neither queries nor keys changed."""
    query, key = pair.deltas.get("query"), pair.deltas.get("key")
    group, parts = pair.before.group, []
    if query is not None:
        parts.append(query.between(after=_shared(pair.exact("key"), group).mT))
    if key is not None:
        parts.append(_grouped(key, group).T.between(before=pair.before.query.double()))
    return _sum(parts)


def ov_delta(pair: Pair) -> LowRank | None:
    """Return ΔOV of every head, (head, d_key, d_out); None where neither values nor outputs changed."""
    value, output = pair.deltas.get("value"), pair.deltas.get("output")
    group, parts = pair.before.group, []
    if value is not None:
        parts.append(_grouped(value, group).between(after=pair.exact("output")))
    if output is not None:
        parts.append(output.between(before=_shared(pair.before.value.double(), group)))
    return _sum(parts)


def circuit_change(base: LowRank, delta: LowRank | None, directions: int) -> CircuitChange:
    """Measure a difference of products against the base's."""
    heads, size = base.shape[0], base.norm()
    if delta is None:
        nothing, unknown = torch.zeros(heads).double(), torch.full((heads,), torch.nan).double()
        singular = torch.zeros(heads, 1).double()
        chance = (unknown, unknown)
        return CircuitChange(
            size, nothing, nothing.long(), nothing, nothing, singular, unknown, unknown, unknown, chance
        )
    u, s, vh = delta.svd()
    product = Factors.of(delta.left, delta.right)
    rank = (s > product.unscaled(product.rounding())[:, None]).sum(-1)
    s = torch.where(torch.arange(s.shape[-1]) < rank[:, None], s, 0.0)
    k = min(directions, s.shape[-1])
    # A head of smaller rank has fewer directions: the others count as none.
    real = (torch.arange(k) < rank[:, None]).double()
    left, right = u[..., :k] * real[:, None], vh[:, :k].mT * real[:, None]
    within = torch.linalg.matrix_norm((left.mT @ base.left) @ (base.right @ right))
    count = real.sum(-1)
    reads, writes = basis(base.left), basis(base.right.mT)
    return CircuitChange(
        base=size,
        change=s.norm(dim=-1),
        rank=rank,
        effective_rank=factors.effective_rank(s),
        stable_rank=factors.stable_rank(s),
        singular=s[:, :KEPT].contiguous(),
        amplification=s[:, :k].norm(dim=-1) / within,
        left=_overlap(left, reads, count),
        right=_overlap(right, writes, count),
        chance=(_chance(reads, count), _chance(writes, count)),
    )


def _overlap(directions: Tensor, space: Tensor, count: Tensor) -> Tensor:
    """Return how much of orthonormal directions lies within a space, from 0 to 1; NaN without any direction."""
    return (directions.mT @ space).square().sum((-2, -1)) / _fewer(space, count)


def _fewer(space: Tensor, count: Tensor) -> Tensor:
    width = space.square().sum((-2, -1)).round()
    return torch.minimum(count, width)


def _chance(space: Tensor, count: Tensor) -> Tensor:
    """Return the mean of `_overlap` over random directions: r₁r₂/d over the fewer of both."""
    width = space.square().sum((-2, -1)).round()
    return count * width / space.shape[-2] / _fewer(space, count)


def _biases(pair: Pair) -> Tensor:
    total = torch.zeros(pair.before.heads).double()
    if pair.tuned is None:
        return total
    for role in ("query", "key", "value"):
        old, new = getattr(pair.before, f"{role}_bias"), getattr(pair.tuned, f"{role}_bias")
        if old is not None and new is not None:
            moved = (new.double() - old.double()).norm(dim=-1).square()
            total += _each(moved, pair.before.heads // len(moved))
    return total.sqrt()


def _sum(parts: list[LowRank]) -> LowRank | None:
    if len(parts) == 2:
        return parts[0] + parts[1]
    return parts[0] if parts else None


def _shared(stack: Tensor, group: int) -> Tensor:
    """Return each query head's own of what groups share, (head, rows, cols); a copy only for groups."""
    return stack if group == 1 else stack.repeat_interleave(group, dim=0)


def _grouped(stack: LowRank, group: int) -> LowRank:
    if group == 1:
        return stack
    left, right = (t if t.dim() == 2 else _shared(t, group) for t in (stack.left, stack.right))
    return LowRank(left, right)


def _each(values: Tensor, group: int) -> Tensor:
    return values.repeat_interleave(group)


def _norm(stack: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(stack)
