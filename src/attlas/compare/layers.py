"""Each attention layer before and after: the base's views, what changes them, and the tuned model's views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attlas.compare.changes import Change
from attlas.compare.sides import Sides
from attlas.errors import ArgumentError, complaint
from attlas.models.progress import Progress
from attlas.projections.low_rank import LowRank
from attlas.projections.proving import read_by, written_by
from attlas.projections.views import LayerProjections
from attlas.projections.whole import Projections, projections

ROLES = ("query", "key", "value", "output")


@dataclass(frozen=True, eq=False)
class Pair:
    """One attention layer.

    Parameters
    ----------
    before : LayerProjections
        The base's views.
    deltas : mapping
        Role -> what is added to its heads, float64, (head or kv_head, …): the roles that change at all.
    tuned : LayerProjections, optional
        The tuned model's own views, where there are two models.
    """

    before: LayerProjections
    deltas: Mapping[str, LowRank]
    tuned: LayerProjections | None = None

    @property
    def after(self) -> LayerProjections:
        """The tuned views, in the base's dtype."""
        if self.tuned is not None:
            return self.tuned
        changed: dict[str, Any] = {role: self.exact(role).to(self.before[role].dtype) for role in self.deltas}
        return replace(self.before, **changed, adapters={}, shared=self.before.shared - changed.keys())

    def exact(self, role: str) -> Tensor:
        """Return a tuned matrix of all heads without any rounding but float64's."""
        weight = self.before[role].double()
        delta = self.deltas.get(role)
        return weight if delta is None else weight + delta.to_dense(None)

    @property
    def asks_anew(self) -> bool:
        """Whether the layer's own weights make other scores of the same states."""
        if self.deltas.keys() & {"query", "key"}:
            return True
        if self.tuned is None:
            return False
        extra = ("query_bias", "key_bias")
        norms = ("query_norm", "key_norm")
        same = all(_same(getattr(self.before, name), getattr(self.tuned, name)) for name in extra)
        same &= all(_same_norm(getattr(self.before, name), getattr(self.tuned, name)) for name in norms)
        return not (same and self.before.scale == self.tuned.scale)


def pairs_of(sides: Sides, progress: Progress | None = None) -> tuple[Projections, list[Pair]]:
    """Return the base's projections, and every layer of both sides.

    Raises
    ------
    ArgumentError
        The two models' layers or heads differ; the first that does is named.
    UnsupportedModelError
        A layer cannot be viewed.
    """
    with sides.as_base() as model:
        base = projections(_seen(sides, model), progress=progress)
    if sides.tuned is None:
        return base, [Pair(view, _deltas(view, sides.changes)) for view in base]
    tuned = projections(sides.tuned.model, progress=progress)
    _check_layout(base, tuned)
    return base, [_of_two(old, new) for old, new in zip(base, tuned, strict=True)]


def _seen(sides: Sides, model: Any) -> Any:
    lm = sides.base.lm
    return lm if lm is not None and lm.model is model else model


def _deltas(view: LayerProjections, changes: Mapping[str, Change]) -> dict[str, LowRank]:
    found = {}
    for role in ROLES:
        change = changes.get(view.modules.get(role, ""))
        if change is None:
            continue
        delta = _delta(view, role, change)
        # A part of a fused weight may be left as it is.
        if bool((delta.norm() > 0).any()):
            found[role] = delta
    return found


def _delta(view: LayerProjections, role: str, change: Change) -> LowRank:
    """Return what a change of a module's weight makes of each head of a role."""
    width = view[role].shape[1 if role == "output" else 2]
    if change.factored and change.part is not None and change.part.rank <= width:
        down, up = change.factors()
        return written_by(view.heads, down, up) if role == "output" else read_by(view.rows[role], down, up)
    dense = change.delta()
    if role == "output":
        return _thin(dense.unflatten(1, (view.heads, -1)).permute(1, 2, 0))
    return _thin(dense[view.rows[role]].transpose(1, 2))


def _of_two(old: LayerProjections, new: LayerProjections) -> Pair:
    deltas = {}
    for role in ROLES:
        delta = new[role].double() - old[role].double()
        if bool(delta.any()):
            deltas[role] = _thin(delta)
    return Pair(old, deltas, new)


def _thin(delta: Tensor) -> LowRank:
    """Hold (head, rows, cols) as a product whose inner width is the smaller side."""
    rows, cols = delta.shape[-2:]
    identity = torch.eye(min(rows, cols), dtype=delta.dtype, device=delta.device)
    return LowRank(delta, identity) if cols <= rows else LowRank(identity, delta)


def _check_layout(base: Projections, tuned: Projections) -> None:
    way_out = "compare a fine-tune with the model that it was made from"

    def refuse(wanted: str, got: str) -> None:
        raise ArgumentError(complaint("tuned", wanted=wanted, got=got, way_out=way_out))

    if len(base) != len(tuned):
        refuse(f"{len(base)} attention layers, as base has", f"{len(tuned)}")
    for old, new in zip(base, tuned, strict=True):
        for what, label in (("heads", "heads"), ("kv_heads", "key heads"), ("dim", "numbers a head")):
            wanted, got = getattr(old, what), getattr(new, what)
            if wanted != got:
                refuse(
                    f"{wanted} {label} in layer {old.layer} ({old.name}), as base has", f"{got}, the first that differs"
                )
        for role in ROLES:
            if old[role].shape != new[role].shape:
                refuse(
                    f"a {role} of {tuple(old[role].shape)} in layer {old.layer} ({old.name}), as base has",
                    f"{tuple(new[role].shape)}, the first that differs",
                )


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and torch.equal(first, second.to(first))


def _same_norm(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return _same(first.gain, second.gain) and _same(first.bias, second.bias) and first.eps == second.eps
