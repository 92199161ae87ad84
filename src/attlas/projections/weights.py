"""The weight that a projection module computes with: Linear and Conv1D, with or without an unmerged LoRA adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attlas.errors import NonFiniteError, UnsupportedModelError, complaint
from attlas.projections.tracing import Run


@dataclass(frozen=True, eq=False)
class Adapter:
    """What LoRA adds to a weight: up @ down (Hu et al. 2021), the scaling included in `up`.

    Parameters
    ----------
    down : Tensor, (rank, in)
    up : Tensor, (out, rank)
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """A projection's weight.

    Parameters
    ----------
    name : str
        The module.
    weight : Tensor, (out, in)
        What the forward computes with, the adapter included.
    bias : Tensor, (out,), optional
    adapter : Adapter, optional
    shared : bool
        Whether `weight` is the model's own memory.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    adapter: Adapter | None = None
    shared: bool = True


def is_projection(run: Run) -> bool:
    """Tell whether a run is that of a module with a weight matrix: by its kind, or by being called linear."""
    module: Any = run.module
    if isinstance(module, nn.Embedding | nn.MultiheadAttention):
        return False
    if isinstance(module, nn.Linear) or isinstance(getattr(module, "base_layer", None), nn.Module):
        return True
    weight = getattr(module, "weight", None)
    matrix = isinstance(weight, Tensor) and weight.dim() == 2
    return not run.children and (matrix or "Linear" in type(module).__name__)


def weights_of(run: Run) -> Weights:
    """Return the weight that a run computed with.

    Raises
    ------
    UnsupportedModelError
        It is quantised, elsewhere, or changed by an adapter that is not a sum of matrices.
    NonFiniteError
        It holds NaN or infinity.
    """
    found = weights_of_module(run.module, run.name)
    given = run.first
    if given is not None and found.weight.shape[1] != given.shape[-1]:
        raise UnsupportedModelError(
            f"{run.name}: takes {given.shape[-1]} numbers with a weight of {found.weight.shape}"
        )
    return found


def weights_of_module(module: Any, name: str) -> Weights:
    """Return the weight of a projection module; see `weights_of`."""
    base = getattr(module, "base_layer", None)
    if not isinstance(base, nn.Module):
        return _plain(module, name)
    inner = weights_of_module(base, name)
    if getattr(module, "merged", False) or getattr(module, "disable_adapters", False):
        return inner
    adapter, bias = _adapter(module, name)
    if adapter is None:
        return inner
    weight = inner.weight + (adapter.up @ adapter.down).to(inner.weight.dtype)
    if bias is not None:
        bias = bias.to(weight.dtype) if inner.bias is None else inner.bias + bias.to(weight.dtype)
    return Weights(name, weight, inner.bias if bias is None else bias, adapter, shared=False)


def _plain(module: Any, name: str) -> Weights:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    check_weight(weight, name)
    if not isinstance(weight, Tensor):
        raise UnsupportedModelError(f"{name}: has no weight matrix")
    own = any(weight is parameter for parameter in module.parameters(recurse=False))
    weight = weight.detach()
    if is_turned(module):
        weight = weight.T
    return Weights(name, weight, bias.detach() if isinstance(bias, Tensor) else None, shared=own)


def is_turned(module: nn.Module) -> bool:
    """Tell whether a module keeps its weight as (in, out): transformers' Conv1D does."""
    return type(module).__name__ == "Conv1D"


def as_kept(module: nn.Module, weight: Tensor) -> Tensor:
    """Return a weight, (out, in), as a module keeps it."""
    return weight.T.contiguous() if is_turned(module) else weight


def check_weight(weight: Any, name: str) -> None:
    """Require a matrix of ordinary numbers that is here.

    Raises
    ------
    UnsupportedModelError, NonFiniteError
    """
    plain = isinstance(weight, Tensor) and type(weight) in (Tensor, nn.Parameter)
    if not plain or not weight.is_floating_point():
        kept = str(weight.dtype).removeprefix("torch.") if plain else f"as {type(weight).__name__}"
        raise UnsupportedModelError(
            f"{name}: its weight is quantised or packed (kept {kept}), and has no entries that could be viewed; "
            "dequantise the model first (transformers: model.dequantize()), or load it without quantisation"
        )
    if weight.is_meta:
        raise UnsupportedModelError(
            f"{name}: its weight is not in memory (device meta); load the model without offloading"
        )
    # A sum is cheaper than a look at each entry, and finite only if they all are.
    if not bool(torch.isfinite(weight.sum())) and not bool(torch.isfinite(weight).all()):
        raise NonFiniteError(complaint(name, wanted="a weight of finite numbers", got="NaN or infinity in it"))


def _adapter(module: Any, name: str) -> tuple[Adapter | None, Tensor | None]:
    downs, ups = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
    if downs is None or ups is None:
        raise UnsupportedModelError(
            f"{name}: its adapter ({type(module).__name__}) is not a LoRA that adds a product of two matrices; "
            "merge it first (PEFT: model.merge_and_unload())"
        )
    variants = {**dict(getattr(module, "lora_magnitude_vector", {})), **getattr(module, "lora_variant", {})}
    down_parts, up_parts, bias = [], [], None
    for active in getattr(module, "active_adapters", ()):
        if active not in downs:
            continue
        if active in variants:
            raise UnsupportedModelError(
                f"{name}: its adapter {active!r} is more than a sum ({type(variants[active]).__name__}); "
                "merge it first (PEFT: model.merge_and_unload())"
            )
        scaling, up = float(module.scaling[active]), ups[active]
        down_parts.append(downs[active].weight.detach())
        up_parts.append(up.weight.detach() * scaling)
        if up.bias is not None:
            bias = up.bias.detach() * scaling + (0 if bias is None else bias)
    if not down_parts:
        return None, None
    return Adapter(torch.cat(down_parts), torch.cat(up_parts, dim=1)), bias
