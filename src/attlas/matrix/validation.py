"""What the arguments of an attention matrix must be, and what is said when they are not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attlas.errors import ArgumentError, NonFiniteError, complaint
from attlas.matrix.visibility import Formula

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_arguments(
    query: Tensor,
    key: Tensor,
    scale: float | None,
    window: int | None,
    mask: Tensor | Formula | None,
    bias: Tensor | Formula | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> tuple[Tensor | Formula | None, Tensor | Formula | None]:
    """Check every argument of `AttentionMatrix`; return mask and bias with four axes."""
    _check_query_and_key(query, key)
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    if scale is not None and not math.isfinite(scale):
        raise ArgumentError(complaint("scale", wanted="a finite number", got=scale))
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ArgumentError(complaint("window", wanted="a whole number of at least 1", got=window))
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0):
        raise ArgumentError(
            complaint("softcap", wanted="a positive number", got=softcap, way_out="use None for no soft cap")
        )
    if isinstance(mask, Tensor):
        mask = _four_axes("mask", mask, shape, query.device)
        if mask.dtype != torch.bool:
            raise ArgumentError(
                complaint(
                    "mask",
                    wanted="a boolean tensor, True = may be seen",
                    got=mask.dtype,
                    way_out="pass numbers as `bias`",
                )
            )
    if isinstance(bias, Tensor):
        bias = _four_axes("bias", bias, shape, query.device)
        if bias.dtype not in _FLOATS:
            raise ArgumentError(
                complaint("bias", wanted="a tensor of floats", got=bias.dtype, way_out="pass booleans as `mask`")
            )
        if not torch.amax(bias.detach()).item() < math.inf:
            raise NonFiniteError(
                complaint("bias", wanted="finite numbers or minus infinity", got="NaN or plus infinity")
            )
    if sinks is not None:
        _check_sinks(sinks, query)
    return mask, bias


def _check_query_and_key(query: Tensor, key: Tensor) -> None:
    for name, tensor in (("query", query), ("key", key)):
        if not isinstance(tensor, Tensor):
            raise ArgumentError(complaint(name, wanted="a torch.Tensor", got=type(tensor).__name__))
        if tensor.ndim != 4:
            heads = "head" if name == "query" else "kv_head"
            raise ArgumentError(
                complaint(name, wanted=f"four axes (batch, {heads}, n_{name}, dim)", got=f"shape {tuple(tensor.shape)}")
            )
        if tensor.dtype not in _FLOATS:
            raise ArgumentError(complaint(name, wanted="float32, float64, bfloat16 or float16", got=tensor.dtype))
        if 0 in tensor.shape:
            raise ArgumentError(
                complaint(name, wanted="at least one element on each axis", got=f"shape {tuple(tensor.shape)}")
            )
    if key.shape[0] != query.shape[0]:
        raise ArgumentError(complaint("key", wanted=f"the query's batch of {query.shape[0]}", got=key.shape[0]))
    if key.shape[3] != query.shape[3]:
        raise ArgumentError(complaint("key", wanted=f"the query's dim of {query.shape[3]}", got=key.shape[3]))
    if query.shape[1] % key.shape[1]:
        raise ArgumentError(
            complaint("key", wanted=f"a number of heads that divides the query's {query.shape[1]}", got=key.shape[1])
        )
    if key.dtype != query.dtype:
        raise ArgumentError(
            complaint(
                "key",
                wanted=f"the query's dtype {query.dtype}",
                got=key.dtype,
                way_out="convert one of them with .to(dtype)",
            )
        )
    if key.device != query.device:
        raise ArgumentError(
            complaint(
                "key",
                wanted=f"the query's device {query.device}",
                got=key.device,
                way_out="move one of them with .to(device)",
            )
        )
    check_finite("query", query)
    check_finite("key", key)


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise `NonFiniteError`, naming the first batch element and head, if a number is NaN or infinite."""
    # In the order in which they lie in memory: of heads side by side, as projections leave them, a copy would be made.
    strides = tensor.stride()
    low, high = torch.aminmax(tensor.detach().permute(sorted(range(tensor.ndim), key=lambda axis: -strides[axis])))
    if math.isfinite(low) and math.isfinite(high):
        return
    bad = ~tensor.detach().isfinite()
    batch, head, row, _ = (int(i) for i in bad.nonzero()[0])
    value = tensor[batch, head, row][bad[batch, head, row]][0].item()
    raise NonFiniteError(
        complaint(name, wanted="finite numbers", got=f"{value} at batch {batch}, head {head}, position {row}")
    )


def _four_axes(name: str, tensor: Tensor, shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
    wanted = f"a shape that broadcasts to (batch, head, n_query, n_key) = {shape}"
    if tensor.ndim > 4:
        raise ArgumentError(complaint(name, wanted=wanted, got=f"shape {tuple(tensor.shape)}"))
    if tensor.device != device:
        raise ArgumentError(
            complaint(
                name, wanted=f"the query's device {device}", got=tensor.device, way_out="move it with .to(device)"
            )
        )
    if name == "mask" and tensor.ndim == 2 and tensor.shape == (shape[0], shape[3]) != (shape[2], shape[3]):
        raise ArgumentError(
            complaint(
                name,
                wanted=wanted,
                got=f"shape {tuple(tensor.shape)}",
                way_out="for key padding pass mask[:, None, None, :]",
            )
        )
    tensor = tensor.view((1,) * (4 - tensor.ndim) + tuple(tensor.shape))
    if any(size not in (1, full) for size, full in zip(tensor.shape, shape, strict=True)):
        raise ArgumentError(complaint(name, wanted=wanted, got=f"shape {tuple(tensor.shape)}"))
    # An axis that was expanded by stride 0 is kept as one row of memory.
    for axis, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _check_sinks(sinks: Tensor, query: Tensor) -> None:
    if sinks.shape != (query.shape[1],):
        raise ArgumentError(
            complaint("sinks", wanted=f"shape (head,) = ({query.shape[1]},)", got=f"shape {tuple(sinks.shape)}")
        )
    if sinks.dtype not in _FLOATS:
        raise ArgumentError(complaint("sinks", wanted="floats", got=sinks.dtype))
    if sinks.device != query.device:
        raise ArgumentError(complaint("sinks", wanted=f"the query's device {query.device}", got=sinks.device))
    if not bool(sinks.isfinite().all()):
        raise NonFiniteError(complaint("sinks", wanted="finite numbers", got="NaN or infinity"))
