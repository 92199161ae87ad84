"""Attention as people write it themselves, for tests of what can be read from any module."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):
    """Fused projections, PyTorch's own kernel, an output projection."""

    def __init__(self, heads: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.heads = heads
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)

    def split(self, x: Tensor) -> list[Tensor]:
        return list(self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        gathered = scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(gathered.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(*self.split(x))
