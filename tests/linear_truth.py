"""Linear attention as its formula says: dense, in float64, term by term; and heads to try it on."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attlas import AttentionMatrix
from attlas.patterns.features import Elu, Favor, FeatureMap, Features
from attlas.patterns.linear import Linear


@dataclass(frozen=True)
class Heads:
    """Queries, keys, values and the rules of some heads, and what of them is exact."""

    query: Tensor
    key: Tensor
    value: Tensor
    features: Features
    window: int = 0
    sinks: int = 0
    rules: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> AttentionMatrix:
        return AttentionMatrix(self.query, self.key, **self.rules)

    @property
    def pattern(self) -> Linear:
        return Linear(self.features, window=self.window, sinks=self.sinks)

    @property
    def plain_dtype(self) -> torch.dtype:
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32

    @property
    def values(self) -> Tensor:
        """One for each head."""
        return self.value.repeat_interleave(self.query.shape[1] // self.value.shape[1], 1)

    @property
    def magnitude(self) -> float:
        """The largest logarithm of a feature, or score: in low precision it is rounded as such."""
        query, key = self.query.double(), self.key.double()
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        scale = self.rules.get("scale", query.shape[3] ** -0.5)
        largest = [logs.abs().max() for logs in log_features(self.features, query, key, scale)]
        return max(1.0, (query @ key.mT * scale).abs().max().item(), *(one.item() for one in largest))

    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The whole matrix; (batch, head, n_query, n_key)."""
        rules = self.rules
        query, key = self.query.to(dtype), self.key.to(dtype)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        n_query, n_key, scale = query.shape[2], key.shape[2], rules.get("scale", query.shape[3] ** -0.5)
        scores = query @ key.mT * scale
        if rules.get("softcap"):
            scores = rules["softcap"] * torch.tanh(scores / rules["softcap"])
        kernel = log_kernel(self.features, query, key, scale)
        position = torch.arange(n_query).view(-1, 1) + n_key - n_query
        column = torch.arange(n_key)
        ahead = position - column
        distance = ahead if rules.get("causal") else ahead.abs()
        near = (distance < self.window) | (column < self.sinks)
        logits = torch.where(near, scores, kernel)
        if rules.get("bias") is not None:
            logits = logits + rules["bias"].to(dtype)
        if rules.get("causal"):
            logits = logits.masked_fill(ahead < 0, -torch.inf)
        if rules.get("mask") is not None:
            logits = logits.masked_fill(~rules["mask"], -torch.inf)
        if rules.get("sinks") is not None:
            sink = rules["sinks"].to(dtype).view(1, -1, 1, 1).expand(*logits.shape[:3], 1)
            logits = torch.cat([logits, sink], -1)
        top = logits.detach().amax(-1, keepdim=True)
        weights = torch.exp(logits - torch.where(top.isfinite(), top, 0.0))
        total = weights.sum(-1, keepdim=True)
        return (weights / torch.where(total > 0, total, 1.0))[..., :n_key]


def log_kernel(features: Features, query: Tensor, key: Tensor, scale: float) -> Tensor:
    """The logarithm of φ(q)·φ(k), with every term of the sum at once; (batch, head, n_query, n_key)."""
    left, right = log_features(features, query, key, scale)
    return torch.logsumexp(left.unsqueeze(3) + right.unsqueeze(2), -1)


def log_features(features: Features, query: Tensor, key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The logarithms of queries' and of keys' features."""
    if isinstance(features, Elu):
        left, right = (torch.where(x > 0, x.clamp(min=0) + 1, x.clamp(max=0).exp()).log() for x in (query, key))
    elif isinstance(features, Favor):
        directions = features.directions(query.shape[-1]).to(query.dtype)
        left, right = (scale**0.5 * x @ directions - scale * (x * x).sum(-1, keepdim=True) / 2 for x in (query, key))
        left = left - torch.tensor(float(features.features), dtype=query.dtype).log()
    elif isinstance(features, FeatureMap):
        ones = torch.ones_like(query[..., :1])
        left = torch.cat([query, ones], -1) @ features.query.to(query.dtype)
        right = torch.cat([key, torch.ones_like(key[..., :1])], -1) @ features.key.to(query.dtype)
        left = left - torch.logsumexp(left, -1, keepdim=True)
    else:
        raise TypeError(type(features).__name__)
    return left, right


def random_map(heads: int, dim: int, features: int, generator: torch.Generator) -> FeatureMap:
    query, key = (torch.randn(heads, dim + 1, features, generator=generator) for _ in range(2))
    return FeatureMap(query, key)
