"""Families whose fused attention is missing in transformers: attlas's exact path against what they fall back to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from attlas import Plan
from benchmarks.measuring import Row, in_fresh_process, in_turn, megabytes

WIDTH = 512
_SMALL: dict[str, Any] = {"vocab_size": 256, "hidden_size": WIDTH, "intermediate_size": 512, "num_hidden_layers": 2}

FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # A quarter of the heads of gpt-oss-20b; their width, groups and window are its own.
    "gpt-oss": (
        "GptOssModel",
        "GptOssConfig",
        {
            **_SMALL,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "sliding_window": 128,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    # The heads of Gemma 2 2B.
    "Gemma 2": (
        "Gemma2Model",
        "Gemma2Config",
        {
            **_SMALL,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
}
LENGTH, PROVED = 4096, 2048
"""Tokens that are timed, and those at which float64 is affordable as well."""

SPREAD = 0.08
"""Of weights of queries and keys: scores then vary by about 3, so that attention is far from even."""


def rows(rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Measure each family, with random weights and little beside its attention."""
    # Every row of memory is a process of its own: at tiny sizes, one family shows that all of it runs.
    for family in [*FAMILIES][: 1 if tiny else None]:
        yield from measured(family, rounds, *((96, 64) if tiny else (LENGTH, PROVED)))


def measured(family: str, rounds: int, length: int, proved: int) -> Iterator[Row]:
    """Time, memory and exactness of one family."""
    model, ids = build(family), text(length)
    ratio = in_turn(lambda: eager(model, ids), lambda: ours(model, ids), rounds)
    apart, size = difference(ours(model, ids), eager(model, ids)), float(eager(model, ids).abs().max())
    settings = FAMILIES[family][2]
    shape = (
        f"{settings['num_attention_heads']} heads, {settings['num_key_value_heads']} with keys, dim "
        f"{settings['head_dim']}, 2 layers, n = {length:,}"
    )
    yield Row(
        f"times as fast, {family}, exact: {shape}",
        "transformers' eager attention, which it falls back to",
        ratio.reached(),
        "–",
        f"{ratio.detail()}; random weights, little beside attention",
    )
    extra = {(way, n): memory(family, way, n) for way, n in (("eager", length), ("ours", length), ("ours", 2 * length))}
    (whole, own, twice) = extra.values()
    yield Row(
        f"peak extra memory of the same, {family}",
        f"eager: {megabytes(whole)}",
        f"1/{whole / max(own, 1.0):.0f}",
        "O(n)",
        f"{megabytes(own)}; {megabytes(twice)} at {2 * length:,} tokens; fresh processes",
    )
    short, few = build(family), text(proved)
    outputs = ours(short, few), eager(short, few)
    exact = eager(short.double(), few)
    missed = [difference(output, exact) for output in outputs]
    yield Row(
        f"largest difference from float64, {family}, n = {proved:,}",
        f"eager in float32: {missed[1]:.1e}",
        f"{missed[0]:.1e}",
        "≤ twice eager's",
        f"of final states up to {size:.1f}; at n = {length:,} from eager in float32: {apart:.1e}",
    )


def build(family: str) -> nn.Module:
    """Return the model, with random weights."""
    name, configuration, options = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, configuration)(**options)
    # The experts' own fused code knows no float64.
    model = getattr(transformers, name)._from_config(config, experts_implementation="eager").eval()
    if model.config._attn_implementation != "eager":
        raise RuntimeError(
            f"{family}: wanted a family that falls back to eager, got {model.config._attn_implementation}"
        )
    with torch.no_grad():
        for label, weight in model.named_parameters():
            if label.endswith(("q_proj.weight", "k_proj.weight")):
                weight.normal_(0, SPREAD)
    return model


def text(length: int) -> Tensor:
    """Return tokens drawn at random, (1, length)."""
    return torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(1))


def eager(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the final states, (1, n, width), as transformers computes them."""
    with torch.no_grad():
        return model(ids, use_cache=False).last_hidden_state


def ours(model: nn.Module, ids: Tensor) -> Tensor:
    """Return them with every head's attention computed exactly by attlas."""
    with Plan.exact(model).applied(model) as applied:
        found = eager(model, ids)
    if applied.left or not applied.calls:
        raise RuntimeError(f"not all attention was computed by the plan: {applied}")
    return found


WAYS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"eager": eager, "ours": ours}


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference of an entry."""
    return float((ours.double() - theirs.double()).abs().max())


def memory(family: str, way: str, length: int) -> float:
    """Return by how much a fresh process's peak memory rises, in bytes."""
    before, peak = in_fresh_process("stock", family, way, str(length))
    return float(peak) - float(before)
