"""Small models in float64 whose circuits can be computed densely, for tests of what is said about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attlas.projections import Projections, projections
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}


_SINGLE = {"gpt-oss", "Qwen3-Next"}  # torch multiplies their experts in float32 at most


def viewed(family: str, seed: int = 0) -> tuple[Any, Projections]:
    """Return a family's tiny model, in float64 where it can run in it, and its projections."""
    model = BY_FAMILY[family].build(seed)
    reads_text = BY_FAMILY[family].reads_text
    model = model.double() if reads_text and family not in _SINGLE else model
    return model, projections(model, BY_FAMILY[family].inputs())


def given_states(model: nn.Module, name: str, inputs: dict[str, Tensor]) -> Tensor:
    """Return the hidden states that a module is given in a run."""
    seen: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    hook = dict(model.named_modules())[name].register_forward_pre_hook(before, with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return seen[0]


def hooks(model: nn.Module) -> int:
    """Return how many hooks a model carries."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def positivity(dense: Tensor, k: int) -> Tensor:
    """Return the eigenvalue positivity of a dense matrix of rank at most k."""
    eigen = torch.linalg.eigvals(dense)
    eigen = eigen[eigen.abs().argsort(descending=True)[:k]]
    return eigen.real.sum() / eigen.abs().sum()
