"""A trainable layer against PyTorch's own, and against its fused kernel between projections written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

from attlas.nn import MultiHeadAttention
from benchmarks.measuring import Row, in_turn

WIDTH, HEADS = 576, 9
TOKENS = 4096
"""Tokens of a step, in one text or several."""

LENGTHS = (256, 1024, 4096)
AIM = 1.05


class ByHand(nn.Module):
    """What a user would write: one projection for queries, keys and values, PyTorch's kernel, and the output's."""

    def __init__(self) -> None:
        super().__init__()
        self.together = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.together(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def rows(rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Time a step of training, forward and backward, of causal full attention."""
    torch.manual_seed(0)
    ours, hand = MultiHeadAttention(WIDTH, HEADS, causal=True), ByHand()
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    for length in (16, 32) if tiny else LENGTHS:
        x = torch.randn(1 if tiny else TOKENS // length, length, WIDTH, requires_grad=True)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        peers: dict[str, Callable[[], Tensor]] = {
            "`torch.nn.MultiheadAttention`": lambda x=x, mask=mask: theirs(
                x, x, x, attn_mask=mask, is_causal=True, need_weights=False
            )[0],
            "`scaled_dot_product_attention` by hand": lambda x=x: hand(x),
        }
        for name, peer in peers.items():
            ratio = in_turn(lambda x=x: _step(ours(x)[0]), lambda peer=peer: _step(peer()), rounds)
            yield Row(
                f"time of a training step, full causal attention, n = {length:,}",
                name,
                ratio.reached(),
                f"≤ {AIM:.2f}",
                f"{ratio.detail()}; {len(x)} × {length:,} tokens, width {WIDTH}, {HEADS} heads",
            )


def _step(output: Tensor) -> None:
    output.sum().backward()
