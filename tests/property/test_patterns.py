"""Every pattern that keeps keys runs and looks exactly as its definition says, whatever hides or bends the scores."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attlas import AttentionMatrix
from attlas.matrix import ALiBi, streaming
from attlas.patterns import BigBird, BlockSparse, Dilated, Full, GlobalTokens, SlidingWindow, VerticalSlash, running
from attlas.patterns.chunk import Bend
from attlas.patterns.keep_set import ByPosition, KeepSet
from attlas.patterns.last_row import attend_last, keys_of
from attlas.testing import assert_as_exact_as, no_dense
from keeping import EVERY, KEEPING, STATIC, low_chunks, truth

HEIGHT = 8
AROUND_CHUNKS = st.sampled_from([1, 2, HEIGHT - 1, HEIGHT, HEIGHT + 1, 3 * HEIGHT, 3 * HEIGHT + 1, 50])
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    low_chunks(monkeypatch, HEIGHT)
    monkeypatch.setattr(streaming, "TILE", 16)
    # A few chunks a step, so that steps have edges too.
    monkeypatch.setattr(running, "SCORES", 2000)
    monkeypatch.setattr(running, "RECORDED", 5000)


@st.composite
def patterns(draw):
    """Draw a pattern of any kind."""
    small, size = st.integers(1, 12), st.integers(1, 9)
    kind = draw(
        st.sampled_from(["one of the named", "window", "dilated", "global", "local", "top", "bigbird", "lines"])
    )
    if kind == "window":
        return SlidingWindow(draw(small), draw(st.integers(0, 12)))
    if kind == "dilated":
        return Dilated(draw(small), draw(size), draw(st.integers(0, 6)))
    if kind == "global":
        return GlobalTokens(tuple(draw(st.lists(st.integers(0, 60), max_size=6))), draw(small))
    if kind == "local":
        return BlockSparse(draw(small), local=draw(st.integers(1, 3)), stride=draw(st.none() | st.integers(1, 4)))
    if kind == "top":
        return BlockSparse(draw(small), top=draw(st.integers(2, 5)))
    if kind == "bigbird":
        return BigBird(draw(small), draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.integers(0, 3)))
    if kind == "lines":
        band = draw(st.integers(1, 5))
        return VerticalSlash(draw(st.integers(0, 6)), band * draw(st.integers(1, 4)), draw(st.integers(1, 70)), band)
    return draw(st.sampled_from(list(EVERY.values())))


@st.composite
def problems(draw, dtypes=(torch.float32, torch.float64), scale=1.0):
    """Draw query, key, value and the rules of a matrix."""
    batch, kv_head, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    n_query, n_key = draw(AROUND_CHUNKS), draw(AROUND_CHUNKS)
    if draw(st.booleans()):
        n_query = n_key
    dim, width = draw(st.sampled_from([1, 8, 33])), draw(st.sampled_from([1, 8, 40]))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    head = kv_head * groups
    query, key = normal(batch, head, n_query, dim) * scale, normal(batch, kv_head, n_key, dim) * scale
    value = normal(batch, draw(st.sampled_from([kv_head, head])), n_key, width)
    rules = {"causal": draw(st.booleans())}
    if draw(st.integers(0, 3)) == 0:
        rules["window"] = draw(st.sampled_from([1, 5, HEIGHT + 1, 40]))
    mask = draw(st.sampled_from(["none", "none", "left", "right", "holes", "dense", "predicate"]))
    lengths = torch.tensor([draw(st.integers(0, n_key)) for _ in range(batch)]).view(-1, 1, 1, 1)
    if mask == "left":
        rules["mask"] = torch.arange(n_key).view(1, 1, 1, -1) >= lengths
    elif mask == "right":
        rules["mask"] = torch.arange(n_key).view(1, 1, 1, -1) < lengths
    elif mask == "holes":
        rules["mask"] = torch.rand(1, 1, 1, n_key, generator=generator) > 0.3
    elif mask == "dense":
        rules["mask"] = torch.rand(1, head, n_query, n_key, generator=generator) > 0.4
    elif mask == "predicate":
        rules["mask"] = lambda b, h, q, k: (q + 2 * k + h + b) % 3 != 0
    bias = draw(st.sampled_from(["none", "none", "alibi", "dense", "hiding"]))
    if bias == "alibi":
        rules["bias"] = ALiBi.for_heads(head)
    elif bias == "dense":
        rules["bias"] = normal(batch, 1, n_query, n_key)
    elif bias == "hiding":
        hidden = torch.rand(1, head, n_query, n_key, generator=generator) > 0.7
        rules["bias"] = normal(1, head, n_query, n_key).masked_fill(
            hidden, draw(st.sampled_from([-torch.inf, torch.finfo().min]))
        )
    if draw(st.integers(0, 2)) == 0:
        rules["softcap"] = 4.0
    if draw(st.integers(0, 2)) == 0:
        rules["sinks"] = normal(head)
    if draw(st.booleans()):
        rules["scale"] = 0.3
    return query.to(dtype), key.to(dtype), value.to(dtype), rules


def repeated(value, query):
    return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)


@RELAXED
@given(patterns(), problems())
def test_what_runs_is_what_is_seen_is_what_is_defined(pattern, problem):
    query, key, value, rules = problem
    plain_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    exact, plain = truth(pattern, query, key, rules), truth(pattern, query, key, rules, plain_dtype)
    matrix = AttentionMatrix(query, key, **rules)
    wide = repeated(value, query)
    got = pattern.attend(matrix, value)
    assert got.dtype == value.dtype
    assert_as_exact_as(got, plain @ wide, exact @ wide.double(), what="attend")
    seen = pattern.matrix(matrix)
    assert_as_exact_as(seen.to_dense(), plain, exact, what="matrix")
    assert_as_exact_as(seen @ value, plain @ wide, exact @ wide.double(), what="matrix @ value")
    assert_as_exact_as(seen.received(), plain.sum(2), exact.sum(2), what="received")


@RELAXED
@given(patterns(), problems(), st.data())
def test_the_last_row_alone(pattern, problem, data):
    query, key, value, rules = problem
    query, value = query[:, :, -1:], value[:, : key.shape[1]]
    rules = {name: rules[name] for name in ("window", "softcap", "sinks", "scale") if name in rules} | {"causal": True}
    plain_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    exact, plain = truth(pattern, query, key, rules), truth(pattern, query, key, rules, plain_dtype)
    spans = keys_of(pattern, key.shape[2], rules.get("window"))
    if spans is None:
        by_position = isinstance(pattern, Full | ByPosition) or getattr(pattern, "top", 0) is None
        assert not (by_position and bool(exact.any()))
        return
    heads = data.draw(st.lists(st.integers(0, query.shape[1] - 1), min_size=1, unique=True).map(sorted))
    sinks: Any = rules.get("sinks")
    bend = Bend(rules.get("scale", query.shape[3] ** -0.5), rules.get("softcap"), sinks)
    got = attend_last(query, key, value, heads, spans, bend)
    wide = repeated(value, query)
    assert_as_exact_as(got, (plain @ wide)[:, heads], (exact @ wide.double())[:, heads], what="the last row")


@RELAXED
@given(patterns(), problems(dtypes=(torch.bfloat16, torch.float16)))
def test_low_precision(pattern, problem):
    query, key, value, rules = problem
    matrix = AttentionMatrix(query, key, **rules)
    if isinstance(pattern, KeepSet) and pattern.chooses:
        # So few digits make ties, which roundings settle: what was chosen is asked, not what could have been.
        exact = plain = pattern.matrix(matrix).to_dense().double()
    else:
        exact, plain = truth(pattern, query, key, rules), truth(pattern, query, key, rules, torch.float32)
    wide = repeated(value, query)
    got = pattern.attend(matrix, value)
    assert got.dtype == value.dtype
    assert_as_exact_as(got, plain.to(value.dtype) @ wide, exact @ wide.double(), what="attend")


@RELAXED
@given(st.sampled_from(sorted(STATIC)), problems(scale=40.0))
def test_scores_of_hundreds(name, problem):
    # Of so large scores all but one leave nothing, so that a choice by mass would be one between zeros.
    pattern = STATIC[name]
    query, key, value, rules = problem
    rules.pop("softcap", None)
    plain_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    exact, plain = truth(pattern, query, key, rules), truth(pattern, query, key, rules, plain_dtype)
    wide = repeated(value, query)
    largest = float((query.abs().amax() * key.abs().amax() * query.shape[3]).clamp(min=1))
    got = pattern.attend(AttentionMatrix(query, key, **rules), value)
    assert_as_exact_as(got, plain @ wide, exact @ wide.double(), magnitude=largest, what="attend")


@RELAXED
@given(patterns(), problems(dtypes=(torch.float64,)))
def test_gradients_equal_the_dense_ones(pattern, problem):
    query, key, value, rules = problem
    leaves = [query.requires_grad_(), key.requires_grad_(), value.requires_grad_()]
    if "sinks" in rules:
        rules["sinks"] = rules["sinks"].double().requires_grad_()
        leaves.append(rules["sinks"])
    got = pattern.attend(AttentionMatrix(query, key, **rules), value)
    wanted = truth(pattern, query, key, rules) @ repeated(value, query)
    torch.testing.assert_close(got, wanted)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((got * weight).sum(), leaves)
    theirs = torch.autograd.grad((wanted * weight).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(EVERY)), st.booleans(), st.booleans(), st.sampled_from(["none", "padding", "sinks"]))
def test_nothing_is_dense(name, causal, recorded, rule):
    n = 900
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, head, n, 8, generator=generator) for head in (2, 1, 1))
    rules = {
        "none": {},
        "padding": {"mask": torch.arange(n).view(1, 1, 1, -1) > 30},
        "sinks": {"sinks": torch.zeros(2)},
    }
    query.requires_grad_(recorded)
    with no_dense(n * n):
        matrix = AttentionMatrix(query, key, causal=causal, **rules[rule])
        out = EVERY[name].attend(matrix, value)
        EVERY[name].matrix(matrix).received()
        if recorded:
            out.sum().backward()
    assert out.shape == (1, 2, n, 8)


@RELAXED
@given(st.sampled_from(sorted(KEEPING)), problems(dtypes=(torch.float32,)), st.data())
def test_a_tile_that_is_skipped_holds_nothing(name, problem, data):
    query, key, _, rules = problem
    pattern = KEEPING[name]
    exact = truth(pattern, query, key, rules)
    seen = pattern.matrix(AttentionMatrix(query, key, **rules))
    n_query, n_key = exact.shape[2:]
    top, left = data.draw(st.integers(0, n_query - 1)), data.draw(st.integers(0, n_key - 1))
    rows, cols = (
        slice(top, data.draw(st.integers(top + 1, n_query))),
        slice(left, data.draw(st.integers(left + 1, n_key))),
    )
    if not seen.occupied(rows, cols):
        assert not bool(exact[:, :, rows, cols].any())


def test_the_full_pattern_is_the_matrix_itself():
    matrix = AttentionMatrix(torch.randn(1, 2, 9, 4), torch.randn(1, 1, 9, 4))
    assert Full().matrix(matrix) is matrix
