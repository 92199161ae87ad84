"""What stands around a layer's attention: the residual stream past it, and the norms behind it, proved on a short run.

A block is read from what its modules were given and gave, not from its class: the stream x is what goes into the norm
in front of the attention, or into the attention; and behind it something must have been given, to the last rounding,
``x + attention`` (a pre-norm block), a norm of that (a post-norm block), or the stream with a norm of the attention's
part added (Gemma 2, OLMo 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attlas.capture.states import State
from attlas.errors import UnsupportedModelError
from attlas.projections import LayerProjections, Norm
from attlas.projections.norms import is_norm, norm_of
from attlas.projections.tracing import Run, Trace

_ROUNDINGS = 4


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The way of the residual stream past one layer's attention.

    Parameters
    ----------
    stream : State
        Where x passes by.
    made : State
        Where what the attention gives passes by, its bias included.
    inner : Norm, optional
        What normalises the attention's part before it is added.
    outer : Norm, optional
        What normalises the sum, in a post-norm block.
    second : Norm, optional
        What normalises the block's end, behind the feed-forward part, in a post-norm block.
    end : State, optional
        Where that norm's input passes by.
    turn : int
        Which run of the modules in one forward pass, where layers share them.
    """

    stream: State
    made: State
    inner: Norm | None
    outer: Norm | None
    second: Norm | None
    end: State | None
    turn: int


def made_by(view: LayerProjections, model: nn.Module) -> State:
    """Return where what a layer's attention gives passes by, its bias included."""
    attention = model.get_submodule(view.name)
    return State(view.name if isinstance(attention, nn.MultiheadAttention) else view.modules["output"], "gave")


def surroundings(trace: Trace, view: LayerProjections, model: nn.Module) -> Surroundings:
    """Find what stands around a layer's attention.

    Raises
    ------
    UnsupportedModelError
        The block is none of the kinds above.
    """
    at = trace.attention(view.layer)
    if at is None:
        raise UnsupportedModelError(f"{view.name}: did not run as layer {view.layer}")
    attention, turn = at
    every = sorted([trace.root, *trace.root.inside()], key=lambda run: run.order)
    stream = _stream(every, attention, view)
    made = made_by(view, model)
    gave = next((run for run in every if run.name == made.module and run.order >= attention.order), None)
    x = stream.first
    if gave is None or gave.output is None or x is None or gave.output.numel() != x.numel():
        raise UnsupportedModelError(_refusal(view, "its attention gives nothing of the residual stream's shape"))
    given = State(stream.name, "given")
    part = gave.output.reshape(x.shape)
    later = list(_behind(every, trace, gave, attention))
    inner, part = _inner(later, part, view)
    around = [*later, *attention.ancestors()]
    if inner is None and view.input_norm is None:
        for norm in (run for run in later if is_norm(run) and _is_sum(run.first, x, part)):
            found = _continued(norm.output, around, later)
            if found is not None:
                second = found if found is not norm and is_norm(found) else None
                return Surroundings(
                    given,
                    made,
                    None,
                    _known(norm, view),
                    None if second is None else _known(second, view),
                    None if second is None else State(second.name, "given"),
                    turn,
                )
    here = any(_is_sum(seen, x, part) for seen in _seen(around))
    if here or _continued(x + part, around, later) is not None:
        return Surroundings(given, made, inner, None, None, None, turn)
    why = "what follows its attention is neither the residual stream plus what it gave, nor a norm of that"
    raise UnsupportedModelError(_refusal(view, why))


def _stream(every: list[Run], attention: Run, view: LayerProjections) -> Run:
    """Return the run that was given the residual stream."""
    if view.input_norm is not None:
        runs = [run for run in every if run.name == view.input_norm.name and run.order < attention.order]
    else:
        runs = [run for run in every if run.name == view.modules["query"] and run.order >= attention.order][:1]
    if not runs:
        raise UnsupportedModelError(_refusal(view, "its residual stream could not be told"))
    return runs[-1]


def _behind(every: list[Run], trace: Trace, gave: Run, attention: Run) -> Iterator[Run]:
    """Go through the runs behind an attention, up to the next one."""
    others = [trace.attention(layer) for layer in trace.captured.layers]
    following = [at[0].order for at in others if at is not None and at[0].order > attention.order]
    stop = min(following, default=every[-1].order + 1)
    return (run for run in every if gave.order < run.order < stop)


def _inner(later: list[Run], part: Tensor, view: LayerProjections) -> tuple[Norm | None, Tensor]:
    for run in later:
        if is_norm(run) and run.first is not None and _same(run.first, part) and run.output is not None:
            return _known(run, view), run.output.reshape(part.shape)
    return None, part


def _known(run: Run, view: LayerProjections) -> Norm:
    norm = norm_of(run)
    if norm is None:
        raise UnsupportedModelError(_refusal(view, f"{run.name} computes no norm that is known"))
    return norm


def _continued(stream: Tensor | None, around: list[Run], later: list[Run]) -> Run | None:
    """Return a run that was given, or gave, the stream plus what another one gave; None if there is none."""
    if stream is None:
        return None
    for part in (run.output for run in later):
        if part is None or part.numel() != stream.numel():
            continue
        for run in around:
            if any(_is_sum(seen, stream, part) for seen in (run.first, run.output)):
                return run
    return None


def _seen(runs: list[Run]) -> Iterator[Tensor | None]:
    for run in runs:
        yield run.first
        yield run.output


def _same(a: Tensor, b: Tensor) -> bool:
    return a.numel() == b.numel() and torch.equal(a.reshape(-1), b.reshape(-1))


def _is_sum(seen: Tensor | None, a: Tensor, b: Tensor) -> bool:
    """Tell whether a tensor is the sum of two others but for a few roundings of its dtype."""
    if seen is None or seen.numel() != a.numel() or not seen.is_floating_point():
        return False
    rounding = _ROUNDINGS * torch.finfo(seen.dtype).eps
    a, b, seen = (t.double().flatten() for t in (a, b, seen))
    return bool(((a + b - seen).abs() <= rounding * (a.abs() + b.abs() + seen.abs())).all())


def _refusal(view: LayerProjections, why: str) -> str:
    return (
        f"{view.name}: {why}, so what a token keeps of itself is not known; norms of what attention alone passes on do "
        'not need it: method "value_norm" with preset "paper-2020" or "heads"'
    )
