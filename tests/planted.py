"""A model whose heads do what they are told, for tests of what is found out about heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import attlas
from attlas.models import Facts

ROLES = ("previous_token", "two_back", "duplicate_token", "induction", "first_token", "even", "far", "local")
STRENGTH = 6.0


class PlantedAttention(nn.Module):
    """Attends as its heads' roles say, by what it adds to scores that are otherwise all 0."""

    def forward(self, ids: Tensor) -> Tensor:
        n = ids.shape[1]
        i, j = torch.arange(n).view(-1, 1), torch.arange(n).view(1, -1)
        before = torch.cat([torch.full_like(ids[:, :1], -1), ids[:, :-1]], dim=1)
        matching = {
            "previous_token": (i - j == 1).expand(len(ids), n, n),
            "two_back": (i - j == 2).expand(len(ids), n, n),
            "duplicate_token": (ids.unsqueeze(2) == ids.unsqueeze(1)) & (i != j),
            "induction": ids.unsqueeze(2) == before.unsqueeze(1),
            "first_token": (j == 0).expand(len(ids), n, n),
            "even": torch.zeros(len(ids), n, n, dtype=torch.bool),
            "far": (i - j >= 64).expand(len(ids), n, n) & (j > 0),
            "local": (i - j < 8).expand(len(ids), n, n),
        }
        bias = STRENGTH * torch.stack([matching[name] for name in ROLES], dim=1).float()
        bias = bias.masked_fill(j > i, -torch.inf)
        zeros = torch.zeros(len(ids), len(ROLES), n, 8)
        return scaled_dot_product_attention(zeros, zeros, zeros, attn_mask=bias)


class Planted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = PlantedAttention()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.attention(input_ids)


def planted(tokenizer: Any = None, positions: int = 4096, vocabulary: int = 420) -> attlas.LanguageModel:
    """Return the model; head `h` of its one layer has the role ``ROLES[h]``."""
    facts = Facts("planted", "planted", "decoder", 1, len(ROLES), len(ROLES), 8, positions, vocabulary, 1, "beef")
    return attlas.LanguageModel(Planted().eval(), tokenizer, facts)
