"""Low-rank attention: equal to its formulas, exact at full rank, and refused where it would be wrong."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attlas import ArgumentError, AttentionMatrix
from attlas.matrix.bias import ALiBi
from attlas.matrix.reference import dense_attention
from attlas.patterns.low_rank import LowRank, pseudoinverse, segments
from attlas.testing import assert_as_exact_as, no_dense
from low_rank_truth import dense_low_rank

PATTERNS = st.sampled_from(
    [
        ("nystrom", "means", 6),
        ("nystrom", "means", 0),
        ("linformer", "means", 6),
        ("linformer", "random", 6),
    ]
)


@st.composite
def problems(draw, dtypes=(torch.float32, torch.float64, torch.bfloat16)):
    batch, kv_head, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    n_key = draw(st.sampled_from([1, 2, 5, 8, 13, 30]))
    n_query = draw(st.sampled_from([n_key, n_key, 1, 11]))
    dim, dtype = draw(st.sampled_from([1, 8])), draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    query = torch.randn(batch, kv_head * groups, n_query, dim, generator=generator)
    key, value = (torch.randn(batch, kv_head, n_key, width, generator=generator) for width in (dim, 3))
    rules = {}
    if draw(st.booleans()):
        rules["mask"] = torch.rand(batch, 1, 1, n_key, generator=generator) > 0.4
    if draw(st.booleans()):
        rules["scale"] = 0.3
    method, projection, iterations = draw(PATTERNS)
    pattern = LowRank(draw(st.sampled_from([1, 3, 8])), method, projection, iterations, seed=2)
    return pattern, query.to(dtype), key.to(dtype), value.to(dtype), rules


@settings(max_examples=100)
@given(problems())
def test_attending_is_the_formula(problem):
    pattern, query, key, value, rules = problem
    accumulator = torch.float64 if query.dtype == torch.float64 else torch.float32
    dense, plain = (dense_low_rank(pattern, query, key, **rules, dtype=d) for d in (torch.float64, accumulator))
    values = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    exact = AttentionMatrix(query, key, **rules)
    attended = pattern.attend(exact, value)
    assert attended.dtype == value.dtype
    wanted = dense @ values.double()
    if pattern.iterations == 0 and pattern.method == "nystrom":
        # An inverse magnifies roundings, and which singular values count as 0 may hang on them.
        if accumulator == torch.float64:
            # As far as the formula itself moves when what it is given is rounded a little.
            noise = 1e-13 * torch.randn(query.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            shaken = dense_low_rank(pattern, query * (1 + noise), key, **rules) @ values.double()
            moved = 10 * float((shaken - wanted).abs().max())
            torch.testing.assert_close(attended.double(), wanted, rtol=1e-7, atol=1e-7 + moved)
        return
    if accumulator == torch.float64:
        # The truth has no more digits than the answer, and even an iterated inverse magnifies roundings.
        torch.testing.assert_close(attended.double(), wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(pattern.matrix(exact).to_dense(), dense, rtol=1e-10, atol=1e-10)
        return
    assert_as_exact_as(attended, (plain @ values.to(accumulator)).to(value.dtype), wanted, what="attend")
    assert_as_exact_as(pattern.matrix(exact).to_dense(), plain, dense, what="entries")


@settings(max_examples=40)
@given(problems(dtypes=(torch.float64,)))
def test_gradients_equal_those_of_the_formula(problem):
    pattern, query, key, value, rules = problem
    if pattern.iterations == 0:
        # The pseudoinverse of a singular matrix has no derivative.
        pattern = LowRank(pattern.rank)
    leaves = [t.requires_grad_() for t in (query, key, value)]
    attended = pattern.attend(AttentionMatrix(query, key, **rules), value)
    wanted = dense_low_rank(pattern, query, key, **rules) @ value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = torch.autograd.grad((attended * weight).sum(), leaves, allow_unused=True)
    truth = torch.autograd.grad((wanted * weight).sum(), leaves, allow_unused=True)
    for ours, theirs, leaf in zip(got, truth, leaves, strict=True):
        ours, theirs = (torch.zeros_like(leaf) if one is None else one for one in (ours, theirs))
        torch.testing.assert_close(ours, theirs)


def heads(n=24, **rules):
    generator = torch.Generator().manual_seed(5)
    query, key = torch.randn(1, 4, n, 8, generator=generator), torch.randn(1, 2, n, 8, generator=generator)
    return query, key, AttentionMatrix(query, key, **rules)


@pytest.mark.parametrize("pattern", [LowRank(24, iterations=0), LowRank(24, iterations=30)])
def test_nystrom_with_a_landmark_for_each_token_is_exact(pattern):
    query, key = (t.double() for t in heads()[:2])
    entries = pattern.matrix(AttentionMatrix(query, key)).to_dense()
    torch.testing.assert_close(entries, dense_attention(query, key), rtol=0, atol=1e-5)


def test_linformer_with_a_segment_for_each_token_is_exact():
    query, key, exact = heads()
    entries = LowRank(24, "linformer").matrix(exact).to_dense()
    torch.testing.assert_close(entries.double(), dense_attention(query, key), rtol=0, atol=1e-6)


def test_rows_of_segment_means_are_shares():
    mask = torch.arange(24).view(1, 1, 1, -1) < 17
    matrix = LowRank(5, "linformer").matrix(heads(mask=mask)[2])
    assert not matrix.signed
    torch.testing.assert_close(matrix.to_dense().sum(-1), torch.ones(1, 4, 24))
    assert not bool(matrix.to_dense()[..., 17:].any())


def test_more_segments_than_tokens_leave_some_empty():
    segment, present = segments(torch.tensor([[True, False, True, True]]), 8)
    assert segment.tolist() == [[0, 8, 2, 5]]
    assert present.tolist() == [[True, False, True, False, False, True, False, False]]


def test_steps_towards_the_pseudoinverse_converge():
    matrix = torch.softmax(torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), -1)
    torch.testing.assert_close(pseudoinverse(matrix, 40), torch.linalg.pinv(matrix))
    far, near = ((pseudoinverse(matrix, steps) - torch.linalg.pinv(matrix)).norm() for steps in (2, 12))
    assert near < far


def test_nothing_dense_is_made():
    n = 600
    exact = heads(n)[2]
    value = torch.randn(1, 2, n, 8)
    for pattern in (LowRank(16), LowRank(16, "linformer"), LowRank(16, "linformer", "random")):
        with no_dense(n * n):
            pattern.attend(exact, value)
            pattern.matrix(exact)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"causal": True}, "causal: wanted heads that see all keys.*got causal heads; plan"),
        ({"window": 5}, "window: wanted none, got 5; plan"),
        ({"bias": ALiBi.for_heads(4)}, "bias: wanted none"),
        ({"sinks": torch.zeros(4)}, "sinks: wanted none"),
        (
            {"mask": torch.ones(1, 1, 24, 24, dtype=torch.bool)},
            r"mask: wanted a mask that hides keys.*\(1, 1, 24, 24\)",
        ),
        ({"mask": lambda b, h, q, k: q >= k}, "mask: wanted a mask that hides keys.*got a formula"),
    ],
)
def test_rules_that_it_cannot_follow_are_refused(rules, message):
    exact = heads(**rules)[2]
    for ask in (LowRank(4).check, LowRank(4).matrix, lambda e: LowRank(4).attend(e, torch.zeros(1, 2, 24, 3))):
        with pytest.raises(ArgumentError, match=message):
            ask(exact)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank: wanted a whole number of at least 1, got 0"),
        ({"rank": 4, "method": "svd"}, "method: wanted nystrom or linformer, got 'svd'"),
        ({"rank": 4, "projection": "dct"}, "projection: wanted means or random, got 'dct'"),
        ({"rank": 4, "iterations": -1}, "iterations: wanted a whole number of at least 0, got -1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        LowRank(**arguments)


def test_values_of_another_length_are_refused():
    with pytest.raises(ArgumentError, match=r"value: wanted shape \(1, kv_head, 24, value_dim\), got shape"):
        LowRank(4).attend(heads()[2], torch.zeros(1, 2, 23, 3))


def test_it_is_made_again_from_its_settings():
    pattern = LowRank(7, "linformer", "random", seed=9)
    assert LowRank(**pattern.settings()) == pattern
    assert hash(LowRank(**pattern.settings())) == hash(pattern)
    assert LowRank(4).work(100, 200, causal=False).pairs == (100 + 200 + 4) * 4
