"""Where the heads of queries, keys and values lie along the output axis of a projection's weight."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from torch import Tensor


@dataclass(frozen=True)
class Heads:
    """How many heads a layer has, and how wide they are.

    Parameters
    ----------
    heads, kv_heads : int
        Of queries; of keys and values, as many as are stored in the weights.
    dim, value_dim : int
        Width of queries and keys, and of values.
    """

    heads: int
    kv_heads: int
    dim: int
    value_dim: int

    @property
    def group(self) -> int:
        """How many query heads share a key head."""
        return self.heads // self.kv_heads

    def of(self, role: str) -> tuple[int, int]:
        """Return how many heads a role has, and their width."""
        return {
            "query": (self.heads, self.dim),
            "key": (self.kv_heads, self.dim),
            "value": (self.kv_heads, self.value_dim),
        }[role]


@dataclass(frozen=True)
class Slot:
    """The place of one role's heads: a stretch of the output axis, cut into `sizes`, of which `index` is taken.

    Parameters
    ----------
    name : str
        What people call the layout.
    start : int
        Where the stretch begins.
    sizes : tuple of int
        The last one is the head's width.
    index : tuple of int or slice
        For the axes before the last.
    gate : Slot, optional
        Where a gate of the same heads lies beside them.
    """

    name: str
    start: int
    sizes: tuple[int, ...]
    index: tuple[int | slice, ...]
    gate: Slot | None = None

    def take(self, out: Tensor) -> Tensor:
        """Return (head, width, …) of a tensor whose first axis is the output axis; a view where strides allow."""
        parts = out.narrow(0, self.start, prod(self.sizes)).unflatten(0, self.sizes)[self.index]
        leading = len(self.sizes) - 1 - sum(isinstance(i, int) for i in self.index)
        return parts.flatten(0, leading - 1) if leading > 1 else parts


def slots(role: str, features: int, shape: Heads) -> Iterator[Slot]:
    """Return where the heads of a role can lie in a projection with so many outputs, the most common places first.

    Parameters
    ----------
    role : {"query", "key", "value"}
    features : int
        Length of the output axis.
    shape : Heads
    """
    heads, width = shape.of(role)
    every = slice(None)
    if features == heads * width:
        yield Slot("its own", 0, (heads, width), (every,))
    sizes = {name: prod(shape.of(name)) for name in ("query", "key", "value")}
    if features == sum(sizes.values()):
        yield from _fused(role, sizes, shape)
    if role != "query" and features == sizes["key"] + sizes["value"]:
        yield from _concatenated(role, {name: sizes[name] for name in ("key", "value")}, shape)
        kv, dim, value_dim = shape.kv_heads, shape.dim, shape.value_dim
        if dim == value_dim:
            yield Slot("keys and values of each head", 0, (kv, 2, dim), (every, int(role == "value")))
    if role == "query" and features == 2 * heads * width:
        cut = (heads, 2, width)
        gate = Slot("gate of each head", 0, cut, (every, 1))
        yield Slot("query and gate of each head", 0, cut, (every, 0), gate)
        gate = Slot("gates", heads * width, (heads, width), (every,))
        yield Slot("queries, then gates", 0, (heads, width), (every,), gate)


def _fused(role: str, sizes: dict[str, int], shape: Heads) -> Iterator[Slot]:
    yield from _concatenated(role, sizes, shape)
    if shape.dim != shape.value_dim:
        return
    every, width = slice(None), shape.dim
    if shape.group == 1:
        at = ("query", "key", "value").index(role)
        yield Slot("queries, keys and values of each head", 0, (shape.heads, 3, width), (every, at))
        return
    taken = {"query": slice(0, shape.group), "key": shape.group, "value": shape.group + 1}[role]
    yield Slot(
        "groups of queries with their key and value", 0, (shape.kv_heads, shape.group + 2, width), (every, taken)
    )


def _concatenated(role: str, sizes: dict[str, int], shape: Heads) -> Iterator[Slot]:
    """Every order in which whole projections can follow one another; the usual one comes first."""
    seen = set()
    for order in itertools.permutations(sizes):
        start = sum(sizes[name] for name in order[: order.index(role)])
        if start not in seen:
            seen.add(start)
            yield Slot(", then ".join(order), start, shape.of(role), (slice(None),))
