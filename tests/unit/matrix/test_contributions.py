"""Vectors of a layer: what does not fit, sums of rows, what tokens keep, and a batch narrowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attlas import AttentionMatrix
from attlas.errors import ArgumentError
from attlas.matrix.contributions import Contributions
from attlas.matrix.gram import GramNorm
from attlas.matrix.proximity import Proximity

GENERATOR = torch.Generator().manual_seed(1)
BATCH, HEADS, KV_HEADS, N_QUERY, N_KEY, VALUE_DIM, WIDTH = 3, 4, 2, 5, 7, 3, 6


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


VECTORS = Contributions(
    AttentionMatrix(draw(BATCH, HEADS, N_QUERY, 8), draw(BATCH, KV_HEADS, N_KEY, 8), causal=True),
    draw(BATCH, KV_HEADS, N_KEY, VALUE_DIM),
    draw(HEADS, VALUE_DIM, WIDTH),
    draw(BATCH, N_QUERY, WIDTH),
    draw(BATCH, N_QUERY).abs(),
    draw(BATCH, N_QUERY).abs(),
)


def dense() -> torch.Tensor:
    """T, (batch, query, key, width)."""
    assert VECTORS.residual is not None
    assert VECTORS.inner is not None
    assert VECTORS.outer is not None
    written = VECTORS.value.repeat_interleave(HEADS // KV_HEADS, 1) @ VECTORS.output
    made = torch.einsum("bhij,bhjw,bi->bijw", VECTORS.matrix.to_dense(), written, VECTORS.inner)
    rows = torch.arange(N_QUERY)
    made[:, rows, rows + N_KEY - N_QUERY] += VECTORS.residual
    return made * VECTORS.outer[:, :, None, None]


def test_rows_add_up():
    rows = torch.tensor([4, 0, 2])
    assert torch.allclose(VECTORS.gathered(rows), dense().sum(2)[:, rows])
    assert torch.allclose(VECTORS.of_heads(VECTORS.matrix @ VECTORS.value), dense().sum(2))


def test_what_tokens_keep():
    rows = torch.arange(N_QUERY)
    assert torch.allclose(VECTORS.own(), dense()[:, rows, rows + N_KEY - N_QUERY])


@pytest.mark.parametrize("batch", [slice(1, 2), slice(0, BATCH), torch.tensor([2, 0])], ids=str)
def test_a_batch_narrowed(batch):
    every = slice(0, 1)
    norms = GramNorm(VECTORS)
    assert torch.allclose(norms.narrow(batch, every).to_dense()[:, 0], dense()[batch].norm(dim=-1))
    norms.prepare()
    assert torch.allclose(norms.narrow(batch, every).to_dense()[:, 0], dense()[batch].norm(dim=-1))


def test_the_one_head_may_be_asked_for_twice():
    twice = GramNorm(VECTORS)[:, [0, 0]]
    assert twice.shape == (BATCH, 2, N_QUERY, N_KEY)
    assert torch.equal(twice[:, 1].to_dense(), GramNorm(VECTORS).to_dense())


@pytest.mark.parametrize(
    ("part", "given", "match"),
    [
        ("value", draw(BATCH, 3, N_KEY, VALUE_DIM), r"value: wanted \(batch 3, a divisor of 4 heads"),
        ("value", draw(BATCH, KV_HEADS, N_QUERY, VALUE_DIM), "value: wanted"),
        ("output", draw(HEADS, VALUE_DIM + 1, WIDTH), r"output: wanted \(head 4, value_dim 3, width\)"),
        ("residual", draw(BATCH, N_KEY, WIDTH), r"residual: wanted shape \(3, 5, 6\)"),
        ("inner", draw(BATCH, N_KEY), r"inner: wanted shape \(3, 5\)"),
        ("outer", draw(N_QUERY), "outer: wanted"),
    ],
)
def test_parts_that_do_not_fit(part: str, given: Any, match: str):
    with pytest.raises(ArgumentError, match=match):
        replace(VECTORS, **{part: given})


def test_states_that_do_not_fit():
    with pytest.raises(ArgumentError, match=r"state: wanted shape \(3, 5, 6\)"):
        Proximity(VECTORS, draw(BATCH, N_KEY, WIDTH))
    with pytest.raises(ArgumentError, match="order: wanted 1 or 2"):
        Proximity(VECTORS, draw(BATCH, N_QUERY, WIDTH), 3)  # type: ignore[arg-type] - what a user may write
