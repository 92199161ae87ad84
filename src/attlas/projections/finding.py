"""Finding the parts of a layer in a trace: its projections, what comes before and after, how it may be rotated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attlas.errors import UnsupportedModelError
from attlas.projections.fitting import Rotary, error_of, tolerance_of
from attlas.projections.norms import is_norm, norm_of
from attlas.projections.tracing import Run, Trace
from attlas.projections.views import Norm
from attlas.projections.weights import Weights, check_weight, is_projection, weights_of

_ROTARY_DIMS = ("rotary_ndims", "rotary_dim", "rotary_emb_dim", "rope_dim", "qk_rope_head_dim")
_REACH = 3  # how many modules around an attention module its output projection may lie in


@dataclass(frozen=True, eq=False)
class Source:
    """A projection inside an attention module, and what it projects.

    Parameters
    ----------
    weights : Weights
    states : Tensor, (batch, n, in)
        What it was given.
    direct : bool
        Whether that is what the attention module itself was given.
    """

    weights: Weights
    states: Tensor
    direct: bool


def sources(run: Run, batch: int) -> list[Source]:
    """Return every projection that ran inside an attention module, in the order in which they ran."""
    if isinstance(run.module, nn.MultiheadAttention):
        return list(_multi_head(run))
    found = []
    for inner in projections_inside(run):
        if inner.first is not None:
            direct = any(_same(inner.first, given) for given in run.given.values())
            found.append(Source(weights_of(inner), by_batch(inner.first, batch), direct))
    return found


def projections_inside(run: Run) -> Iterator[Run]:
    """Go through the projections below a run; what one is made of (an adapter's parts) is not counted."""
    for child in run.children:
        if is_projection(child):
            yield child
        else:
            yield from projections_inside(child)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.numel() == b.numel() and a.shape[-1] == b.shape[-1] and torch.equal(a.reshape(-1), b.reshape(-1))


def by_batch(states: Tensor, batch: int) -> Tensor:
    """Give states the axes (batch, n, in)."""
    if states.dim() == 3 and states.shape[0] == batch:
        return states
    if states.dim() == 3 and states.shape[1] == batch:
        return states.transpose(0, 1)
    return states.reshape(batch, -1, states.shape[-1])


def _alike(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors hold the same vectors, in any order: windows and time-first layouts reorder them."""
    if a.numel() != b.numel() or a.shape[-1] != b.shape[-1]:
        return False
    a, b = a.double().flatten(), b.double().flatten()
    allowed = tolerance_of(torch.float32)
    if error_of(a.norm(), b.norm()) > allowed:
        return False
    return error_of(a, b) <= allowed or error_of(a.sort().values, b.sort().values) <= allowed


def _multi_head(run: Run) -> Iterator[Source]:
    """`torch.nn.MultiheadAttention` keeps the three projections in one parameter, or in three without a module."""
    module: Any = run.module
    given = [run.given.get(name, run.given.get(f"argument {i}")) for i, name in enumerate(("query", "key", "value"))]
    weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    if module.in_proj_weight is not None:
        check_weight(module.in_proj_weight, run.name)
        weights = module.in_proj_weight.detach().chunk(3)
    biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.detach().chunk(3)
    if module.bias_k is not None or module.add_zero_attn:
        raise UnsupportedModelError(f"{run.name}: adds keys of its own to those that it projects")
    for states, weight, bias in zip(given, weights, biases, strict=True):
        check_weight(weight, run.name)
        if states is None:
            raise UnsupportedModelError(f"{run.name}: its query, key and value could not be told apart")
        states = states.unsqueeze(0 if module.batch_first else 1) if states.dim() == 2 else states
        states = states if module.batch_first else states.transpose(0, 1)
        yield Source(Weights(run.name, weight.detach(), bias), states, True)


@dataclass(frozen=True, eq=False)
class Following:
    """The output projection of a layer.

    Parameters
    ----------
    weights : Weights
    made : Tensor
        What it gave.
    """

    weights: Weights
    made: Tensor


def output_of(run: Run, heads: Tensor, used: set[str]) -> Following | None:
    """Find the projection that takes up what the heads give; None if there is none.

    Parameters
    ----------
    run : Run
        The attention module's.
    heads : Tensor, (batch, head, n, value_dim)
        What the kernel gave, times its gate if there is one.
    used : set of str
        Projections that are queries, keys or values.
    """
    module: Any = run.module
    if isinstance(module, nn.MultiheadAttention) and run.output is not None:
        out = module.out_proj
        check_weight(out.weight, run.name)
        bias = None if out.bias is None else out.bias.detach()
        made = run.output if module.batch_first or run.output.dim() == 2 else run.output.transpose(0, 1)
        return Following(Weights(f"{run.name}.out_proj", out.weight.detach(), bias), made)
    expected = heads.transpose(1, 2).flatten(2)
    allowed = tolerance_of(heads.dtype)
    near = run
    for _ in range(_REACH):
        for inner in projections_inside(near):
            if inner.order <= run.order or inner.name in used or inner.first is None or inner.output is None:
                continue
            same = inner.first.numel() == expected.numel() and inner.first.shape[-1] == expected.shape[-1]
            if same and error_of(inner.first.reshape(expected.shape).double(), expected.double()) <= allowed:
                return Following(weights_of(inner), inner.output)
        if near.parent is None:
            break
        near = near.parent
    return None


def input_norm_of(run: Run, states: Tensor, projected: Tensor) -> Norm | None:
    """Find the normalisation in front of an attention module, if the residual stream goes past it.

    Parameters
    ----------
    run : Run
        The attention module's.
    states : Tensor, (batch, n, d_model)
        What it was given to ask with.
    projected : Tensor
        What its output projection gave.
    """
    around = list(run.ancestors())
    before = [
        norm
        for near in around
        for norm in near.children
        if norm.order < run.order and is_norm(norm) and norm.output is not None and _alike(norm.output, states)
    ]
    if not before:
        return None
    found = before[0]
    # The stream is normalised itself where the layer's result is added to what the normalisation gave.
    if projected.numel() == states.numel():
        added = states + projected.reshape(states.shape)
        for later in found.parent.inside() if found.parent else ():
            if later.order > run.order and later.first is not None and _alike(later.first, added):
                return None
    return norm_of(found)


def positions_of(run: Run, batch: int, n: int) -> Tensor | None:
    """Return the positions of a run's tokens, (batch, n): those that it or a module around it was given, or 0, 1, 2."""
    for near in (run, *run.ancestors()):
        given = near.given.get("position_ids")
        if given is None:
            continue
        if given.dim() == 3:  # one row for time, height and width each, which agree on text
            if not bool((given == given[:1]).all()):
                return None
            given = given[0]
        if given.shape[-1] == n and given.shape[0] in (1, batch):
            return given.reshape(-1, n).expand(batch, n)
    return torch.arange(n, device=run.device).expand(batch, n)


def rotary_of(model: nn.Module) -> Rotary:
    """Collect what a model says about rotary encodings: frequencies among its buffers, widths among its attributes."""
    found: dict[tuple[int, float, float], Tensor] = {}
    dims: list[int] = []
    amplitudes: list[float] = []
    buffers = sorted(model.named_buffers(), key=lambda item: "original" in item[0])
    for name, buffer in buffers:
        if "inv_freq" in name and buffer.dim() == 1 and buffer.numel():
            found.setdefault((buffer.numel(), float(buffer.double().sum()), float(buffer[-1])), buffer.detach())
    for module in model.modules():
        for name, value in vars(module).items():
            if name in _ROTARY_DIMS and isinstance(value, int):
                dims.append(value)
            elif "attention_scaling" in name and isinstance(value, float):
                amplitudes.append(value)
    return Rotary(tuple(found.values()), tuple(dict.fromkeys(dims)), tuple(dict.fromkeys(amplitudes)))


def notes_of(module: Any, model: nn.Module, rotates: bool) -> tuple[str, ...]:
    """Say what holds of a layer but is not in its weights, or not at every length."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    rope = getattr(text, "rope_parameters", None)
    rope = rope if isinstance(rope, dict) else {}
    notes = []
    grows_from = None
    if getattr(module, "attn_temperature_tuning", None) and not rotates:
        grows_from = getattr(module, "floor_scale", None)
    if rope.get("llama_4_scaling_beta"):
        grows_from = rope.get("original_max_position_embeddings")
    if grows_from is not None:
        notes.append(f"queries grow with their position, from position {grows_from} on; the views hold before it")
    # One set of parameters, or one for each kind of layer.
    kinds = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    changing = [kind for kind in ("dynamic", "longrope") if kind in kinds]
    if rotates and changing:
        notes.append(
            f"the rotation changes with the text's length ({', '.join(changing)}); "
            "this is the one of the run that the views were found with"
        )
    if (limit := getattr(text, "clip_qkv", None)) is not None:
        notes.append(f"queries, keys and values beyond ±{limit} are cut off")
    return tuple(notes)


def final_norm_of(trace: Trace, head: nn.Module | None) -> Norm | None:
    """Return the normalisation whose output the unembedding was given."""
    runs = list(trace.root.inside())
    given = next((run.first for run in runs if run.module is head), None)
    if given is None:
        return None
    for run in reversed(runs):
        if is_norm(run) and run.output is not None and run.output.shape[-1] == given.shape[-1]:
            if _same(run.output[..., -given.shape[-2] :, :], given):
                return norm_of(run)
    return None
