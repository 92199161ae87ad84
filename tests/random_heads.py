"""Projections of random weights, in the shape in which `attlas.projections` gives them, and their dense reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attlas.results import Provenance


@dataclass(frozen=True)
class Norm:
    gain: Tensor
    centred: bool


@dataclass
class Layer:
    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    name: str = ""
    kind: str = "self"
    input_norm: Norm | None = None


@dataclass
class Heads:
    """Stands for `Projections`."""

    layers: list[int]
    of: dict[int, Layer]
    provenance: Provenance = field(default_factory=lambda: Provenance("test", settings={"inputs": "none"}))

    def __getitem__(self, layer: int) -> Layer:
        return self.of[layer]


def random_layer(
    layer: int = 0,
    *,
    heads: int = 4,
    kv_heads: int = 2,
    d_model: int = 24,
    dim: int = 4,
    value_dim: int | None = None,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
    **rest: Any,
) -> Layer:
    generator = generator or torch.Generator().manual_seed(layer)

    def linear(rows: int, width: int) -> Tensor:
        """Return what a Linear's weight looks like as a view per head: (head, d_model, dim)."""
        weight = torch.randn(rows * width, d_model, generator=generator, dtype=torch.float64).to(dtype)
        return weight.unflatten(0, (rows, width)).mT

    value_dim = value_dim or dim
    return Layer(
        layer=layer,
        query=linear(heads, dim),
        key=linear(kv_heads, dim),
        value=linear(kv_heads, value_dim),
        output=linear(heads, value_dim).mT,
        **{"name": f"layers.{layer}.attention", **rest},
    )


def random_heads(layers: int = 3, seed: int = 0, **options: Any) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    return gathered(random_layer(i, generator=generator, **options) for i in range(layers))


def gathered(layers: Any) -> Heads:
    known = {layer.layer: layer for layer in layers}
    return Heads(list(known), known)


def dense_qk(layer: Layer) -> Tensor:
    """W_Q·W_Kᵀ, (head, d_model, d_key), float64."""
    group = len(layer.query) // len(layer.key)
    return layer.query.double() @ layer.key.double().repeat_interleave(group, 0).mT


def dense_ov(layer: Layer) -> Tensor:
    """W_V·W_O, (head, d_key, d_out), float64."""
    group = len(layer.query) // len(layer.key)
    return layer.value.double().repeat_interleave(group, 0) @ layer.output.double()


def dense_scores(first: Layer, second: Layer, kind: str) -> Tensor:
    """‖OV₁M₂‖ / (‖OV₁‖ ‖M₂‖), (head, head), 0 where a head is zero."""
    writes = dense_ov(first)
    reads = {"q": dense_qk, "k": lambda one: dense_qk(one).mT, "v": dense_ov}[kind](second)
    size = torch.linalg.matrix_norm
    sizes = size(writes)[:, None] * size(reads)
    return torch.where(sizes > 0, size(writes[:, None] @ reads) / torch.where(sizes > 0, sizes, 1.0), 0.0)
