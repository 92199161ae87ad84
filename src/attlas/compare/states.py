"""What projections are given while a model runs, and the queries, keys and values that other weights make of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attlas.projections.views import LayerProjections


class Passing:
    """The states that modules were given last."""

    def __init__(self) -> None:
        self._given: dict[str, Tensor] = {}

    def note(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take what a module is given."""
        for one in (*args, *kwargs.values()):
            if isinstance(one, Tensor) and one.is_floating_point():
                self._given[name] = one.detach()
                return

    def of(self, view: LayerProjections, role: str) -> Tensor:
        """Return the states that a role was projected from, (n, width); of the text alone, without a batch."""
        states = self._given[view.modules[role]]
        return states.reshape(-1, states.shape[-1])


@contextmanager
def passing(model: nn.Module, views: Iterable[LayerProjections], roles: tuple[str, ...]) -> Iterator[Passing]:
    """Note what the projections of some roles are given inside the block; each layer's until its next run."""
    noted = Passing()
    modules = dict(model.named_modules())
    names = {view.modules[role] for view in views for role in roles}
    with ExitStack() as stack:
        for name in sorted(names):
            hook = modules[name].register_forward_pre_hook(
                lambda _module, args, kwargs, name=name: noted.note(name, args, kwargs), with_kwargs=True
            )
            stack.callback(hook.remove)
        yield noted


def queries_of(view: LayerProjections, states: Tensor, positions: Tensor) -> Tensor:
    """Return queries as a kernel is given them, (1, head, n, dim), of states (n, d_model)."""
    return _scaled(view.queries(states, positions), view.factors[0])


def keys_of(view: LayerProjections, states: Tensor, positions: Tensor) -> Tensor:
    """Return keys as a kernel is given them, (1, kv_head, n, dim)."""
    return _scaled(view.keys(states, positions), view.factors[1])


def values_of(view: LayerProjections, states: Tensor) -> Tensor:
    """Return values as a kernel is given them, (1, kv_head, n, value_dim)."""
    return view.values(states)[None]


def _scaled(tensor: Tensor, factor: float) -> Tensor:
    return (tensor if factor == 1 else tensor * factor)[None]


def positions_of(n: int, device: torch.device) -> Tensor:
    """Return 0, 1, 2 … as a model counts a text that it reads from its beginning."""
    return torch.arange(n, device=device)
