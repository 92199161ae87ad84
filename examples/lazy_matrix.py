"""Hold an attention matrix of a billion entries, and ask it things, without ever making it.

One head of 32,768 tokens has 32,768² ≈ 1.07 · 10⁹ entries, 4.3 GB as float32. Its queries and keys are 17 MB.
"""

import torch

import attlas
from attlas.matrix import Entropy, TopK, ask

torch.manual_seed(0)
n, dim = 32_768, 64
query, key = torch.randn(2, 1, 1, n, dim)
A = attlas.AttentionMatrix(query, key, causal=True, window=1024)

print(f"shape {tuple(A.shape)}, held in {A.nbytes / 1e6:.1f} MB instead of {n * n * 4 / 1e9:.1f} GB")

# Any tile is exact, and costs only itself: nothing else of the matrix is computed once the rows' normalisers are known.
tile = A[0, 0, 20_000:20_256, 19_900:20_156]
print(f"a tile of {tuple(tile.shape)}, whose largest entry is {tile.max():.4f}")

# Several questions share one pass over the matrix.
entropy, (_, strongest) = ask(A, Entropy(), TopK(4))
print(f"mean entropy {entropy.mean():.3f} nats; at most log(1024) = {torch.tensor(1024.0).log():.3f}")
print(f"token 30,000 looks most at {strongest[0, 0, 30_000].tolist()}")

# A picture of the whole: sums over 8 × 8 regions, whose total is the number of rows, because each row sums to one.
picture = A.pool((8, 8), reduce="sum")
print(f"pooled to {tuple(picture.shape)}; total {picture.sum():.1f} for {n} rows")
