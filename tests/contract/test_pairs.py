"""The matrices of vector norms keep the contract of every kind of attention matrix."""

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix import pairs as pairs_module
from attlas.matrix import streaming
from attlas.matrix.contributions import Contributions
from attlas.matrix.gram import GramNorm
from attlas.matrix.proximity import Proximity
from attlas.matrix.reference import dense_attention
from attlas.testing import assert_as_exact_as, check_operator

BATCH, HEADS, KV_HEADS, DIM, VALUE_DIM, WIDTH = 2, 6, 2, 8, 5, 12
N_QUERY, N_KEY = 21, 26


@pytest.fixture(params=[8, 512], ids=["many tiles on threads", "one tile"])
def _tile(request, monkeypatch):
    monkeypatch.setattr(streaming, "TILE", request.param)
    if request.param == 8:
        monkeypatch.setattr(pairs_module, "PLANE", 40)
        request.getfixturevalue("_two_threads")


def layer(dtype=torch.float32, residual=True, factors=True, width=WIDTH, **arguments):
    """Return a layer's parts, and a function that gives its vectors (batch, query, key, width), dense, in any dtype."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    query, key = draw(BATCH, HEADS, N_QUERY, DIM), draw(BATCH, KV_HEADS, N_KEY, DIM)
    value, output = draw(BATCH, KV_HEADS, N_KEY, VALUE_DIM), draw(HEADS, VALUE_DIM, width)
    own = draw(BATCH, N_QUERY, width) if residual else None
    inner, outer = (draw(BATCH, N_QUERY).abs() + 0.1 if factors else None for _ in range(2))
    vectors = Contributions(AttentionMatrix(query, key, **arguments), value, output, own, inner, outer)
    state = draw(BATCH, N_QUERY, width) * 4

    def dense(as_dtype):
        weights = dense_attention(query, key, **arguments, dtype=as_dtype)
        written = value.to(as_dtype).repeat_interleave(HEADS // KV_HEADS, 1) @ output.to(as_dtype)
        made = torch.einsum("bhij,bhjw->bijw", weights, written)
        if inner is not None:
            made = made * inner.to(as_dtype)[:, :, None, None]
        if own is not None:
            rows = torch.arange(N_QUERY)
            made[:, rows, rows + N_KEY - N_QUERY] += own.to(as_dtype)
        return made if outer is None else made * outer.to(as_dtype)[:, :, None, None]

    return vectors, state, dense


def nearness(made, state, order):
    state = state.to(made.dtype).unsqueeze(2)
    near = state.norm(order, dim=-1) - (state - made).norm(order, dim=-1)
    return near.clamp(min=0).unsqueeze(1)


SHAPES = {
    "plain": {"residual": False, "factors": False},
    "residual": {"factors": False, "causal": True},
    "all of it": {"causal": True, "window": 9, "sinks": torch.linspace(-1, 1, HEADS)},
    "fewer dimensions than heads": {"width": 3},
}
DTYPES = [torch.float32, torch.float64]


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_gram_norm(shape, dtype):
    vectors, _, dense = layer(dtype, **SHAPES[shape])
    exact, plain = (dense(d).norm(dim=-1).unsqueeze(1) for d in (torch.float64, dtype))
    check_operator(GramNorm(vectors), exact, plain)


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_proximity(shape, order):
    vectors, state, dense = layer(**SHAPES[shape])
    exact, plain = (nearness(dense(d), state, order) for d in (torch.float64, torch.float32))
    check_operator(Proximity(vectors, state, order), exact, plain)


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_proximity_in_float64(shape, order):
    vectors, state, dense = layer(torch.float64, **SHAPES[shape])
    exact = nearness(dense(torch.float64), state, order)
    # The formula itself subtracts numbers as large as the states' norms, and rounds as they do.
    largest = state.norm(order, dim=-1).max().item()
    assert_as_exact_as(Proximity(vectors, state, order).to_dense(), exact, exact, magnitude=largest)
