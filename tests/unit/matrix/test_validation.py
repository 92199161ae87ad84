"""Wrong arguments get one error that names the argument, what was wanted, what came, and the way out."""

import math

import pytest
import torch

import attlas
from attlas import ArgumentError, AttentionMatrix, NonFiniteError
from attlas.matrix import Mass, Pool, Received, TopK, ask

BOOL = torch.bool
QUERY, KEY = torch.randn(2, 4, 10, 8), torch.randn(2, 2, 12, 8)
META = torch.device("meta")


def with_one(tensor, value):
    tensor = tensor.clone()
    tensor[1, 1, 3, 5] = value
    return tensor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": QUERY[0]}, r"query: wanted four axes \(batch, head, n_query, dim\), got shape \(4, 10, 8\)"),
        ({"query": "text"}, "query: wanted a torch.Tensor, got str"),
        ({"query": QUERY.long()}, "query: wanted float32, float64, bfloat16 or float16, got torch.int64"),
        ({"query": QUERY[:, :, :0]}, "query: wanted at least one element on each axis"),
        ({"key": KEY[:1]}, "key: wanted the query's batch of 2, got 1"),
        ({"key": KEY[..., :4]}, "key: wanted the query's dim of 8, got 4"),
        ({"query": QUERY[:, :3]}, "key: wanted a number of heads that divides the query's 3, got 2"),
        ({"key": KEY.half()}, r"key: wanted the query's dtype torch.float32, got torch.float16; .*\.to\(dtype\)"),
        ({"key": KEY.to(META)}, "key: wanted the query's device cpu, got meta"),
        ({"scale": math.inf}, "scale: wanted a finite number, got inf"),
        ({"window": 0}, "window: wanted a whole number of at least 1, got 0"),
        ({"window": 2.5}, "window: wanted a whole number of at least 1, got 2.5"),
        ({"softcap": -1.0}, "softcap: wanted a positive number, got -1.0; use None"),
        ({"mask": torch.ones(10, 12)}, "mask: wanted a boolean tensor, .*; pass numbers as `bias`"),
        ({"mask": torch.ones(10, 11, dtype=BOOL)}, r"mask: wanted a shape that broadcasts to .* \(2, 4, 10, 12\)"),
        ({"mask": torch.ones(2, 12, dtype=BOOL)}, r"for key padding pass mask\[:, None, None, :\]"),
        ({"mask": torch.ones(1, 1, 1, 1, 1, dtype=BOOL)}, "mask: wanted a shape that broadcasts"),
        ({"bias": torch.ones(10, 12, dtype=BOOL)}, "bias: wanted a tensor of floats, .*; pass booleans as `mask`"),
        ({"bias": torch.full((10, 12), math.nan)}, "bias: wanted finite numbers or minus infinity"),
        ({"bias": torch.full((10, 12), math.inf)}, "bias: wanted finite numbers or minus infinity"),
        ({"sinks": torch.zeros(3)}, r"sinks: wanted shape \(head,\) = \(4,\), got shape \(3,\)"),
        ({"sinks": torch.zeros(4, dtype=torch.long)}, "sinks: wanted floats"),
        ({"sinks": torch.full((4,), math.nan)}, "sinks: wanted finite numbers"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        AttentionMatrix(**{"query": QUERY, "key": KEY, **arguments})
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, attlas.AttlasError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_located(value):
    with pytest.raises(
        NonFiniteError, match=f"query: wanted finite numbers, got {value} at batch 1, head 1, position 3"
    ):
        AttentionMatrix(with_one(QUERY, value), KEY)
    with pytest.raises(NonFiniteError, match=f"key: wanted finite numbers, got {value} at batch 1, head 1, position 3"):
        AttentionMatrix(QUERY, with_one(KEY, value))


def test_scores_beyond_float32_are_computed_in_float64():
    matrix = AttentionMatrix(torch.full((1, 1, 3, 4), 1e20), torch.full((1, 1, 3, 4), 1e20))
    torch.testing.assert_close(matrix.to_dense(), torch.full((1, 1, 3, 3), 1 / 3))


def test_scores_beyond_float64_are_refused():
    huge = torch.full((1, 1, 3, 4), 1e200, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="query and key: wanted scores that float64 can hold, got an overflow"):
        AttentionMatrix(huge, huge).received()


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (lambda A: A.topk(0), "k: wanted a whole number from 1 to n_key = 12, got 0"),
        (lambda A: A.topk(13), "k: wanted a whole number from 1 to n_key = 12, got 13"),
        (lambda A: A.mass(), "window and sinks: wanted at least one of them"),
        (lambda A: A.mass(0), "window: wanted a whole number of at least 1"),
        (lambda A: A.mass(sinks=-1), "sinks: wanted a whole number of at least 0"),
        (lambda A: A.pool((0, 4)), r"size: wanted \(rows, cols\) from 1 to 4096 each"),
        (lambda A: A.pool((4, 4097)), r"size: wanted \(rows, cols\) from 1 to 4096 each"),
        (lambda A: A.pool((4, 4), "median"), "reduce: wanted 'mean' or 'sum' or 'max' or 'extreme', got 'median'"),
        (lambda A: A.pool((20, 4), "sum"), r"size: wanted at most \(10, 12\) for a sum"),
        (lambda A: A.received(torch.ones(9)), r"weights: wanted a shape that broadcasts to .* \(2, 4, 10\)"),
        (lambda A: A.compare(A[:, :2]), r"other: wanted shape \(2, 4, 10, 12\), got shape \(2, 2, 10, 12\)"),
        (lambda A: A.compare(A.to_dense()), "other: wanted an attention matrix, got Tensor"),
        (lambda A: A @ torch.ones(11, 3), r"x: wanted \(batch, head, 12, width\)"),
        (lambda A: A @ torch.ones(12), r"x: wanted \(batch, head, 12, width\)"),
        (lambda A: A @ torch.ones(3, 4, 12, 2), r"x: wanted \(batch, head, 12, width\)"),
        (lambda A: A @ torch.ones(12, 3, dtype=torch.long), "x: wanted a tensor of floats, got torch.int64"),
        (lambda A: A.T @ torch.ones(12, 3), r"x: wanted \(batch, head, 10, width\)"),
        (lambda A: A[5], "index of batch: wanted -2 to 1, got 5"),
        (lambda A: A[0, 0, 3:3], "index of query: wanted at least one, got the empty slice 3:3"),
        (lambda A: A[0, 0, 0, 0, 0], "index: wanted at most four parts"),
        (lambda A: A[..., 0, ...], "index: wanted at most one '...'"),
        (lambda A: A["head"], "index: wanted integers, slices, lists"),
        (lambda A: A[0, 0, [True, False]], "index of query: wanted integers"),
        (lambda A: A.with_lse(torch.zeros(2, 4, 9)), r"lse: wanted shape \(batch, head, n_query\) = \(2, 4, 10\)"),
        (lambda A: A.with_lse(torch.full((2, 4, 10), math.nan)), "lse: wanted finite numbers"),
    ],
)
def test_wrong_questions(question, message):
    with pytest.raises(ArgumentError, match=message):
        question(AttentionMatrix(QUERY, KEY))


def test_a_question_that_does_not_fit_stops_the_whole_pass_before_it_begins():
    with pytest.raises(ArgumentError, match="k: wanted"):
        ask(AttentionMatrix(QUERY, KEY), Received(), TopK(99), Mass(3), Pool((2, 2)))


def test_an_index_out_of_range_is_an_index_error():
    with pytest.raises(IndexError):
        AttentionMatrix(QUERY, KEY)[2]


def test_bias_that_wants_a_gradient_is_refused_rather_than_ignored():
    bias = torch.zeros(10, 12, requires_grad=True)
    with pytest.raises(ArgumentError, match="bias: wanted no gradient, got requires_grad=True; detach it"):
        _ = AttentionMatrix(QUERY, KEY, bias=bias) @ torch.ones(12, 3)
