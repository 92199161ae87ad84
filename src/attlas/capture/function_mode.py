"""Hears attention outside of transformers' interface: PyTorch's own functions, and patterns, in any module.

`scaled_dot_product_attention` and `torch.nn.MultiheadAttention` are heard by a function mode, which sees each call of a
PyTorch function on this thread. While one is active, PyTorch does not take the native fast path of
`torch.nn.MultiheadAttention` and `TransformerEncoderLayer` (inference only), so there the same numbers come from other
kernels, and may differ in the last digit.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attlas.capture.asked import Asked, Asking, ask
from attlas.capture.call import Call, describe
from attlas.capture.formulas import FormulaMask
from attlas.capture.interface import (
    Change,
    Changer,
    Listener,
    Scoring,
    all_deaf,
    changed,
    changers,
    check_exact,
    computed,
    listeners,
    scored,
)
from attlas.capture.kernels import KernelWatch
from attlas.capture.patterned import call_of, rescored
from attlas.capture.probe import shadow, shadow_dtype
from attlas.capture.visibility import MaskMemory
from attlas.errors import UnsupportedModelError
from attlas.matrix import AttentionMatrix
from attlas.patterns import Pattern
from attlas.patterns.pattern import attend

_SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class AttentionMode(TorchFunctionMode):
    """Lets everyone on this thread who hears or changes attention take part in PyTorch's own calls.

    Where several are open, the mode that was entered last deals with a call, for all of them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _fused(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return _multi_head(func, args, kwargs)
        if func is attend:
            return _by_pattern(*args)
        result = func(*args, **kwargs)
        if func in _SOFTMAX and isinstance(result, Tensor) and result.dim() >= 4:
            for one in dict.fromkeys([*listeners(), *changers()]):
                if one.inside():
                    one.saw_softmax()
        return result


def _fused(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hearing, changing = _concerned()
    given = _named(*args, **kwargs)
    if not (hearing or changing):
        return func(**_plain(given))
    changes = [changer.change(None) for changer in changing]
    if changes:
        scoring = scored(changes, Scoring(given["query"], given["key"], given["attn_mask"], None, given["value"]))
        given |= {"query": scoring.query, "key": scoring.key, "attn_mask": scoring.mask}
        given |= {} if scoring.value is None else {"value": scoring.value}
    with all_deaf([*hearing, *changing]):
        replaced = computed(changes, Asking(lambda masks: ask(**_settings(masks, **given)), _not_disproved))
        if replaced is not None:
            output, lse = replaced.output.reshape(*_leading(given), *replaced.output.shape[-2:]), None
        else:
            given = _plain(given)
            with KernelWatch(enabled=bool(hearing)) as watch:
                output = func(**given)
            lse = watch.lse
    with torch.no_grad(), all_deaf([*hearing, *changing]):
        for listener in hearing:
            try:
                check_exact(replaced)
                call = _describe_fused(output, lse, listener.masks, given)
            except UnsupportedModelError as error:
                listener.refused(None, str(error))
            else:
                listener.heard(None, call)
    if not changes:
        return output
    # Axes before the heads are all of the batch.
    return changed(changes, _four_axes(output, output.shape[:-3])).reshape(output.shape)


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """Give a kernel the mask itself, where a formula stands in for it."""
    mask = given["attn_mask"]
    # The mask was asked for by code that says itself whether it is causal, so it is never left out.
    return {**given, "attn_mask": mask.dense()} if isinstance(mask, FormulaMask) else given


def _leading(given: dict[str, Any]) -> tuple[int, ...]:
    """Return the axes of the output before its queries."""
    shapes = [given[name].shape[:-3] for name in ("query", "key", "value")]
    heads = given["query"].shape[-3:-2]
    return (*torch.broadcast_shapes(*shapes), *heads)


def _named(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Return the arguments of `scaled_dot_product_attention`, which has no signature to ask, by name."""
    given = {"query": query, "key": key, "value": value, "attn_mask": attn_mask}
    return {**given, "dropout_p": dropout_p, "is_causal": is_causal, **options}


def _multi_head(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    hearing, changing = _concerned()
    if not (hearing or changing):
        return func(*args, **kwargs)
    changes = [changer.change(None) for changer in changing]
    bound = _MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    with all_deaf([*hearing, *changing]):
        computed(changes, Asking(_not_by_head, _not_disproved))
        result, after = _multi_head_changed(func, given, changes) if changes else (func(*args, **kwargs),) * 2
        with torch.no_grad():
            for listener in hearing:
                try:
                    call = _describe_multi_head(result[0], listener, given)
                except UnsupportedModelError as error:
                    listener.refused(None, str(error))
                else:
                    listener.heard(None, call)
    return after


def _by_pattern(pattern: Pattern, exact: AttentionMatrix, value: Tensor) -> Tensor:
    hearing, changing = _concerned()
    changes = [changer.change(None) for changer in changing]
    with all_deaf([*hearing, *changing]):
        if changes:
            exact, value = rescored(exact, value, changes)
            computed(changes, Asking(_not_instead, _not_disproved))
        output = pattern.attend(exact, value)
        with torch.no_grad():
            for listener in hearing:
                try:
                    call = call_of(pattern, exact, value, output)
                except UnsupportedModelError as error:
                    listener.refused(None, str(error))
                else:
                    listener.heard(None, call)
    return changed(changes, output)


def _not_instead(masks: MaskMemory) -> Asked:
    raise UnsupportedModelError("it runs a pattern of its own, or adds biases of its own, in whose place no other runs")


def _not_by_head(masks: MaskMemory) -> Asked:
    raise UnsupportedModelError(
        "torch.nn.MultiheadAttention projects its heads inside of the call, so nothing can be computed in its place"
    )


def _not_disproved() -> str:
    """Say nothing against PyTorch's own functions: what they compute is known."""
    return ""


def _multi_head_changed(func: Any, given: dict[str, Any], changes: list[Change]) -> tuple[Any, Any]:
    """Return what the call gives unchanged, and what it gives changed.

    With the identity as its output projection, the function gives each head's output.
    """
    scoring = scored(changes, Scoring(given["query"], given["key"], given["attn_mask"], None, given["value"]))
    given.update(query=scoring.query, key=scoring.key, attn_mask=scoring.mask)
    given.update({} if scoring.value is None else {"value": scoring.value})
    weight, bias = given["out_proj_weight"], given["out_proj_bias"]
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    together, weights = func(**{**given, "out_proj_weight": identity, "out_proj_bias": None})
    heads = together.unflatten(-1, (given["num_heads"], -1))
    batched = together.dim() == 3
    of_heads = changed(changes, heads.permute(1, 2, 0, 3) if batched else heads.transpose(0, 1).unsqueeze(0))
    heads = of_heads.permute(2, 0, 1, 3) if batched else of_heads.squeeze(0).transpose(0, 1)
    return (F.linear(together, weight, bias), weights), (F.linear(heads.flatten(-2), weight, bias), weights)


def _concerned() -> tuple[list[Listener], list[Changer]]:
    """Return who hears, and who changes, a call that is made on this thread now."""
    return (
        [listener for listener in listeners() if listener.inside()],
        [changer for changer in changers() if changer.inside()],
    )


def _describe_fused(output: Tensor, lse: Tensor | None, masks: MaskMemory, given: dict[str, Any]) -> Call:
    query = given["query"]
    if lse is not None and query.dim() != 4:
        lse = lse.reshape(-1, *lse.shape[-2:]) if query.dim() > 4 else None
    settings = _settings(masks, **given)
    return describe(output=_four_axes(output, _leading(given)[:-1]), lse=lse, **settings)


def _settings(
    masks: MaskMemory,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> dict[str, Any]:
    """Return what `ask` and `describe` have in common."""
    if dropout_p:
        raise UnsupportedModelError("it drops attention weights at random; call model.eval() first")
    if query.is_nested or key.is_nested:
        raise UnsupportedModelError("it attends over nested tensors, which have no one length")
    if query.dim() > 4 and attn_mask is not None and attn_mask.dim() > 2:
        attn_mask = attn_mask.expand(*query.shape[:-2], *attn_mask.shape[-2:])
        attn_mask = attn_mask.reshape(-1, *attn_mask.shape[-3:])
    if query.dim() == 3 and attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.unsqueeze(1)
    leading = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3]) if query.dim() > 4 else ()
    return {
        "query": _four_axes(query, leading),
        "key": _four_axes(key, leading),
        "value": _four_axes(value, leading),
        "mask": attn_mask,
        "masks": masks,
        "scale": scale,
        "is_causal": is_causal,
    }


def _four_axes(tensor: Tensor, leading: tuple[int, ...]) -> Tensor:
    """Give a tensor the axes (batch, head, length, dim)."""
    if tensor.dim() == 4:
        return tensor
    if tensor.dim() > 4:
        return tensor.expand(*leading, *tensor.shape[-3:]).flatten(0, -4)
    return tensor.unsqueeze(0).unsqueeze(0) if tensor.dim() == 2 else tensor.unsqueeze(1)


def _describe_multi_head(output: Tensor, listener: Listener, given: dict[str, Any]) -> Call:
    """Describe `torch.nn.MultiheadAttention`, whose projections are part of the call.

    q, k and v are projected once more. Each head's values are carried through the output projection and summed like the
    output is, because that sum is all that the call shows.
    """
    if given["training"] and given["dropout_p"]:
        raise UnsupportedModelError("it drops attention weights at random; call model.eval() first")
    if given["static_k"] is not None or given["static_v"] is not None:
        raise UnsupportedModelError("it is given static keys or values, which replace its projections")
    heads: int = given["num_heads"]
    batched = given["query"].dim() == 3
    query, key, value = (t if batched else t.unsqueeze(1) for t in (given["query"], given["key"], given["value"]))
    q, k, v = _projected(query, key, value, given)
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    if given["bias_k"] is not None:
        k = torch.cat([k, given["bias_k"].expand(1, k.shape[1], -1)])
        v = torch.cat([v, given["bias_v"].expand(1, v.shape[1], -1)])
    if given["add_zero_attn"]:
        k, v = F.pad(k, (0, 0, 0, 0, 0, 1)), F.pad(v, (0, 0, 0, 0, 0, 1))
    batch, added = q.shape[1], k.shape[0] - key.shape[0]
    is_causal = given["is_causal"] and padding is None and not given["need_weights"]
    bias = None if is_causal else _additive(mask, padding, heads, batch, added, q.dtype)
    split = [t.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for t in (q, k, v)]
    out_weight, out_bias = given["out_proj_weight"], given["out_proj_bias"]
    shown = output if batched else output.unsqueeze(1)
    shown = (shown if out_bias is None else shown - out_bias).transpose(0, 1).unsqueeze(1)
    # Each head's part of the output projection, applied to the directions first: nothing of width d_model per head is
    # made.
    through = out_weight.view(out_weight.shape[0], heads, -1).permute(1, 2, 0)
    carried = split[2].to(shadow_dtype(split[2].dtype)) @ shadow(through).to(shadow_dtype(split[2].dtype))
    call = describe(
        query=split[0],
        key=split[1],
        value=split[2],
        output=shown,
        mask=bias,
        masks=listener.masks,
        is_causal=is_causal,
        fused=not given["need_weights"],
    )
    return replace(call, shadows=(carried, shadow(shown)))


def _projected(query: Tensor, key: Tensor, value: Tensor, given: dict[str, Any]) -> list[Tensor]:
    if given["use_separate_proj_weight"]:
        weights = [given["q_proj_weight"], given["k_proj_weight"], given["v_proj_weight"]]
    else:
        weights = list(given["in_proj_weight"].chunk(3))
    biases = [None] * 3 if given["in_proj_bias"] is None else list(given["in_proj_bias"].chunk(3))
    return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]


def _additive(
    mask: Tensor | None, padding: Tensor | None, heads: int, batch: int, added: int, dtype: torch.dtype
) -> Tensor | None:
    """Join two masks (True = hidden, or numbers to add) as numbers to add; keys that were added are seen by all."""

    def numbers(given: Tensor) -> Tensor:
        return (
            torch.zeros(given.shape, dtype=dtype, device=given.device).masked_fill(given, -math.inf)
            if given.dtype == torch.bool
            else given
        )

    total = None
    if mask is not None:
        total = numbers(mask)
        total = total.view(batch, heads, *total.shape[-2:]) if total.dim() == 3 else total[None, None]
    if padding is not None:
        columns = numbers(padding if padding.dim() == 2 else padding.unsqueeze(0))[:, None, None]
        total = columns if total is None else total + columns
    return None if total is None else F.pad(total, (0, added))
