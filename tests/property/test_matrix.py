"""Streamed answers equal the dense float64 reference on random shapes, rules and dtypes, around the edges of tiles."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attlas import AttentionMatrix
from attlas.matrix import ALiBi, Compare, Distance, Entropy, Mass, Pool, Received, TopK, ask, streaming
from attlas.matrix.logsumexp import LARGE
from attlas.matrix.reference import dense_attention, dense_distance, dense_entropy, dense_mass, dense_pool
from attlas.testing import assert_as_exact_as
from rounding import steps

TILE = 16
AROUND_TILES = st.sampled_from([1, 2, TILE - 1, TILE, TILE + 1, 2 * TILE, 2 * TILE + 1, 3 * TILE - 1, 50])
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(streaming, "TILE", TILE)


@st.composite
def problems(draw, dtypes=(torch.float32, torch.float64, torch.bfloat16, torch.float16), scale=1.0):
    """Draw query, key and the rules of a matrix."""
    batch, kv_head, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n_query, n_key = draw(AROUND_TILES), draw(AROUND_TILES)
    dim = draw(st.sampled_from([1, 8, 33]))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    head = kv_head * groups
    query, key = normal(batch, head, n_query, dim) * scale, normal(batch, kv_head, n_key, dim) * scale
    rules = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        rules["window"] = draw(st.sampled_from([1, 2, TILE, TILE + 1, 40]))
    mask = draw(st.sampled_from(["none", "padding", "dense", "predicate"]))
    if mask == "padding":
        rules["mask"] = torch.rand(batch, 1, 1, n_key, generator=generator) > 0.3
    elif mask == "dense":
        rules["mask"] = torch.rand(1, head, n_query, n_key, generator=generator) > 0.4
    elif mask == "predicate":
        rules["mask"] = lambda b, h, q, k: (q + 2 * k + h + b) % 3 != 0
    bias = draw(st.sampled_from(["none", "alibi", "dense"]))
    if bias == "alibi":
        rules["bias"] = ALiBi.for_heads(head)
    elif bias == "dense":
        rules["bias"] = normal(batch, 1, n_query, n_key)
    if draw(st.booleans()):
        rules["softcap"] = 4.0
    if draw(st.booleans()):
        rules["sinks"] = normal(head)
    if draw(st.booleans()):
        rules["scale"] = 0.3
    return query.to(dtype), key.to(dtype), rules, generator


def dense_pair(query, key, rules):
    """Return the truth, and what a plain computation in the accumulating dtype makes of the same numbers."""
    plain_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return dense_attention(query, key, **rules), dense_attention(query, key, **rules, dtype=plain_dtype)


@RELAXED
@given(problems())
def test_every_question_in_one_pass(problem):
    query, key, rules, _ = problem
    exact, plain = dense_pair(query, key, rules)
    matrix = AttentionMatrix(query, key, **rules)
    n_query, n_key = exact.shape[2:]
    size = (max(1, n_query // 3), max(1, n_key // 2))
    k = min(3, n_key)
    other = AttentionMatrix(query * 0.5, key, **rules)
    received, entropy, distance, mass, pooled, top, comparison = ask(
        matrix, Received(), Entropy(), Distance(), Mass(5, 2), Pool(size, "max"), TopK(k), Compare(other)
    )
    rounded = steps(query, key, rules)

    def check(answer, plainly, exactly, what, whole=1.0):
        # Entries round relative to themselves, and sums of them relative to the sums.
        magnitude = rounded * max(whole, exactly.max().item())
        assert_as_exact_as(answer, plainly, exactly, magnitude=magnitude, what=what)

    check(received, plain.sum(2), exact.sum(2), "received")
    check(entropy, dense_entropy(plain), dense_entropy(exact), "entropy")
    check(distance, dense_distance(plain), dense_distance(exact), "distance")
    check(mass, dense_mass(plain, 5, 2), dense_mass(exact, 5, 2), "mass")
    check(pooled, dense_pool(plain, size, "max"), dense_pool(exact, size, "max"), "pool")
    check(top[0], plain.topk(k).values, exact.topk(k).values, "topk")
    exact_other, plain_other = dense_pair(query * 0.5, key, rules)
    variation = 0.5 * (exact - exact_other).abs().sum(-1)
    check(comparison.total_variation, 0.5 * (plain - plain_other).abs().sum(-1), variation, "variation")
    frobenius = (exact - exact_other).square().sum((2, 3)).sqrt()
    whole = max(one.square().sum((2, 3)).max().sqrt().item() for one in (exact, exact_other))
    check(comparison.frobenius, (plain - plain_other).square().sum((2, 3)).sqrt(), frobenius, "frobenius", whole)


@RELAXED
@given(problems(), st.data())
def test_tiles_and_rows_that_sum_to_one(problem, data):
    query, key, rules, _ = problem
    exact, plain = dense_pair(query, key, rules)
    matrix = AttentionMatrix(query, key, **rules)
    n_query, n_key = exact.shape[2:]
    rows = data.draw(st.lists(st.integers(0, n_query - 1), min_size=1, max_size=5))
    start = data.draw(st.integers(0, n_key - 1))
    tile = matrix[:, :, rows, start:]
    rounded = steps(query, key, rules)
    assert_as_exact_as(tile, plain[:, :, rows, start:], exact[:, :, rows, start:], magnitude=rounded, what="tile")
    if "sinks" not in rules:
        sums = matrix.to_dense().double().sum(-1)
        torch.testing.assert_close(sums, matrix.valid_rows.double(), rtol=0, atol=1e-5)


@RELAXED
@given(problems(dtypes=(torch.float32, torch.bfloat16, torch.float16)), st.sampled_from([1, 16, 40]))
def test_products_keep_the_dtype_of_what_is_multiplied(problem, width):
    query, key, rules, generator = problem
    exact = dense_attention(query, key, **rules)
    v = torch.randn(*exact.shape[:2], exact.shape[3], width, generator=generator).to(query.dtype)
    x = torch.randn(*exact.shape[:3], width, generator=generator).to(query.dtype)
    matrix = AttentionMatrix(query, key, **rules)
    plain = dense_attention(query, key, **rules, dtype=torch.float32).to(query.dtype)
    applied, transposed = matrix @ v, matrix.T @ x
    assert applied.dtype == transposed.dtype == query.dtype
    # Entries are float32, or better, whatever the dtype that products are given in.
    rounded = steps(query, key, rules) * torch.finfo(torch.float32).eps / torch.finfo(query.dtype).eps

    def check(answer, plainly, exactly, whole, what):
        magnitude = max(1.0, rounded * whole.max().item())
        assert_as_exact_as(answer, plainly, exactly, magnitude=magnitude, what=what)

    check(applied, plain @ v, exact @ v.double(), exact @ v.double().abs(), "A @ v")
    check(transposed, plain.mT @ x, exact.mT @ x.double(), exact.mT @ x.double().abs(), "A.T @ x")


@RELAXED
@given(problems(dtypes=(torch.float64,)), st.booleans(), st.integers(1, 40))
def test_gradients_equal_the_dense_ones(problem, transposed, width):
    query, key, rules, generator = problem
    leaves = [query.requires_grad_(), key.requires_grad_()]
    if "sinks" in rules:
        rules["sinks"] = rules["sinks"].double().requires_grad_()
        leaves.append(rules["sinks"])
    matrix = AttentionMatrix(query, key, **rules)
    side = matrix.shape[2] if transposed else matrix.shape[3]
    x = torch.randn(*matrix.shape[:2], side, width, generator=generator, dtype=torch.float64).requires_grad_()
    leaves.append(x)
    product = matrix.T @ x if transposed else matrix @ x
    dense = dense_attention(query, key, **rules)
    wanted = dense.mT @ x if transposed else dense @ x
    weight = torch.randn(product.shape, generator=generator, dtype=torch.float64)
    got = torch.autograd.grad((product * weight).sum(), leaves)
    truth = torch.autograd.grad((wanted * weight).sum(), leaves)
    torch.testing.assert_close(product, wanted)
    for ours, theirs in zip(got, truth, strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problems(), st.sampled_from([10.0, 40.0, 100.0]))
def test_extreme_scores(problem, factor):
    query, key, rules, _ = problem
    query, key = query * factor, key * (factor / 4)
    exact, plain = dense_pair(query, key, rules)
    matrix = AttentionMatrix(query, key, **rules)
    # Up to this size scores are float32, and above it float64. Rounding adds half a step for each term of a score, and
    # as much to the sum of its row; eight steps of the magnitude are allowed.
    largest = (query.abs().max() * key.abs().max() * query.shape[-1]).item()
    magnitude = largest if query.dtype == torch.float64 else (2 + query.shape[-1] / 8) * LARGE
    entries = matrix.to_dense()
    assert_as_exact_as(entries, plain, exact, magnitude=magnitude, what="entries")
    if "sinks" not in rules:
        off = 8 * torch.finfo(torch.promote_types(query.dtype, torch.float32)).eps * max(1.0, magnitude)
        torch.testing.assert_close(entries.double().sum(-1), matrix.valid_rows.double(), rtol=0, atol=off)
    assert_as_exact_as(matrix.received(), plain.sum(2), exact.sum(2), magnitude=magnitude, what="received")


def test_one_huge_key_and_constant_rows():
    query = torch.zeros(1, 1, 40, 8)
    query[0, 0, :20] = 30.0
    key = torch.zeros(1, 1, 40, 8)
    key[0, 0, 33] = 100.0
    matrix = AttentionMatrix(query, key)
    assert torch.equal(matrix[0, 0, :20, 33], torch.ones(20))
    torch.testing.assert_close(matrix[0, 0, 20:], torch.full((20, 40), 1 / 40))
    assert math.isclose(matrix.entropy()[0, 0, 30].item(), math.log(40), rel_tol=1e-6)
