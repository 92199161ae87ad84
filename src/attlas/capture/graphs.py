"""What autograd's graph says: which tensors something was computed from; and nested arguments, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn


def origins(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """Return the leaves of the graph of some tensors, parameters left out: id -> tensor."""
    found: dict[int, Tensor] = {}
    nodes: list[Any] = []
    for tensor in tensors:
        if tensor.grad_fn is not None:
            nodes.append(tensor.grad_fn)
        elif tensor.requires_grad:
            found[id(tensor)] = tensor
    met: set[Any] = set(nodes)
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter):
            found[id(leaf)] = leaf
        fresh = {following for following, _ in node.next_functions if following is not None} - met
        met |= fresh
        nodes.extend(fresh)
    return found


def skeleton() -> AbstractContextManager[Any]:
    """Build graphs that know what came from what, but keep no numbers to compute gradients with."""

    def refuse(_: object) -> Tensor:
        raise RuntimeError("a graph that kept nothing was asked for gradients")

    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, refuse)


def tensors_in(nested: Any) -> Iterator[Tensor]:
    """Yield the tensors in tuples, lists and dictionaries, in order."""
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, tuple | list):
        for part in nested:
            yield from tensors_in(part)
    elif isinstance(nested, dict):
        for part in nested.values():
            yield from tensors_in(part)


def replaced(nested: Any, replace: Callable[[Tensor], Tensor]) -> Any:
    """Return the same tuples, lists and dictionaries with every tensor replaced; what holds no change stays itself."""
    if isinstance(nested, Tensor):
        return replace(nested)
    if isinstance(nested, tuple | list):
        parts = [replaced(part, replace) for part in nested]
        if all(new is old for new, old in zip(parts, nested, strict=True)):
            return nested
        return type(nested)(*parts) if hasattr(nested, "_fields") else type(nested)(parts)
    if isinstance(nested, dict):
        values = {name: replaced(part, replace) for name, part in nested.items()}
        if all(values[name] is old for name, old in nested.items()):
            return nested
        return type(nested)(values) if type(nested) is dict else type(nested)(**values)
    return nested
