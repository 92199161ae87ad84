"""How many parameters the projections have, layer by layer, and what share of the model that is."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attlas.projections.low_rank import LowRank
from attlas.projections.views import LayerProjections

ROLES = ("query", "key", "value", "output")


@dataclass(frozen=True)
class ProjectionCount:
    """The parameters of one projection of one layer.

    Parameters
    ----------
    layer : int
    name : str
        The module that holds them.
    projection : {"query", "key", "value", "output"}
    parameters : int
        Of the weight and the bias, adapters left out.
    adapter : int
        Of unmerged adapters. What a fused projection's adapter shares is counted with its first role.
    shared_with : int, optional
        The earlier layer that has the very same weight; it is not counted again in a total.
    """

    layer: int
    name: str
    projection: str
    parameters: int
    adapter: int
    shared_with: int | None


@dataclass(frozen=True, repr=False)
class ParameterCounts:
    """The parameters of all projections.

    Parameters
    ----------
    counts : tuple of ProjectionCount
        A row for each layer and projection.
    model : int
        The parameters of the whole model, tied ones once.
    """

    counts: tuple[ProjectionCount, ...]
    model: int

    def __repr__(self) -> str:
        return f"ParameterCounts({self.total:,} of {self.model:,} parameters: {self.share:.1%})"

    @property
    def total(self) -> int:
        """The parameters of all projections, adapters included, shared ones once."""
        return sum(count.parameters + count.adapter for count in self.counts if count.shared_with is None)

    @property
    def share(self) -> float:
        """The part of the model's parameters that are in projections, 0 to 1."""
        return self.total / self.model if self.model else 0.0

    def by_layer(self) -> dict[int, int]:
        """Return each layer's total; 0 for one whose weights are an earlier layer's."""
        found = {count.layer: 0 for count in self.counts}
        for count in self.counts:
            if count.shared_with is None:
                found[count.layer] += count.parameters + count.adapter
        return found

    def by_projection(self) -> dict[str, int]:
        """Return the total of queries, keys, values and outputs."""
        return {
            role: sum(c.parameters + c.adapter for c in self.counts if c.projection == role and c.shared_with is None)
            for role in ROLES
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types."""
        return [
            {
                "layer": count.layer,
                "module": count.name,
                "projection": count.projection,
                "parameters": count.parameters,
                "adapter": count.adapter,
                "shared_with": count.shared_with,
                "share": count.parameters / self.model if self.model and count.shared_with is None else 0.0,
            }
            for count in self.counts
        ]


def parameter_counts(views: Iterable[LayerProjections], model: nn.Module) -> ParameterCounts:
    """Count the parameters of a model's projections.

    Parameters
    ----------
    views : iterable of LayerProjections
    model : torch.nn.Module
        The model that they are views of.
    """
    first: dict[Hashable, int] = {}
    adapters: set[int] = set()
    counts = []
    for layer in views:
        for role in ROLES:
            weight, bias = layer[role], getattr(layer, f"{role}_bias")
            size = weight.numel() + (0 if bias is None else bias.numel())
            if role == "query" and layer.gate is not None:
                size += layer.gate.numel() + (0 if layer.gate_bias is None else layer.gate_bias.numel())
            owner = first.setdefault(_identity(layer, role, weight), layer.layer)
            counts.append(
                ProjectionCount(
                    layer.layer,
                    layer.modules.get(role, layer.name),
                    role,
                    size,
                    _adapter(layer.adapters.get(role), adapters),
                    None if owner == layer.layer else owner,
                )
            )
    return ParameterCounts(tuple(counts), sum(parameter.numel() for parameter in model.parameters()))


def _identity(layer: LayerProjections, role: str, weight: Tensor) -> Hashable:
    """Tell the same weight again: by its place in memory, or, where it was built, by its module."""
    if role in layer.shared:
        return weight.data_ptr(), weight.shape, weight.stride()
    return layer.modules.get(role, layer.name), role


def _adapter(adapter: LowRank | None, seen: set[int]) -> int:
    if adapter is None:
        return 0
    size = 0
    for factor in (adapter.left, adapter.right):
        if factor.data_ptr() not in seen:
            seen.add(factor.data_ptr())
            size += factor.numel()
    return size
