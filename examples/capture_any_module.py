"""Capture the attention of a module that has nothing to do with Hugging Face: plain torch.nn.MultiheadAttention."""

import torch

import attlas

torch.manual_seed(0)


class Reader(torch.nn.Module):
    """Look up, for each of the queries, what the memory holds: cross-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        # need_weights=False is what lets torch use its fused kernel; attlas does not need the weights to be returned.
        output, _ = self.attention(queries, memory, memory, need_weights=False)
        return output


model = Reader(width=64, heads=4).eval()
queries, memory = torch.randn(1, 10, 64), torch.randn(1, 2_000, 64)

with torch.no_grad(), attlas.capture(model) as cap:
    model(queries, memory)

for name, index in zip(cap.names, cap.layers, strict=True):
    A = cap[index]
    _, strongest = A.topk(1)
    print(f"{name}: {tuple(A.shape)}; query 0 looks most at keys {strongest[0, :, 0, 0].tolist()}, one a head")
print(f"A·V against the module's own output, worst relative error: {max(cap.verify().values()):.1e}")
