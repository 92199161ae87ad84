"""Which heads explain the changed output: one head at a time gets its old weights back, and the rest stay new.

A head that is put back gives what the base's W_Q, W_K, W_V and W_O make of the states that reach it in the tuned model.
What that changes in the layer's output is known after one run of the tuned model; its first-order effect on the
divergence follows from one backward pass for all heads at once, and the effect itself from a run for each head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attlas._agreement import spearman
from attlas.capture.hearing import Place
from attlas.capture.language_model import run_on
from attlas.capture.layer import Layer
from attlas.capture.overhearing import overhearing
from attlas.compare.layers import Pair
from attlas.compare.records import Restored
from attlas.compare.sides import Sides
from attlas.compare.states import Passing, keys_of, passing, positions_of, queries_of, values_of
from attlas.errors import UnsupportedModelError
from attlas.matrix import AttentionMatrix
from attlas.models.progress import Progress
from attlas.projections.views import LayerProjections

ROLES = ("query", "key", "value")
TOGETHER = 4
"""Copies of the text, each with another head put back, that run in one batch."""


@dataclass(frozen=True, eq=False)
class _Kept:
    """What a layer's heads gather from the states of the tuned run: (head, n, value_dim) each.

    Parameters
    ----------
    old : Tensor
        By the base's weights.
    new : Tensor
        By the tuned model's.
    """

    old: Tensor
    new: Tensor


def restored_heads(
    sides: Sides,
    pairs: Sequence[Pair],
    ids: Tensor,
    window: int,
    count: int,
    progress: Progress | None = None,
) -> Restored:
    """Estimate for all heads, and measure for some, what putting them back does to the output.

    Parameters
    ----------
    sides : Sides
    pairs : sequence of Pair
    ids : Tensor, (n,)
        The whole text; its last `window` tokens are read, by themselves.
    window : int
    count : int
        How many heads to measure: those with the largest estimates, whatever their sign.
    progress : callable, optional

    Raises
    ------
    UnsupportedModelError
        A layer's output projection does not run as a module of its own, or its heads' outputs pass a gate first.
    """
    _check(pairs)
    span = (max(0, len(ids) - window), len(ids))
    ids = ids[span[0] :]
    with sides.as_base() as model, torch.no_grad():
        base = _log_probabilities(run_on(model, ids[None]))[0]
    with sides.as_tuned() as model:
        divergence, kept, slopes = _clean_run(model, pairs, ids, base)
        estimate = torch.cat([_estimates(pair, kept.get(pair.before.layer), slopes) for pair in pairs])
        heads = tuple((pair.before.layer, head) for pair in pairs for head in range(pair.before.heads))
        exact = torch.full_like(estimate, math.nan)
        order = estimate.abs().argsort(descending=True)
        chosen = [int(i) for i in order[:count] if bool(estimate[i] != 0)]
        by_layer = {pair.before.layer: pair for pair in pairs}
        for first in range(0, len(chosen), TOGETHER):
            some = chosen[first : first + TOGETHER]
            moved = [(heads[i], _difference(by_layer[heads[i][0]], kept[heads[i][0]], heads[i][1])) for i in some]
            left = _divergences(model, pairs, ids, base, moved)
            exact[some] = divergence - left
            if progress is not None:
                progress(min(first + TOGETHER, len(chosen)), len(chosen), "putting heads back")
    known = ~exact.isnan()
    agree = spearman(estimate[known], exact[known]) if int(known.sum()) > 2 else math.nan
    return Restored(span, divergence, heads, estimate, exact, agree)


def _check(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        for view in (pair.before, pair.tuned or pair.before):
            if view.gate is not None:
                raise UnsupportedModelError(
                    f"{view.name}: its heads' outputs pass a gate, so none can be put back alone"
                )
            if view.turn:
                raise UnsupportedModelError(f"{view.name}: layers share its weights, so none can be put back alone")


def _running(pair: Pair) -> LayerProjections:
    """Return the views of the model that runs as the tuned one."""
    return pair.tuned or pair.before


# ---- the tuned model as it is


def _clean_run(
    model: nn.Module, pairs: Sequence[Pair], ids: Tensor, base: Tensor
) -> tuple[float, dict[int, _Kept], dict[int, Tensor]]:
    """Return the divergence, what the heads gather, and the divergence's gradient at each layer's output."""
    layers = {pair.before.layer: pair for pair in pairs}
    kept: dict[int, _Kept] = {}
    probes: dict[int, Tensor] = {}

    def take(place: Place, layer: Layer, states: Passing) -> None:
        pair = layers[place.number]
        if _changed(pair) and layer.output is not None:
            kept[place.number] = _Kept(_gathered(pair, layer, states), layer.output[0])

    def probe(number: int, output: Tensor) -> Tensor:
        probes[number] = torch.zeros_like(output, requires_grad=True)
        return output + probes[number]

    views = [_running(pair) for pair in pairs]
    with torch.enable_grad(), passing(model, views, ROLES) as states, _outputs(model, pairs, probe):
        with overhearing(model, lambda place, layer: take(place, layer, states), output=True):
            loss = _divergence(base, _log_probabilities(run_on(model, ids[None])))[0]
    missing = [pair.before.name for pair in pairs if pair.before.layer not in probes]
    if missing:
        raise UnsupportedModelError(f"{missing[0]}: its output projection does not run as a module of its own")
    slopes = torch.autograd.grad(loss, list(probes.values()), allow_unused=True)
    found = {
        number: torch.zeros_like(probes[number]) if slope is None else slope
        for number, slope in zip(probes, slopes, strict=True)
    }
    return float(loss.detach()), kept, {number: slope.reshape(-1, slope.shape[-1]) for number, slope in found.items()}


def _changed(pair: Pair) -> bool:
    return bool(pair.deltas) or pair.tuned is not None


def _gathered(pair: Pair, layer: Layer, states: Passing) -> Tensor:
    """Return what the base's heads would gather from the states that pass by, (head, n, value_dim)."""
    view, running = pair.before, _running(pair)
    asks, seeks, gives = (states.of(running, role) for role in ROLES)
    positions = positions_of(len(asks), asks.device)
    matrix = AttentionMatrix(
        queries_of(view, asks, positions),
        keys_of(view, seeks, positions),
        view.scale / (view.factors[0] * view.factors[1]),
        causal=layer.rule.causal,
        window=layer.rule.window,
        mask=layer.rule.mask,
        bias=layer.bias,
        softcap=layer.softcap,
        sinks=layer.sinks,
    )
    return (matrix @ values_of(view, gives).repeat_interleave(view.group, dim=1))[0]


# ---- what putting a head back does


def _estimates(pair: Pair, kept: _Kept | None, slopes: dict[int, Tensor]) -> Tensor:
    """Return the first-order gain of each head, (head,), float64."""
    if kept is None:
        return torch.zeros(pair.before.heads, dtype=torch.float64)
    slope = slopes[pair.before.layer].double()
    # What the divergence gains from each number that a head gathers, by the old and by the new output projection.
    old = torch.einsum("nd,hvd,hnv->h", slope, pair.before.output.double(), kept.old.double())
    new = torch.einsum("nd,hvd,hnv->h", slope, pair.after.output.double(), kept.new.double())
    return (new - old).cpu()


def _difference(pair: Pair, kept: _Kept, head: int) -> Tensor:
    """Return what putting a head back adds to its layer's output, (n, d_out)."""
    old = kept.old[head] @ pair.before.output[head].to(kept.old.dtype)
    return old - kept.new[head] @ pair.after.output[head].to(kept.new.dtype)


def _divergences(
    model: nn.Module,
    pairs: Sequence[Pair],
    ids: Tensor,
    base: Tensor,
    moved: Sequence[tuple[tuple[int, int], Tensor]],
) -> Tensor:
    """Return the divergence that is left with each of some heads put back, float64."""

    def put_back(number: int, output: Tensor) -> Tensor:
        here = [(i, change) for i, ((layer, _), change) in enumerate(moved) if layer == number]
        if not here:
            return output
        changed = output.clone()
        rows = changed.view(len(moved), -1, output.shape[-1])
        for i, change in here:
            rows[i] += change.to(output.dtype)
        return changed

    with torch.no_grad(), _outputs(model, pairs, put_back):
        return _divergence(base, _log_probabilities(run_on(model, ids.expand(len(moved), -1)))).double().cpu()


@contextmanager
def _outputs(model: nn.Module, pairs: Sequence[Pair], change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Let `change` make something else of what each layer's output projection gives."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for pair in pairs:
            module = modules.get(_running(pair).modules["output"])
            if module is None:
                continue

            def hook(_module: nn.Module, _args: Any, output: Any, number: int = pair.before.layer) -> Any:
                return change(number, output)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _log_probabilities(output: Any) -> Tensor:
    """Return the logarithms of the next-token probabilities, (batch, n, vocabulary), float32 or better."""
    logits = output.logits
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def _divergence(base: Tensor, tuned: Tensor) -> Tensor:
    """Return KL(base ‖ tuned) in nats, mean over positions, (batch,)."""
    return (base.exp() * (base - tuned)).sum(-1).mean(-1)
