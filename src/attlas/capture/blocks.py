"""Finds the blocks of a model: the parts of a stack that run one after another, each with its attention."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn


def blocks_of(model: nn.Module, never: Collection[nn.Module]) -> list[nn.Module]:
    """Return the members of a model's lists of blocks, none inside of another.

    A block is a member of a `ModuleList`, or of a `Sequential` whose members all attend. Where a block holds such
    lists itself, all of whose members attend (the stages of a hierarchical encoder), their members are the blocks.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    never : collection of torch.nn.Module
        Modules that may not be part of a block.

    Notes
    -----
    This is but a proposal: whether what they compute together is what they are given and give one another has to be
    proved on a run.
    """
    return _members(model, {id(module) for module in never}, nested=False)


def _members(module: nn.Module, never: set[int], *, nested: bool) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        if _is_list(child, nested=nested):
            for part in child.children():
                found += _members(part, never, nested=True) or ([part] if _may_be(part, never) else [])
        else:
            found += _members(child, never, nested=nested)
    return found


def _is_list(module: nn.Module, *, nested: bool) -> bool:
    attend = [_attends(part) for part in module.children()]
    if isinstance(module, nn.ModuleList) and not nested:
        return any(attend)
    return isinstance(module, nn.ModuleList | nn.Sequential) and len(attend) > 0 and all(attend)


def _attends(module: nn.Module) -> bool:
    return any("Attention" in type(part).__name__ for part in module.modules())


def _may_be(module: nn.Module, never: set[int]) -> bool:
    return not any(id(part) in never for part in module.modules())
