"""Matrices made of others equal the dense float64 formulas on random shapes, rules and dtypes, around tiles' edges."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from attlas.matrix import (
    ALiBi,
    ApplyTransposed,
    AttentionGradient,
    Chain,
    Pool,
    Positive,
    Product,
    Received,
    ReceivedOfProducts,
    TopK,
    WithIdentity,
    ask,
    streaming,
    without_keys,
)
from attlas.matrix.reference import dense_attention, dense_pool
from attlas.testing import assert_as_exact_as
from derived import KINDS, Problem

TILE = 16
AROUND_TILES = st.sampled_from([1, 2, TILE - 1, TILE, TILE + 1, 2 * TILE, 2 * TILE + 1, 3 * TILE - 1, 50])
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(streaming, "TILE", TILE)


@st.composite
def problems(draw, dtypes=DTYPES, square=False, sinks=True):
    """Draw attention, its values, a gradient of its outputs, and the rules of what may be seen."""
    batch, kv_head, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head, n_key = kv_head * groups, draw(AROUND_TILES)
    n_query = n_key if square else draw(AROUND_TILES)
    dim, value_dim = draw(st.sampled_from([1, 8, 33])), draw(st.sampled_from([1, 6]))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    rules = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        rules["window"] = draw(st.sampled_from([1, 2, TILE, TILE + 1, 40]))
    mask = draw(st.sampled_from(["none", "padding", "dense", "nothing", "predicate"]))
    if mask == "padding":
        rules["mask"] = torch.rand(batch, 1, 1, n_key, generator=generator) > 0.3
    elif mask == "dense":
        rules["mask"] = torch.rand(1, head, n_query, n_key, generator=generator) > 0.4
    elif mask == "nothing":
        rules["mask"] = (torch.rand(1, head, n_query, 1, generator=generator) > 0.5).expand(1, head, n_query, n_key)
    elif mask == "predicate":
        rules["mask"] = lambda b, h, q, k: (q + 2 * k + h + b) % 3 != 0
    bias = draw(st.sampled_from(["none", "alibi", "dense", "hiding", "formula"]))
    if bias == "alibi":
        rules["bias"] = ALiBi.for_heads(head)
    elif bias == "dense":
        rules["bias"] = normal(batch, 1, n_query, n_key)
    elif bias == "hiding":
        hidden = torch.rand(batch, 1, n_query, n_key, generator=generator) > 0.6
        rules["bias"] = normal(batch, 1, n_query, n_key).masked_fill(hidden, -torch.inf)
    elif bias == "formula":
        rules["bias"] = lambda b, h, q, k: torch.where((q + k + h + b) % 4 == 0, -torch.inf, 0.1 * (k - q))
    if draw(st.booleans()):
        rules["softcap"] = 4.0
    if sinks and draw(st.booleans()):
        rules["sinks"] = normal(head)
    if draw(st.booleans()):
        rules["scale"] = 0.3
    gradient = normal(batch, head, n_query, value_dim)
    value = normal(batch, draw(st.sampled_from([kv_head, head])), n_key, value_dim)
    query, key = normal(batch, head, n_query, dim), normal(batch, kv_head, n_key, dim)
    return Problem(query.to(dtype), key.to(dtype), gradient.to(dtype), value.to(dtype), rules), generator


@settings(RELAXED, max_examples=100)
@given(problems(), st.sampled_from([name for name, kind in KINDS.items() if not kind.amplifies]))
def test_questions_of_every_kind(drawn, name):
    problem, generator = drawn
    kind = KINDS[name]
    assume(not kind.positioned or problem.query.shape[2] <= problem.key.shape[2])
    operator = kind.lazy(problem)
    exact, plain = kind.dense(problem, torch.float64), kind.dense(problem, problem.plain_dtype)
    n_query, n_key = exact.shape[2:]
    size, k = (max(1, n_query // 3), max(1, n_key // 2)), min(3, n_key)
    weights = torch.randn(n_query, generator=generator, dtype=plain.dtype)
    x = torch.randn(exact.shape[0], 1, n_query, 3, generator=generator, dtype=plain.dtype)
    received, weighted, product, largest, summed, top = ask(
        operator,
        Received(),
        Received(weights),
        ApplyTransposed(x.expand(*exact.shape[:3], 3)),
        Pool(size, "max"),
        Pool(size, "sum"),
        TopK(k),
    )
    whole = exact.abs()

    def check(answer, plainly, exactly, terms, what):
        magnitude = problem.rounding(terms)
        assert_as_exact_as(answer, plainly, exactly, magnitude=magnitude, what=f"{name}, {what}")

    check(operator.to_dense(), plain, exact, whole, "to_dense")
    check(received, plain.sum(2), exact.sum(2), whole.sum(2), "received")
    check(weighted, weights @ plain, weights.double() @ exact, weights.double().abs() @ whole, "received(weights)")
    check(product, plain.mT @ x, exact.mT @ x.double(), whole.mT @ x.double().abs(), "A.T @ x")
    check(largest, dense_pool(plain, size, "max"), dense_pool(exact, size, "max"), whole, "pool max")
    sums = [dense_pool(dense, size, "sum") for dense in (plain, exact, whole)]
    check(summed, sums[0], sums[1], sums[2], "pool sum")
    check(top[0], plain.topk(k).values, exact.topk(k).values, whole, "topk")


@RELAXED
@given(problems(), st.data())
def test_rows_without_weight_change_nothing(drawn, data):
    problem, generator = drawn
    operator = Positive(Product(problem.matrix, AttentionGradient(problem.matrix, problem.gradient, problem.value)))
    batch, head, n_query, _ = operator.shape
    dense = operator.to_dense()
    weights = torch.zeros(batch, head, n_query, dtype=dense.dtype)
    for _ in range(data.draw(st.integers(0, 3))):
        b, h, i = (data.draw(st.integers(0, size - 1)) for size in (batch, head, n_query))
        weights[b, h, i] = torch.randn(1, generator=generator)
    several = torch.stack([weights, weights.roll(1, 2), torch.zeros_like(weights)], dim=-1)
    full = torch.einsum("bhi,bhij->bhj", weights.double(), dense.double())
    got = operator.received(weights)
    terms = torch.einsum("bhi,bhij->bhj", weights.double().abs(), dense.double())
    magnitude = problem.magnitude + problem.steps * terms.max().item()
    assert_as_exact_as(got, torch.einsum("bhi,bhij->bhj", weights, dense), full, magnitude=magnitude)
    together = operator.T @ several
    wanted = dense.double().mT @ several.double()
    assert_as_exact_as(together, dense.mT @ several, wanted, magnitude=magnitude)


@RELAXED
@given(problems(), st.integers(1, 3), st.booleans(), st.booleans())
def test_products_that_share_tiles(drawn, targets, positive, by_head):
    problem, generator = drawn
    batch, head, n_query, _ = problem.matrix.shape
    gradients = [problem.gradient.roll(shift, 2) for shift in range(targets)]
    shape = (targets, batch, head, n_query) if by_head else (targets, n_query)
    weights = torch.randn(shape, generator=generator, dtype=problem.plain_dtype)
    weights *= torch.rand(shape, generator=generator) > 0.7
    others = [AttentionGradient(problem.matrix, gradient, problem.value) for gradient in gradients]
    received, plainly_received = ask(
        problem.matrix, ReceivedOfProducts(others, weights, positive=positive), Received(weights[0])
    )
    wanted, terms = [], []
    for dtype in (torch.float64, problem.plain_dtype):
        problems_of_targets = [replace(problem, gradient=gradient) for gradient in gradients]
        products = torch.stack([p.attention(dtype) * p.bare_gradient(dtype) for p in problems_of_targets])
        products = products.relu() if positive else products
        spread = weights.to(dtype) if by_head else weights.to(dtype).view(targets, 1, 1, n_query)
        wanted.append((spread.unsqueeze(-2) @ products).squeeze(-2))
        terms.append((spread.abs().unsqueeze(-2) @ products.abs()).squeeze(-2))
    assert_as_exact_as(received, wanted[1], wanted[0], magnitude=problem.rounding(terms[0]))
    alone, whole = (problem.matrix.received(one) for one in (weights[0], weights[0].abs()))
    magnitude = problem.steps * whole.max().item()
    assert_as_exact_as(plainly_received, alone, alone.double(), magnitude=magnitude, what="received")


@RELAXED
@given(problems(dtypes=(torch.float32, torch.float64)), st.sampled_from([10.0, 40.0, 100.0]))
def test_extreme_scores(drawn, factor):
    problem, _ = drawn
    extreme = Problem(
        problem.query * factor, problem.key * (factor / 4), problem.gradient, problem.value, problem.rules
    )
    exact, plain = (KINDS["positive part"].dense(extreme, dtype) for dtype in (torch.float64, problem.plain_dtype))
    largest = extreme.query.abs().max() * extreme.key.abs().max() * extreme.query.shape[-1]
    scores = largest.item() if problem.query.dtype == torch.float64 else 32.0
    operator = KINDS["positive part"].lazy(extreme)
    magnitude = scores * problem.magnitude
    assert_as_exact_as(operator.to_dense(), plain, exact, magnitude=magnitude, what="entries")
    assert_as_exact_as(operator.received(), plain.sum(2), exact.sum(2), magnitude=magnitude, what="received")


@RELAXED
@given(problems(), st.data())
def test_withheld_keys(drawn, data):
    problem, _ = drawn
    n_key = problem.key.shape[2]
    keys = data.draw(st.lists(st.integers(-n_key, n_key - 1), max_size=4))
    keep = torch.ones(n_key, dtype=torch.bool)
    keep[keys] = False
    mask: Any = problem.rules.get("mask", torch.ones(1, 1, 1, 1, dtype=torch.bool))
    masked = mask & keep if isinstance(mask, Tensor) else lambda b, h, q, k: mask(b, h, q, k) & keep[k]
    rules = {**problem.rules, "mask": masked}
    exact = dense_attention(problem.query, problem.key, **rules)
    plain = dense_attention(problem.query, problem.key, **rules, dtype=problem.plain_dtype)
    matrix = problem.matrix
    if data.draw(st.booleans()):
        matrix.prepare()
    if data.draw(st.booleans()):
        heads = data.draw(st.lists(st.integers(0, matrix.shape[1] - 1), min_size=1, max_size=3))
        narrowed = matrix[:, heads]
        matrix, exact, plain = narrowed, exact[:, heads], plain[:, heads]
    less = without_keys(matrix, keys)
    received = exact.sum(2)
    assert_as_exact_as(less.to_dense(), plain, exact, magnitude=problem.steps, what="entries")
    magnitude = problem.steps * max(1.0, received.max().item())
    assert_as_exact_as(less.received(), plain.sum(2), received, magnitude=magnitude, what="received")
    assert torch.equal(less.valid_rows, exact.sum(-1) > 0)
    assert not bool(less.to_dense()[..., ~keep].any())


@RELAXED
@given(problems(square=True), st.integers(1, 3), st.sampled_from([(), (1,), (2,)]))
def test_a_chain_is_the_product(drawn, layers, targets):
    problem, generator = drawn
    operators = [
        WithIdentity(problem.matrix, 0.6),
        problem.matrix,
        AttentionGradient(problem.matrix, problem.gradient, problem.value),
    ]
    chosen = operators[:layers]
    chain = Chain(chosen)
    entries = [operator.to_dense() for operator in chosen]
    plain, exact, whole = entries[0], entries[0].double(), entries[0].double().abs()
    for above in entries[1:]:
        plain, exact, whole = above @ plain, above.double() @ exact, above.double().abs() @ whole
    n = problem.query.shape[2]
    weights = torch.randn(*problem.query.shape[:2], *targets, n, generator=generator, dtype=plain.dtype)
    row = weights if targets else weights.unsqueeze(-2)
    x = torch.randn(n, 2, generator=generator, dtype=plain.dtype)

    def check(answer, plainly, exactly, terms, what):
        assert_as_exact_as(answer, plainly, exactly, magnitude=problem.rounding(layers * terms), what=what)

    got, sizes = chain.rows(weights), x.double().abs()
    check(got if targets else got.unsqueeze(-2), row @ plain, row.double() @ exact, row.double().abs() @ whole, "rows")
    check(chain @ x, plain @ x, exact @ x.double(), whole @ sizes, "chain @ x")
    check(chain.T @ x, plain.mT @ x, exact.mT @ x.double(), whole.mT @ sizes, "chain.T @ x")
