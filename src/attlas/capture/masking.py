"""What transformers' mask functions are asked for: the predicate behind a mask, or a formula in its place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import eager_mask, sdpa_mask

from attlas.capture.formulas import FormulaMask
from attlas.capture.visibility import MaskFunction

MaskMaker = Callable[..., Tensor | None]


def predicate_of(maker: MaskMaker, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> MaskFunction | None:
    """Return the predicate that a mask is made from; None where it cannot be asked for tiles.

    Parameters
    ----------
    maker : callable
        A registered mask function.
    args, kwargs
        What it is called with.
    """
    given = _named(maker, args, kwargs)
    function, padding = given.get("mask_function"), given.get("attention_mask")
    # Predicates written for vmap need not accept index tensors.
    sizes = {"batch_size", "q_length", "kv_length"}
    if function is None or given.get("use_vmap", False) or not sizes <= given.keys():
        return None
    if padding is not None and padding.dim() != 2:
        return None
    offset, n_key = int(given.get("kv_offset", 0)), int(given["kv_length"])
    if padding is not None and (missing := n_key + offset - padding.shape[-1]) > 0:
        padding = nn.functional.pad(padding, (0, missing))
    return MaskFunction(
        function,
        padding,
        int(given.get("q_offset", 0)),
        offset,
        int(given["batch_size"]),
        int(given["q_length"]),
        n_key,
        torch.empty(0, device=given.get("device", "cpu")).device,
    )


def formula_of(maker: MaskMaker, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FormulaMask | None:
    """Return a formula in the place of the mask that would be made; None where the mask may be anything."""
    if maker not in (sdpa_mask, eager_mask):
        # Others may do with the predicate what they like.
        return None
    function = predicate_of(maker, args, kwargs)
    if function is None:
        return None
    dtype = torch.bool if maker is sdpa_mask else _named(maker, args, kwargs)["dtype"]
    return FormulaMask(function, partial(_made, maker, args, kwargs), dtype)


def _made(maker: MaskMaker, args: tuple[Any, ...], kwargs: Mapping[str, Any], **changed: Any) -> Tensor | None:
    names = list(inspect.signature(maker).parameters)
    return maker(**{**dict(zip(names, args, strict=False)), **kwargs, **changed})


def _named(maker: MaskMaker, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(maker).bind(*args, **kwargs)
    bound.apply_defaults()
    return {**bound.arguments, **bound.arguments.get("kwargs", {})}
