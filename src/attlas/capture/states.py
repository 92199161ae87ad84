"""What some modules are given and give in one forward pass, or what is made of it on the spot: nothing else is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attlas.errors import CaptureError


@dataclass(frozen=True)
class State:
    """A tensor that passes by in a forward pass.

    Parameters
    ----------
    module : str
        The module's name.
    side : {"given", "gave"}
        The first tensor that it is given, or the first that it gives.
    """

    module: str
    side: Literal["given", "gave"]


Keep = Callable[[Tensor], Tensor]
"""Makes of a tensor what is to be kept of it."""


def states(
    model: nn.Module,
    run: Callable[[], Any],
    wanted: Mapping[State, Keep],
    progress: Callable[[int], None] | None = None,
) -> dict[State, list[Tensor]]:
    """Run a model and keep some of what passes by.

    Parameters
    ----------
    model : torch.nn.Module
        In which modules have their names.
    run : callable
        Runs it, or a part of it.
    wanted : mapping
        What to keep of which state; it is called while the model runs, without gradients. What it returns must not
        share the memory of what it is given, because modules may write into that.
    progress : callable, optional
        Called as ``progress(done)`` after each state.

    Returns
    -------
    dict
        For each state what was kept, one for each time that the module ran.

    Raises
    ------
    CaptureError
        A module did not run, or no tensor passed there.

    Notes
    -----
    Costs the forward pass. The model is left as it was.
    """
    modules = dict(model.named_modules())
    found: dict[State, list[Tensor]] = {state: [] for state in wanted}
    thread = threading.get_ident()

    def note(state: State, *passing: Any) -> None:
        tensor = _first(passing)
        if threading.get_ident() == thread and tensor is not None:
            found[state].append(wanted[state](tensor.detach()))
            if progress is not None:
                progress(sum(map(len, found.values())))

    with ExitStack() as stack, torch.no_grad():
        for state in wanted:
            stack.callback(_hook(modules[state.module], state, note).remove)
        run()
    missing = [state.module for state, kept in found.items() if not kept]
    if missing:
        raise CaptureError(f"{missing[0]}: did not run, or no tensor passed there, so its states are not known")
    return found


def _hook(module: nn.Module, state: State, note: Callable[..., None]) -> Any:
    if state.side == "given":
        return module.register_forward_pre_hook(
            lambda module, args, kwargs: note(state, *args, *kwargs.values()), with_kwargs=True
        )
    return module.register_forward_hook(lambda module, args, output: note(state, output))


def _first(passing: Any) -> Tensor | None:
    """Return the first tensor of numbers, looking into tuples."""
    for one in passing:
        found = _first(one) if isinstance(one, tuple | list) else one
        if isinstance(found, Tensor) and found.is_floating_point():
            return found
    return None
