"""Gathered entries and sums over chosen keys equal the dense float64 reference, whatever hides keys or moves scores."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attlas import AttentionMatrix
from attlas.errors import ArgumentError
from attlas.matrix import ALiBi, RelativeBias, streaming
from attlas.matrix import entries as module
from attlas.matrix.entries import entries, masses
from attlas.matrix.even import even_spread
from attlas.matrix.reference import dense_attention
from attlas.testing import assert_as_exact_as, no_dense
from rounding import steps

RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(streaming, "TILE", 16)
    monkeypatch.setattr(module, "TILE", 16)
    monkeypatch.setattr(module, "STRIP", 7)
    monkeypatch.setattr(module, "ENTRIES", 64)


@st.composite
def problems(draw):
    batch, kv_head, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    n_query, n_key = draw(st.sampled_from([1, 15, 33])), draw(st.sampled_from([1, 17, 40]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    head = kv_head * groups
    query, key = normal(batch, head, n_query, 8) * 2, normal(batch, kv_head, n_key, 8)
    rules = {"causal": draw(st.booleans()), "scale": 0.4}
    if draw(st.booleans()):
        rules["window"] = draw(st.sampled_from([1, 5, 20]))
    masks = {
        "padding": torch.rand(batch, 1, 1, n_key, generator=generator) > 0.3,
        "dense": torch.rand(1, head, n_query, n_key, generator=generator) > 0.4,
        "predicate": lambda b, h, q, k: (q + 2 * k + h + b) % 3 != 0,
    }
    biases = {
        "alibi": ALiBi.for_heads(head),
        "dense": normal(batch, 1, n_query, n_key),
        "hiding": normal(batch, 1, 1, n_key).masked_fill(torch.arange(n_key) % 3 == 0, -torch.inf),
        "relative": RelativeBias(normal(head, 9), -4),
    }
    mask, bias = draw(st.sampled_from(["none", *masks])), draw(st.sampled_from(["none", *biases]))
    rules |= {"mask": masks.get(mask), "bias": biases.get(bias)}
    if draw(st.booleans()):
        rules["softcap"] = 3.0
    if draw(st.booleans()):
        rules["sinks"] = normal(head)
    return query.to(dtype), key.to(dtype), rules, generator


def truth(query, key, rules):
    plain = torch.float64 if query.dtype == torch.float64 else torch.float32
    return dense_attention(query, key, **rules), dense_attention(query, key, **rules, dtype=plain)


@RELAXED
@given(problems(), st.integers(0, 25), st.booleans())
def test_entries_are_those_of_the_dense_matrix(problem, pairs, own):
    query, key, rules, generator = problem
    exact, plain = truth(query, key, rules)
    batch, _, n_query, n_key = exact.shape
    shape = (batch, pairs) if own else (pairs,)
    rows = torch.randint(0, n_query, shape, generator=generator)
    cols = torch.randint(0, n_key, shape, generator=generator)
    got = entries(AttentionMatrix(query, key, **rules), rows, cols)
    assert got.dtype == plain.dtype
    for b in range(batch):
        r, c = (rows[b], cols[b]) if own else (rows, cols)
        if pairs:
            magnitude = steps(query, key, rules)
            what = f"entries of element {b}"
            assert_as_exact_as(got[b], plain[b][:, r, c], exact[b][:, r, c], magnitude=magnitude, what=what)


@RELAXED
@given(problems(), st.integers(1, 20), st.integers(1, 3), st.sampled_from(["rows", "all rows", "numbers"]))
def test_masses_are_sums_over_the_dense_matrix(problem, count, sets, kind):
    query, key, rules, generator = problem
    exact, plain = truth(query, key, rules)
    n_query, n_key = exact.shape[2:]
    rows = torch.randint(0, n_query, (count,), generator=generator)
    counted = torch.rand(1 if kind == "all rows" else count, sets, n_key, generator=generator)
    if kind != "numbers":
        counted = counted > 0.6
    got = masses(AttentionMatrix(query, key, **rules), rows, counted)
    weights = counted.to(torch.float64).expand(count, -1, -1)
    assert_as_exact_as(
        got,
        torch.einsum("bhrk,rmk->bhmr", plain[:, :, rows], weights.to(plain.dtype)),
        torch.einsum("bhrk,rmk->bhmr", exact[:, :, rows], weights),
        magnitude=steps(query, key, rules),
        what="masses",
    )


@RELAXED
@given(problems())
def test_the_even_spread_can_be_gathered_too(problem):
    query, key, rules, generator = problem
    rules.pop("sinks", None)
    even = even_spread(AttentionMatrix(query, key, **rules))
    rows = torch.randint(0, even.shape[2], (9,), generator=generator)
    cols = torch.randint(0, even.shape[3], (9,), generator=generator)
    torch.testing.assert_close(entries(even, rows, cols), even.to_dense()[:, :, rows, cols])


def test_a_narrowed_matrix_keeps_the_numbers_of_its_heads():
    def mask(batch, head, query, key):
        return (head * 3 + query + key + batch) % 4 > 0

    query, key = torch.randn(2, 4, 20, 8), torch.randn(2, 2, 20, 8)
    matrix = AttentionMatrix(query, key, mask=mask, bias=ALiBi.for_heads(4))
    narrow = matrix.narrow(slice(1, 2), torch.tensor([1, 3]))
    rows, cols = torch.tensor([0, 7, 19]), torch.tensor([3, 3, 19])
    torch.testing.assert_close(entries(narrow, rows, cols), entries(matrix, rows, cols)[1:, [1, 3]])


def test_nothing_dense_is_made():
    matrix = AttentionMatrix(torch.randn(1, 2, 500, 8), torch.randn(1, 1, 500, 8), causal=True)
    rows = torch.arange(1, 500)
    sets = torch.zeros(1, 2, 500, dtype=torch.bool)
    with no_dense(500 * 500):
        entries(matrix, rows, rows - 1)
        masses(matrix, rows[::8], sets)


@pytest.mark.parametrize(
    ("rows", "cols", "words"),
    [
        (torch.tensor([1.0]), torch.tensor([1]), "query: wanted a tensor of integers, got torch.float32"),
        ([1], torch.tensor([1]), "query: wanted a tensor of integers, got list"),
        (torch.tensor([True]), torch.tensor([1]), "query: wanted a tensor of integers, got torch.bool"),
        (torch.tensor([6]), torch.tensor([1]), "query: wanted numbers from 0 to 5, got 6"),
        (torch.tensor([1]), torch.tensor([-1]), "key: wanted numbers from 0 to 6, got -1"),
        (torch.tensor([1, 2]), torch.tensor([1]), "query and key: wanted both"),
        (torch.tensor([[1], [2], [3]]), torch.tensor([[1], [2], [3]]), "query and key: wanted both"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(rows, cols, words):
    matrix = AttentionMatrix(torch.randn(2, 2, 6, 8), torch.randn(2, 2, 7, 8))
    with pytest.raises(ArgumentError, match=words):
        entries(matrix, rows, cols)


def test_sets_that_do_not_fit_are_refused():
    matrix = AttentionMatrix(torch.randn(1, 2, 6, 8), torch.randn(1, 2, 7, 8))
    with pytest.raises(ArgumentError, match=r"sets: wanted shape \(2 or 1, set, 7\)"):
        masses(matrix, torch.tensor([0, 1]), torch.ones(2, 1, 6))
    with pytest.raises(ArgumentError, match="rows: wanted one axis"):
        masses(matrix, torch.tensor([[0, 1]]), torch.ones(1, 1, 7))
    with pytest.raises(IndexError):
        masses(matrix, torch.tensor([6]), torch.ones(1, 1, 7))
    with pytest.raises(ArgumentError, match="matrix: wanted an AttentionMatrix"):
        entries(matrix.T, torch.tensor([0]), torch.tensor([0]))  # pyright: ignore[reportArgumentType]  the mistake is the test
