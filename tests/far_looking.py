"""A model of one layer in which one head has to look far back and another does not, for tests of plans."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import attlas
from attlas.models import Facts

PERIOD = 24
VOCABULARY = 40
FAR, NEAR = 0, 1
"""The heads: one reads the token that stood a period ago, less one, which comes next; one the token before."""

_CODE = 64


class Attention(nn.Module):
    """Two heads that know by codes of positions where to look."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.codes = nn.Parameter(torch.randn(positions + PERIOD, _CODE, generator=random).sign())

    def forward(self, states: Tensor) -> Tensor:
        n = states.shape[1]
        own = self.codes[PERIOD : PERIOD + n]
        far, near = self.codes[1 : 1 + n], self.codes[PERIOD - 1 : PERIOD - 1 + n]
        query = torch.stack([far, near])[None] * 0.5
        value = torch.cat([states, torch.zeros(1, n, _CODE - VOCABULARY)], -1)
        key, value = (x.expand(1, 2, n, _CODE) for x in (own, value))
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)


class FarLooking(nn.Module):
    def __init__(self, positions: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, VOCABULARY)
        self.embedding.weight.data.copy_(torch.eye(VOCABULARY))
        self.attention = Attention(positions)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor) -> Any:
        found = self.attention(self.embedding(input_ids))[..., :VOCABULARY]
        return SimpleNamespace(logits=8.0 * found[:, FAR] + 0.2 * found[:, NEAR])


def far_looking(positions: int = 256) -> attlas.LanguageModel:
    """Return the model."""
    model = FarLooking(positions).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = Facts("far looking", "", "decoder", 1, 2, 2, _CODE, positions, VOCABULARY, parameters, "fa2")
    return attlas.LanguageModel(model, None, facts)


def periodic(n: int, seed: int = 0) -> list[int]:
    """Return a text that repeats itself."""
    once = torch.randint(0, VOCABULARY, (PERIOD,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [once[i % PERIOD] for i in range(n)]
