"""Matrices made of attention and its gradient, beside the same written densely from their formulas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas import AttentionMatrix
from attlas.matrix import (
    AttentionGradient,
    AttentionOperator,
    HeadMean,
    Positive,
    Product,
    RowNormalised,
    Scaled,
    WithIdentity,
)
from attlas.matrix.reference import dense_attention
from rounding import steps


@dataclass(frozen=True)
class Problem:
    """Attention, what it passes on, and what arrives backwards."""

    query: Tensor
    key: Tensor
    gradient: Tensor
    value: Tensor
    rules: dict[str, Any]

    @property
    def matrix(self) -> AttentionMatrix:
        return AttentionMatrix(self.query, self.key, **self.rules)

    @property
    def plain_dtype(self) -> torch.dtype:
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32

    def attention(self, dtype: torch.dtype) -> Tensor:
        return dense_attention(self.query, self.key, **self.rules, dtype=dtype)

    def seen(self) -> Tensor:
        """Which entries may be seen, boolean: attention without any scores is positive there."""
        rules = {name: rule for name, rule in self.rules.items() if name not in ("softcap", "sinks", "scale")}
        return dense_attention(self.query * 0, self.key, **rules) > 0

    def bare_gradient(self, dtype: torch.dtype) -> Tensor:
        value = self.value.repeat_interleave(self.query.shape[1] // self.value.shape[1], dim=1)
        return self.gradient.to(dtype) @ value.to(dtype).mT

    def visible_gradient(self, dtype: torch.dtype) -> Tensor:
        return self.bare_gradient(dtype) * self.seen()

    @property
    def magnitude(self) -> float:
        """The largest number that an entry of the gradient can be: its rounding shows even where terms cancel."""
        return max(1.0, (self.gradient.double().norm(dim=-1).max() * self.value.double().norm(dim=-1).max()).item())

    @property
    def steps(self) -> float:
        """By how many steps an entry of the attention rounds, relative to itself."""
        return steps(self.query, self.key, self.rules)

    def rounding(self, terms: Tensor) -> float:
        """By how many steps a sum of entries rounds; `terms` are such sums without their entries' and weights' signs.

        What cancels keeps the rounding of its terms; factors of rows and of columns go up to 2.
        """
        return 4 * self.magnitude + self.steps * terms.max().item()

    def factors(self, length: int, *, negative: bool = False) -> Tensor:
        """Some numbers for rows, columns or heads, between 0 and 2, or −1 and 2."""
        return torch.linspace(-1.0 if negative else 0.0, 2.0, length, dtype=torch.float64)


def identity(dense: Tensor) -> Tensor:
    """Ones where a row's own position is the key."""
    n_query, n_key = dense.shape[2:]
    position = torch.arange(n_query).view(-1, 1) + n_key - n_query
    return (position == torch.arange(n_key)).to(dense.dtype)


def divided(dense: Tensor) -> Tensor:
    """Rows over their sums, zero rows left alone."""
    sums = dense.sum(-1, keepdim=True)
    return dense / torch.where(sums == 0, 1.0, sums)


def _gradient(p: Problem) -> AttentionGradient:
    return AttentionGradient(p.matrix, p.gradient, p.value)


def _times_gradient(p: Problem) -> Product:
    return Product(p.matrix, _gradient(p))


def _dense_times_gradient(p: Problem, dtype: torch.dtype) -> Tensor:
    return p.attention(dtype) * p.bare_gradient(dtype)


def _mixed(dense: Tensor, weights: Tensor) -> Tensor:
    return (dense * weights.to(dense.dtype).view(-1, dense.shape[1], 1, 1)).sum(1, keepdim=True)


def _rows(p: Problem) -> Tensor:
    return p.factors(p.query.shape[2])


def _columns(p: Problem) -> Tensor:
    return p.factors(p.key.shape[2] * p.query.shape[1]).view(-1, p.key.shape[2])


def _head_weights(p: Problem) -> Tensor:
    batch, head = p.query.shape[:2]
    return p.factors(batch * head, negative=True).view(batch, head)


@dataclass(frozen=True)
class Kind:
    """A kind, or some kinds in one another, lazily and densely.

    `positioned` says that rows must have positions: at most as many queries as keys. `amplifies` says that rows are
    divided by sums that may be near zero.
    """

    lazy: Callable[[Problem], AttentionOperator]
    dense: Callable[[Problem, torch.dtype], Tensor]
    positioned: bool = False
    amplifies: bool = False


KINDS = {
    "gradient": Kind(_gradient, Problem.visible_gradient),
    "bare gradient": Kind(
        lambda p: AttentionGradient(p.matrix, p.gradient, p.value, visible_only=False), Problem.bare_gradient
    ),
    "attention times gradient": Kind(_times_gradient, _dense_times_gradient),
    "attention squared": Kind(lambda p: Product(p.matrix, p.matrix), lambda p, d: p.attention(d) ** 2),
    "positive part": Kind(lambda p: Positive(_times_gradient(p)), lambda p, d: _dense_times_gradient(p, d).relu()),
    "positive gradient": Kind(
        lambda p: Product(Positive(_gradient(p)), p.matrix), lambda p, d: p.attention(d) * p.bare_gradient(d).relu()
    ),
    "mean over heads": Kind(lambda p: HeadMean(p.matrix), lambda p, d: p.attention(d).mean(1, keepdim=True)),
    "weighted heads": Kind(
        lambda p: HeadMean(p.matrix, p.factors(p.query.shape[1])),
        lambda p, d: _mixed(p.attention(d), p.factors(p.query.shape[1])),
    ),
    "heads weighted with signs": Kind(
        lambda p: HeadMean(p.matrix, _head_weights(p)), lambda p, d: _mixed(p.attention(d), _head_weights(p))
    ),
    "with identity": Kind(
        lambda p: WithIdentity(p.matrix, 0.3),
        lambda p, d: 0.3 * p.attention(d) + 0.7 * identity(p.attention(d)),
        positioned=True,
    ),
    "a step of rollout": Kind(
        lambda p: WithIdentity(HeadMean(p.matrix)),
        lambda p, d: 0.5 * p.attention(d).mean(1, keepdim=True) + 0.5 * identity(p.attention(d)),
        positioned=True,
    ),
    "a step of gradient-weighted attention": Kind(
        lambda p: HeadMean(Positive(_times_gradient(p))),
        lambda p, d: _dense_times_gradient(p, d).relu().mean(1, keepdim=True),
    ),
    "the positive part of the mean": Kind(
        lambda p: Positive(HeadMean(_times_gradient(p))),
        lambda p, d: _dense_times_gradient(p, d).mean(1, keepdim=True).relu(),
    ),
    "scaled rows": Kind(
        lambda p: Scaled(p.matrix, rows=_rows(p)), lambda p, d: p.attention(d) * _rows(p).to(d).unsqueeze(-1)
    ),
    "scaled columns": Kind(
        lambda p: Scaled(p.matrix, columns=_columns(p)), lambda p, d: p.attention(d) * _columns(p).to(d).unsqueeze(-2)
    ),
    "scaled both ways": Kind(
        lambda p: Scaled(_gradient(p), _rows(p), _columns(p)),
        lambda p, d: p.visible_gradient(d) * _rows(p).to(d).unsqueeze(-1) * _columns(p).to(d).unsqueeze(-2),
    ),
    "normalised columns' weights": Kind(
        lambda p: RowNormalised(Scaled(p.matrix, columns=_columns(p) + 0.1)),
        lambda p, d: divided(p.attention(d) * (_columns(p) + 0.1).to(d).unsqueeze(-2)),
    ),
    "normalised positive part": Kind(
        lambda p: RowNormalised(HeadMean(Positive(_times_gradient(p)))),
        lambda p, d: divided(_dense_times_gradient(p, d).relu().mean(1, keepdim=True)),
        amplifies=True,
    ),
    "a transpose times a transpose": Kind(
        lambda p: Product(p.matrix.T, _gradient(p).T), lambda p, d: _dense_times_gradient(p, d).mT
    ),
    "transposed positive part": Kind(
        lambda p: Positive(_times_gradient(p)).T, lambda p, d: _dense_times_gradient(p, d).relu().mT
    ),
}
