"""Lets gradients pass through a model without reaching its parameters, and without touching them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import nn
from torch.overrides import TorchFunctionMode

from attlas.errors import UnsupportedModelError

_DROPOUTS = {
    function: inspect.signature(function)
    for function in (
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
    )
}


class Constants(TorchFunctionMode):
    """Takes parameters for constants in what this thread computes, so that nothing is kept for their gradients.

    `requires_grad` of the parameters stays as it is, so other threads may train the model meanwhile.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        signature = _DROPOUTS.get(func)
        if signature is not None:
            given = signature.bind(*args, **(kwargs or {}))
            given.apply_defaults()
            if given.arguments["training"] and given.arguments["p"]:
                raise UnsupportedModelError(
                    "model: wanted evaluation mode, got one that drops numbers at random; call model.eval() first"
                )
        return func(*_constant(args), **_constant(kwargs or {}))


def _constant(given: Any) -> Any:
    if isinstance(given, torch.Tensor):
        return given.detach() if given.requires_grad and isinstance(given, nn.Parameter) else given
    if type(given) in (tuple, list):
        return type(given)(_constant(one) for one in given)
    if type(given) is dict:
        return {name: _constant(one) for name, one in given.items()}
    return given
