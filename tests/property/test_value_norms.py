"""Vectors of any layer, at the edges of tiles: their norms, what a walk makes of them, and no n × n memory."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attlas import AttentionMatrix
from attlas.explain.mixing import mixing_ratio
from attlas.explain.shares import passed_shares
from attlas.matrix import RowNormalised, pairs, proximity, streaming
from attlas.matrix.contributions import Contributions
from attlas.matrix.gram import GramNorm
from attlas.matrix.pairs import OfPairs
from attlas.matrix.proximity import Proximity
from attlas.matrix.reference import dense_attention
from attlas.testing import assert_as_exact_as, no_dense
from rounding import steps


@st.composite
def layers(draw):
    """A layer's vectors and its states; T, dense, in any dtype; and by how many steps each T_ij rounds, in a norm."""
    batch, kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    dim, value_dim, width = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 9))
    n_query = draw(st.integers(1, 20))
    n_key = n_query + draw(st.integers(0, 9))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def make(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    query, key = make(batch, kv_heads * group, n_query, dim), make(batch, kv_heads, n_key, dim)
    value, output = make(batch, kv_heads, n_key, value_dim), make(kv_heads * group, value_dim, width)
    options = {"causal": draw(st.booleans()), "window": draw(st.sampled_from([None, 1, 5]))}
    own = make(batch, n_query, width) if draw(st.booleans()) else None
    inner, outer = (make(batch, n_query).abs() + 0.1 if draw(st.booleans()) else None for _ in range(2))
    vectors = Contributions(AttentionMatrix(query, key, **options), value, output, own, inner, outer)

    def dense(dtype=torch.float64):
        written = value.to(dtype).repeat_interleave(group, 1) @ output.to(dtype)
        made = torch.einsum("bhij,bhjw->bijw", dense_attention(query, key, **options, dtype=dtype), written)
        made = made if inner is None else made * inner.to(dtype)[:, :, None, None]
        if own is not None:
            rows = torch.arange(n_query)
            made[:, rows, rows + n_key - n_query] += own.to(dtype)
        return made if outer is None else made * outer.to(dtype)[:, :, None, None]

    def rounding(order):
        # An entry of attention rounds relative to itself, and a sum relative to its terms, whatever cancels in them.
        written = (value.abs().repeat_interleave(group, 1) @ output.abs()).double().norm(order, dim=-1)
        made = torch.einsum("bhij,bhj->bij", dense_attention(query, key, **options), written)
        made = made * steps(query, key, options)
        made = made if inner is None else made * inner.double()[:, :, None]
        if own is not None:
            rows = torch.arange(n_query)
            made[:, rows, rows + n_key - n_query] += own.double().norm(order, dim=-1)
        return made if outer is None else made * outer.double()[:, :, None]

    return vectors, make(batch, n_query, width), dense, rounding


def small_tiles(tile: int, plane: int):
    """Cut everything into pieces that texts of a few tokens have edges of."""
    return (
        patch.multiple(streaming, TILE=tile),
        patch.multiple(pairs, PLANE=plane),
        patch.multiple(proximity, STEP=plane),
    )


def nearness(made, state, order):
    state = state.to(made.dtype).unsqueeze(2)
    return (state.norm(order, dim=-1) - (state - made).norm(order, dim=-1)).clamp(min=0)


@settings(max_examples=60)
@given(layers(), st.integers(1, 9), st.integers(1, 40), st.sampled_from([0, 1, 2]))
def test_norms_at_the_edges_of_tiles(layer, tile, plane, order):
    vectors, state, dense, rounding = layer
    dtype = vectors.matrix.dtype
    exact, plain = (
        nearness(dense(d), state, order) if order else dense(d).norm(dim=-1) for d in (torch.float64, dtype)
    )
    matrix: OfPairs = Proximity(vectors, state, 1 if order == 1 else 2) if order else GramNorm(vectors)
    rounded = rounding(order or 2)
    magnitude = rounded.max().item()
    if order:
        # Differences of norms round as the norms do, in the formula too.
        magnitude += state.norm(order, dim=-1).max().item()
    if order == 2:
        # There ‖y − T‖ is the root of a difference of squares, in float64: the smaller it is, the more it rounds.
        left, step = (state.double().unsqueeze(2) - dense()).norm(dim=-1), torch.finfo(torch.float64).eps
        largest = state.double().norm(dim=-1).unsqueeze(2) + rounded
        roots = largest.square() / torch.maximum(left, largest * step**0.5)
        magnitude += roots.max().item() * step / torch.finfo(dtype).eps
    first, second, third = small_tiles(tile, plane)
    with first, second, third:
        assert_as_exact_as(matrix.to_dense()[:, 0], plain, exact, magnitude=magnitude)
        rows = [vectors.matrix.shape[2] - 1, 0]
        assert_as_exact_as(matrix[:, 0, rows], plain[:, rows], exact[:, rows], magnitude=magnitude)


@settings(max_examples=60)
@given(layers(), st.integers(1, 9), st.integers(0, 20), st.integers(0, 2**31))
def test_shares_are_passed_on(layer, tile, busy, seed):
    vectors, _, dense, rounding = layer
    matrix = GramNorm(vectors.narrow(slice(0, 1)))
    n_query = vectors.matrix.shape[2]
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(3, n_query, generator=generator, dtype=torch.float64)
    weights[:, torch.randperm(n_query, generator=generator)[busy:]] = 0

    def passed(made):
        norms = made[0].norm(dim=-1)
        sums = norms.sum(-1, keepdim=True)
        return weights.to(norms.dtype) @ torch.where(sums > 0, norms / sums, 0)

    with patch.multiple(streaming, TILE=tile):
        ours = passed_shares(matrix, weights)
        again = RowNormalised(matrix).T @ weights.to(matrix.accumulator).mT
    plain, exact = passed(dense(vectors.matrix.dtype)), passed(dense())
    # A share is off by what its norm is off, and by what the sum that divides it is.
    norms, rounded = dense()[0].norm(dim=-1), rounding(2)[0]
    sums = norms.sum(-1, keepdim=True)
    off = torch.where(sums > 0, (rounded + norms / sums * rounded.sum(-1, keepdim=True)) / sums, 0)
    magnitude = (weights @ off).max().item()
    assert_as_exact_as(ours, plain, exact, magnitude=magnitude)
    assert_as_exact_as(again[0, 0].mT, plain, exact, magnitude=magnitude)


@settings(max_examples=40)
@given(layers())
def test_mixing_ratio(layer):
    vectors, _, dense, rounding = layer
    offset = vectors.matrix.offset

    def lengths(made):
        rows = torch.arange(made.shape[1])
        own = made[:, rows, rows + offset]
        return (made.sum(2) - own).norm(dim=-1), own.norm(dim=-1)

    def ratio(made):
        mixed, own = lengths(made)
        return torch.where(mixed + own > 0, mixed / (mixed + own), 0)

    exact = dense()
    # What others give is a difference of sums that may be much larger than it.
    mixed, own = lengths(exact)
    both = mixed + own
    magnitude = torch.where(both > 0, rounding(2).sum(-1) / both, 0).max().item()
    assert_as_exact_as(mixing_ratio(vectors), ratio(dense(vectors.matrix.dtype)), ratio(exact), magnitude=magnitude)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_nothing_is_as_large_as_the_matrix(order):
    n, heads, width = 1100, 4, 12
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, n, 4, generator=generator) for _ in range(3))
    own = torch.randn(1, n, width, generator=generator)
    vectors = Contributions(
        AttentionMatrix(query, key, causal=True), value, torch.randn(heads, 4, width, generator=generator), own
    )
    state = vectors.of_heads(vectors.matrix @ value)
    matrix: OfPairs = Proximity(vectors, state, 1 if order == 1 else 2) if order else GramNorm(vectors)
    weights = torch.full((2, n), 1 / n, dtype=torch.float64)
    with no_dense(n * n):
        assert passed_shares(matrix, weights).sum(1).tolist() == pytest.approx([1, 1])
        matrix.pool((8, 8))
