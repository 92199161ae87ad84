"""Adapters that PEFT has put into a model: read from its layers, and set aside while the base is looked at.

PEFT itself is not needed: a layer that it has wrapped holds the base's own layer and the factors beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attlas.errors import UnsupportedModelError
from attlas.models.adapter_file import AdapterPart

_MERGE = "merge it (PEFT: model.merge_and_unload()), and compare that as a model"


def plain_model(model: nn.Module) -> nn.Module:
    """Return the transformers model inside of a PeftModel; any other as it is."""
    unwrap: Any = getattr(model, "get_base_model", None)
    if not callable(unwrap) or not hasattr(model, "peft_config"):
        return model
    found: Any = unwrap()
    return found


def wrapped(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that an adapter wraps, by the name that the base's own layer has without it."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "base_layer", None), nn.Module)
    }


def injected(model: nn.Module) -> dict[str, AdapterPart]:
    """Return what the active adapters of a model add to each of its weights.

    Raises
    ------
    UnsupportedModelError
        An adapter is merged, or does more than LoRA and DoRA do: the module is named.
    """
    for name, module in model.named_modules():
        for kind in ("modules_to_save", "token_adapter"):
            if hasattr(module, kind) and not hasattr(module, "base_layer"):
                raise UnsupportedModelError(f"{name}: its adapter replaces the whole module ({kind}); {_MERGE}")
    found = {}
    for name, module in wrapped(model).items():
        part = _part(name, module)
        if part is not None:
            found[name] = part
    return found


def _part(name: str, module: Any) -> AdapterPart | None:
    if getattr(module, "merged", False):
        raise UnsupportedModelError(
            f"{name}: its adapter is merged into its weight, so the base's weight is not known; "
            "unmerge it (PEFT: model.unmerge_adapter())"
        )
    downs, ups = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
    if downs is None or ups is None:
        raise UnsupportedModelError(f"{name}: its adapter ({type(module).__name__}) is not LoRA; {_MERGE}")
    if getattr(module, "disable_adapters", False):
        return None
    active = [adapter for adapter in module.active_adapters if adapter in downs]
    if not active:
        return None
    magnitudes: Any = getattr(module, "lora_magnitude_vector", {})
    variants = getattr(module, "lora_variant", {})
    for adapter in active:
        variant = variants[adapter] if adapter in variants else None
        if variant is not None and "Dora" not in type(variant).__name__:
            raise UnsupportedModelError(f"{name}: its adapter {adapter!r} is a {type(variant).__name__}; {_MERGE}")
        if ups[adapter].bias is not None:
            raise UnsupportedModelError(f"{name}: its adapter {adapter!r} trains a bias (lora_bias); {_MERGE}")
    scaled = [adapter for adapter in active if adapter in magnitudes]
    if scaled and len(active) > 1:
        raise UnsupportedModelError(
            f"{name}: has {len(active)} adapters at once, one of them with magnitudes; {_MERGE}"
        )
    down = torch.cat([downs[adapter].weight.detach() for adapter in active])
    if len(active) == 1:
        only = active[0]
        magnitude = magnitudes[only].weight.detach() if scaled else None
        return AdapterPart(name, down, ups[only].weight.detach(), float(module.scaling[only]), magnitude)
    up = torch.cat([ups[adapter].weight.detach() * float(module.scaling[adapter]) for adapter in active], dim=1)
    return AdapterPart(name, down, up, 1.0)


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """Put the base's own layers in the place of those that wrap them, inside the block."""
    modules = dict(model.named_modules())
    swapped = []
    try:
        for name, module in wrapped(model).items():
            parent, _, child = name.rpartition(".")
            swapped.append((modules[parent], child, module))
            setattr(modules[parent], child, module.base_layer)
        yield
    finally:
        for parent, child, module in swapped:
            setattr(parent, child, module)
