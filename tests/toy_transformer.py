"""A transformer of a few lines in float64 that shows everything: dense attention, its gradients, and what a walk meets.

It is written straight from the formulas, and knows nothing of how attlas computes; tests of walks compare with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from attlas.capture.attended import Attended, Gradients
from attlas.matrix import AttentionMatrix


@dataclass(frozen=True)
class Shape:
    """What a toy is like."""

    n: int = 9
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    dim: int = 4
    value_dim: int = 4
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    seed: int = 0
    answer: int = 0
    """Tokens of a decoder that asks an encoder of `n` tokens; 0 for one stack."""

    @property
    def width(self) -> int:
        return self.heads * self.value_dim


@dataclass
class Call:
    """One attention call: what the kernel was given, and the dense matrix."""

    query: Tensor
    key: Tensor
    value: Tensor
    sinks: Tensor | None
    attention: Tensor
    output: Tensor
    causal: bool
    window: int | None
    side: Literal["decoder", "encoder"]
    cross: bool
    gradients: list[Tensor] = field(default_factory=list)
    """∂target/∂A, (head, n_query, n_key), one a target, by automatic differentiation."""


@dataclass
class Toy:
    """A run: its calls from the lowest layer up, what a walk meets from the top down, and where it begins."""

    shape: Shape
    calls: list[Call]
    attended: list[Attended]
    reading: Any
    values: Tensor

    @property
    def targets(self) -> int:
        return len(self.values)

    def dense(self, side: str | None = None, cross: bool | None = None) -> list[Call]:
        """Return some of the calls, lowest first."""
        return [c for c in self.calls if side in (None, c.side) and cross in (None, c.cross)]


def toy(shape: Shape, positions: Sequence[int | None] = (-1,), *, output: bool = True) -> Toy:
    """Run a toy and explain a random direction of its last state at some positions; None is the mean over all."""
    random = torch.Generator().manual_seed(shape.seed)

    def weights(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64) / size[-2] ** 0.5

    calls: list[Call] = []

    def layer(asking: Tensor, asked: Tensor, side: Any, cross: bool, causal: bool) -> Tensor:
        query = (asking @ weights(shape.width, shape.heads * shape.dim) * 2).unflatten(1, (shape.heads, -1))
        key = (asked @ weights(shape.width, shape.kv_heads * shape.dim)).unflatten(1, (shape.kv_heads, -1))
        value = (asked @ weights(shape.width, shape.kv_heads * shape.value_dim)).unflatten(1, (shape.kv_heads, -1))
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        sinks = torch.randn(shape.heads, generator=random, dtype=torch.float64) if shape.sinks else None
        window = None if cross else shape.window
        groups = shape.heads // shape.kv_heads
        scores = query @ key.repeat_interleave(groups, 0).mT * shape.dim**-0.5
        if shape.softcap:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        gap = torch.arange(len(asking))[:, None] - torch.arange(len(asked))
        hidden = (gap < 0) if causal else torch.zeros_like(gap, dtype=torch.bool)
        if window is not None:
            hidden = hidden | (gap.abs() >= window)
        scores = scores.masked_fill(hidden, -torch.inf)
        if sinks is not None:
            extra = sinks.view(-1, 1, 1).expand(-1, len(asking), 1)
            attention = torch.cat([scores, extra], -1).softmax(-1)[..., :-1]
        else:
            attention = scores.softmax(-1)
        out = attention @ value.repeat_interleave(groups, 0)
        calls.append(Call(query, key, value, sinks, attention, out, causal, window, side, cross))
        return out.transpose(0, 1).flatten(1) @ weights(shape.width, shape.width)

    def mixed(state: Tensor) -> Tensor:
        return state + torch.tanh(state @ weights(shape.width, 2 * shape.width)) @ weights(2 * shape.width, shape.width)

    def embedded(n: int) -> Tensor:
        return torch.randn(n, shape.width, generator=random, dtype=torch.float64).requires_grad_()

    state = embedded(shape.n)
    stack: Any = "encoder" if shape.answer or not shape.causal else "decoder"
    for _ in range(shape.layers):
        state = mixed(state + layer(state, state, stack, False, shape.causal and not shape.answer))
    if shape.answer:
        read, state = state, embedded(shape.answer)
        for _ in range(shape.layers):
            state = state + layer(state, state, "decoder", False, True)
            state = mixed(state + layer(state, read, "decoder", True, False))
    rows = torch.zeros(len(positions), len(state), dtype=torch.float64)
    for row, position in zip(rows, positions, strict=True):
        row[slice(None) if position is None else position] = 1 if position is not None else 1 / len(state)
    values = torch.stack([(state.T @ row) @ weights(shape.width, 1)[:, 0] for row in rows])
    attended = _met(calls, values, output=output, softcap=shape.softcap)
    return Toy(shape, calls, attended, SimpleNamespace(rows=rows, n=shape.n), values.detach())


def _met(calls: list[Call], values: Tensor, *, output: bool, softcap: float | None) -> list[Attended]:
    found = []
    for number, call in enumerate(calls):
        parts = (call.attention, call.output, call.key, call.value)
        given = []
        for value in values:
            got = torch.autograd.grad(value, parts, retain_graph=True, allow_unused=True)
            attention, out, key, passed = (
                torch.zeros_like(part) if one is None else one for part, one in zip(parts, got, strict=True)
            )
            call.gradients.append(attention)
            given.append(Gradients(out[None], key[None], passed[None]))
        matrix = AttentionMatrix(
            call.query.detach()[None],
            call.key.detach()[None],
            causal=call.causal,
            window=call.window,
            softcap=softcap,
            sinks=None if call.sinks is None else call.sinks.detach(),
        )
        found.append(
            Attended(
                number,
                f"layers.{number}",
                matrix,
                call.value.detach()[None],
                call.output.detach()[None] if output else None,
                tuple(given),
                call.side,
                call.cross,
            )
        )
    for call in calls:
        call.attention = call.attention.detach()
    return found[::-1]


DECODERS = {
    "plain": Shape(),
    "one key head": Shape(kv_heads=1, seed=1),
    "window": Shape(window=4, seed=2, n=11),
    "soft cap": Shape(softcap=1.5, seed=3),
    "sinks": Shape(sinks=True, seed=4),
    "all of it": Shape(window=5, softcap=2.0, sinks=True, seed=5, n=13, value_dim=6),
    "two tokens": Shape(n=2, seed=6),
}
ENCODERS = {
    "encoder": Shape(causal=False, seed=7),
    "encoder, all key heads": Shape(causal=False, kv_heads=4, seed=8, n=7),
    "encoder, window": Shape(causal=False, window=3, seed=9, n=12),
}
STACKS = {**DECODERS, **ENCODERS}
BOTH = {
    "encoder and decoder": Shape(answer=5, seed=10),
    "encoder and decoder, one token": Shape(answer=1, seed=11, kv_heads=4),
    "encoder and decoder, deep": Shape(answer=7, layers=4, seed=12, n=6),
}
