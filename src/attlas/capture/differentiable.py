"""Whether gradients can flow through a model, asked before they are lost on the way without a word."""

from __future__ import annotations

from itertools import chain

from torch import nn

from attlas.errors import UnsupportedModelError


def check_differentiable(model: nn.Module) -> None:
    """Refuse a model that gradients cannot be taken of.

    Raises
    ------
    UnsupportedModelError
        It is quantised, drops numbers at random, or was made in inference mode.
    """
    for name, module in model.named_modules():
        where = name or type(module).__name__
        if module.training and isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
            raise UnsupportedModelError(
                "model: wanted evaluation mode, got one that drops numbers at random; call model.eval() first"
            )
        if "quantized" in type(module).__module__.split(".") or _holds_integers(module):
            raise UnsupportedModelError(
                f"model: wanted one that gradients can be taken of, got a quantised one ({where}); "
                "load its weights in a floating-point dtype"
            )
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            raise UnsupportedModelError(
                f"model: wanted one that gradients can be taken of, but {name} was made in inference mode; "
                "load the model outside of torch.inference_mode()"
            )


def _holds_integers(module: nn.Module) -> bool:
    held = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    return any(
        "weight" in name and tensor.dim() > 1 and not (tensor.is_floating_point() or tensor.is_complex())
        for name, tensor in held
    )
