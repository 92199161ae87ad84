"""A model as it was before an adapter came: enough to bring that back, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LEFT_BEHIND = ("_peft_loraga_grad", "_peft_loraga_grad_count")
"""What PEFT leaves at a module when one of its initialisations is interrupted."""


@dataclass(frozen=True, eq=False)
class Before:
    """What an adapter changes about a model.

    Parameters
    ----------
    model : torch.nn.Module
    modules : mapping
        Name -> the module that the adapter goes beside.
    weights : mapping
        Name of such a module -> a copy of its weight, where the adapter's initialisation changes it.
    trained : mapping
        Name of a parameter -> whether it asked for a gradient.
    modes : mapping
        Name of a module -> whether it was in training mode.
    attributes : frozenset of str
        The model's own attributes.
    """

    model: nn.Module
    modules: Mapping[str, nn.Module]
    weights: Mapping[str, Tensor]
    trained: Mapping[str, bool]
    modes: Mapping[str, bool]
    attributes: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module, names: Sequence[str], *, weights: bool) -> Before:
        """Note what a model is like; with `weights`, copy the weights of the modules of those names."""
        modules: dict[str, Any] = {name: model.get_submodule(name) for name in names}
        return cls(
            model,
            modules,
            {name: module.weight.detach().clone() for name, module in modules.items()} if weights else {},
            {name: one.requires_grad for name, one in model.named_parameters()},
            {name: module.training for name, module in model.named_modules()},
            frozenset(vars(model)),
        )

    def restore(self) -> None:
        """Bring it back."""
        for name, module in self.modules.items():
            parent, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(parent), last, module)
            for attribute in _LEFT_BEHIND:
                if attribute in vars(module):
                    delattr(module, attribute)
        with torch.no_grad():
            for name, weight in self.weights.items():
                own: Any = self.modules[name].weight
                own.data = weight.clone()
        for name, one in self.model.named_parameters():
            one.requires_grad_(self.trained[name])
            one.grad = None
        self.set_modes()
        for attribute in set(vars(self.model)) - self.attributes:
            delattr(self.model, attribute)

    def set_modes(self) -> None:
        """Put every module in the mode in which it was; those that have come since, in that of the model."""
        for name, module in self.model.named_modules():
            module.training = self.modes.get(name, self.modes[""])
