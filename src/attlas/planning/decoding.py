"""Reading on under a plan with a cache that holds no more than the plan's windows need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from attlas.capture.holding import Span, held_cache
from attlas.capture.replacing import Replacement, alone
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.patterns import SlidingWindow

if TYPE_CHECKING:
    from attlas.planning.plan import Plan


def cache_for(plan: Plan, model: nn.Module, replacement: Replacement, *, guarded: bool) -> Any:
    """Return an empty key-value cache for a model to which a plan is applied; see `Applied.cache`.

    Parameters
    ----------
    plan : Plan
    model : torch.nn.Module
    replacement : Replacement
        What computes by the plan; the cache is of no use to anyone else.
    guarded : bool
        Whether heads may be made exact as the model runs.
    """
    if guarded:
        raise ArgumentError(
            complaint("guard", wanted="none with such a cache, for a head that is made exact needs all keys", got="one")
        )
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "generate") or getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{type(model).__name__}: wanted a decoder of transformers, which alone reads on from such a cache"
        )
    if not plan.sizes:
        raise ArgumentError(
            complaint(
                "plan",
                wanted="one that knows the model's layers by name and how many heads they have",
                got="one made for a bare module",
                way_out="make the plan for what attlas.load returned",
            )
        )
    return held_cache(config.get_text_config(), spans_of(plan, model), lambda: alone(replacement))


def spans_of(plan: Plan, model: nn.Module) -> dict[int, Span]:
    """Return what has to be held of those layers whose heads all have sliding windows, by their index in a cache."""
    spans: dict[int, Span] = {}
    modules = dict(model.named_modules())
    for number, (name, size) in enumerate(zip(plan.layers, plan.sizes, strict=True)):
        patterns = [plan.pattern(number, head) for head in range(size)]
        windows = [pattern for pattern in patterns if isinstance(pattern, SlidingWindow)]
        index = getattr(modules.get(name), "layer_idx", None)
        if windows and len(windows) == size and isinstance(index, int):
            spans[index] = Span(max(one.sinks for one in windows), max(one.width for one in windows))
    return spans
