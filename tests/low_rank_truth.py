"""Low-rank attention as its formulas say: dense, in float64, one batch element and head at a time."""

import torch
from torch import Tensor


def dense_low_rank(pattern, query, key, mask=None, scale=None, softcap=None, *, dtype=torch.float64) -> Tensor:
    """The whole matrix; (batch, head, n_query, n_key). `mask` is (batch, 1, 1, n_key)."""
    batch, head, n_query, dim = query.shape
    n_key, group = key.shape[2], head // key.shape[1]
    scale = dim**-0.5 if scale is None else scale
    rows = []
    for b in range(batch):
        seen = torch.ones(n_key, dtype=torch.bool) if mask is None else mask[b % len(mask), 0, 0]
        both = seen if n_query == n_key else torch.ones(n_query, dtype=torch.bool)
        for h in range(head):
            q, k = query[b, h].to(dtype), key[b, h // group].to(dtype)
            rows.append(_one(pattern, q, k, both, seen, scale, softcap))
    return torch.stack(rows).view(batch, head, n_query, n_key)


def _one(pattern, q, k, q_seen, k_seen, scale, softcap) -> Tensor:
    def softmax(a, b, seen):
        scores = a @ b.T * scale
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        return torch.softmax(scores[:, seen], -1) if bool(seen.any()) else scores[:, seen]

    out = torch.zeros(len(q), len(k), dtype=q.dtype)
    if not bool(k_seen.any()):
        return out
    whole = torch.ones(pattern.rank, dtype=torch.bool)
    if pattern.method == "linformer":
        if pattern.projection == "random":
            generator = torch.Generator().manual_seed(pattern.seed)
            normal = torch.randn(len(k), pattern.rank, generator=generator, dtype=torch.float64)
            share = normal.T.to(k) / pattern.rank**0.5 * k_seen
        else:
            share, whole = _means(k_seen, pattern.rank, k.dtype)
        return softmax(q, share @ k, whole) @ share[whole]
    (to_q, some_q), (to_k, some_k) = (_means(seen, pattern.rank, q.dtype) for seen in (q_seen, k_seen))
    q_means, k_means = (to_q @ q)[some_q], (to_k @ k)[some_k]
    every = torch.ones(len(k_means), dtype=torch.bool)
    middle = softmax(q_means, k_means, every)
    if pattern.iterations == 0:
        inverse = torch.linalg.pinv(middle)
    else:
        inverse = middle.T / (middle.sum(0).max() * middle.sum(1).max())
        one = torch.eye(len(middle), dtype=q.dtype)
        for _ in range(pattern.iterations):
            az = middle @ inverse
            inverse = 0.25 * inverse @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
    out[:, k_seen] = softmax(q, k_means, every) @ inverse @ softmax(q_means, k, k_seen)
    return out


def _means(seen, rank, dtype) -> tuple[Tensor, Tensor]:
    """Averages over segments of what is seen, (rank, n), and which segments there are."""
    places = seen.nonzero().flatten().tolist()
    share = torch.zeros(rank, len(seen), dtype=dtype)
    for place, token in enumerate(places):
        share[place * rank // len(places), token] = 1
    counts = share.sum(1, keepdim=True)
    return share / counts.clamp(min=1), counts.flatten() > 0
