"""Linear attention in chunks equals its formula, dense in float64, around the edges of chunks and for every rule."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from attlas.matrix import streaming
from attlas.patterns import hybrid
from attlas.patterns.features import Elu, Favor
from attlas.testing import assert_as_exact_as
from linear_truth import Heads, random_map

CHUNK = 8
AROUND_CHUNKS = st.sampled_from([1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK - 1, 35])
RELAXED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(hybrid, "CHUNK", CHUNK)
    monkeypatch.setattr(streaming, "TILE", 16)


@st.composite
def heads(draw, dtypes=(torch.float32, torch.float64, torch.bfloat16), causal=None, square=False):
    """Draw some heads, and what of them is to be exact."""
    batch, kv_head, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    head, dim, width = kv_head * groups, draw(st.sampled_from([1, 8, 17])), draw(st.sampled_from([1, 5]))
    n_key = draw(AROUND_CHUNKS)
    n_query = n_key if square else draw(AROUND_CHUNKS)
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    rules = {"causal": draw(st.booleans()) if causal is None else causal}
    mask = draw(st.sampled_from(["none", "left", "some", "each head its own"]))
    if mask == "left":
        gone = torch.randint(0, n_key, (batch, 1, 1, 1), generator=generator)
        rules["mask"] = torch.arange(n_key) >= gone
    elif mask != "none":
        rules["mask"] = torch.rand(batch, 1 if mask == "some" else head, 1, n_key, generator=generator) > 0.4
    if draw(st.booleans()):
        rules["bias"] = normal(1, head, 1, n_key).to(dtype)
    if draw(st.booleans()):
        rules["sinks"] = normal(head)
    if draw(st.booleans()):
        rules["scale"] = 0.3
    features = draw(st.sampled_from(["elu", "favor", "learned", "shared"]))
    maps = {
        "elu": Elu(),
        "favor": Favor(features=7, seed=1),
        "learned": random_map(head, dim, 6, generator),
        "shared": random_map(1, dim, 6, generator),
    }
    if features != "favor" and draw(st.booleans()):
        rules["softcap"] = 4.0
    window, sinks = draw(st.sampled_from([0, 0, 1, 2, CHUNK, CHUNK + 1, 20, 50])), draw(st.sampled_from([0, 0, 1, 3]))
    assume(rules["causal"] or not window or n_query <= n_key)
    query, key = normal(batch, head, n_query, dim), normal(batch, kv_head, n_key, dim)
    value = normal(batch, kv_head, n_key, width)
    return Heads(query.to(dtype), key.to(dtype), value.to(dtype), maps[features], window, sinks, rules)


@RELAXED
@given(heads())
def test_attending_is_the_matrix_times_the_values(drawn):
    exact, plain = drawn.dense(), drawn.dense(drawn.plain_dtype)
    attended = drawn.pattern.attend(drawn.exact, drawn.value)
    assert attended.dtype == drawn.value.dtype
    wanted = exact @ drawn.values.double()
    in_their_dtype = (plain @ drawn.values.to(drawn.plain_dtype)).to(drawn.value.dtype)
    assert_as_exact_as(attended, in_their_dtype, wanted, magnitude=drawn.magnitude, what="attend")


@RELAXED
@given(heads())
def test_the_lazy_matrix_is_the_formula(drawn):
    exact, plain = drawn.dense(), drawn.dense(drawn.plain_dtype)
    matrix = drawn.pattern.matrix(drawn.exact)
    assert_as_exact_as(matrix.to_dense(), plain, exact, magnitude=drawn.magnitude, what="entries")
    assert_as_exact_as(matrix.received(), plain.sum(2), exact.sum(2), magnitude=drawn.magnitude, what="received")
    if "sinks" not in drawn.rules:
        sees = exact.sum(-1) > 0
        torch.testing.assert_close(matrix.to_dense().double().sum(-1), sees.double(), rtol=0, atol=1e-5)


@RELAXED
@given(heads(dtypes=(torch.float64,)), st.integers(0, 2**16))
def test_gradients_equal_those_of_the_formula(drawn, seed):
    leaves = [t.requires_grad_() for t in (drawn.query, drawn.key, drawn.value)]
    if "sinks" in drawn.rules:
        drawn.rules["sinks"] = drawn.rules["sinks"].double().requires_grad_()
        leaves.append(drawn.rules["sinks"])
    attended = drawn.pattern.attend(drawn.exact, drawn.value)
    wanted = drawn.dense() @ drawn.values
    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got = torch.autograd.grad((attended * weight).sum(), leaves, allow_unused=True)
    truth = torch.autograd.grad((wanted * weight).sum(), leaves, allow_unused=True)
    torch.testing.assert_close(attended, wanted)
    for ours, theirs, leaf in zip(got, truth, leaves, strict=True):
        ours, theirs = (torch.zeros_like(leaf) if one is None else one for one in (ours, theirs))
        torch.testing.assert_close(ours, theirs)


@RELAXED
@given(heads(causal=True, square=True), st.data())
def test_reading_on_token_by_token_is_attending_to_everything(drawn, data):
    n = drawn.key.shape[2]
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=4))})
    seen = drawn.rules.get("mask")
    if seen is not None and len(cuts) > 2:
        # What is hidden is hidden from the start on; tokens that are read one by one are all visible.
        drawn.rules["mask"] = seen | (torch.arange(n) >= cuts[1])
    if "bias" in drawn.rules and len(cuts) > 2:
        drawn.rules["bias"] = torch.where(torch.arange(n) < cuts[1], drawn.rules["bias"], 0)
    exact, plain = drawn.dense(), drawn.dense(drawn.plain_dtype)
    outs, state = [], None
    for start, stop in itertools.pairwise(cuts):
        query, key, value = drawn.query[:, :, start:stop], drawn.key[:, :, start:stop], drawn.value[:, :, start:stop]
        if state is None:
            rules = {k: v[..., :stop] if k in ("mask", "bias") else v for k, v in drawn.rules.items()}
            first = Heads(query, key, value, drawn.features, drawn.window, drawn.sinks, rules)
            out, state = first.pattern.read(first.exact, value)
        else:
            out, state = state.step(query, key, value)
        outs.append(out)
    wanted = exact @ drawn.values.double()
    in_their_dtype = (plain @ drawn.values.to(drawn.plain_dtype)).to(drawn.value.dtype)
    assert_as_exact_as(torch.cat(outs, 2), in_their_dtype, wanted, magnitude=drawn.magnitude, what="token by token")
    assert state is not None
    assert state.key.shape[2] <= drawn.window + drawn.sinks


@RELAXED
@given(heads(dtypes=(torch.float32, torch.float64)), st.sampled_from([5.0, 20.0]))
def test_large_norms_neither_overflow_nor_vanish(drawn, factor):
    spread = torch.linspace(0.1, 1.0, drawn.key.shape[2]).view(-1, 1).to(drawn.key.dtype) ** 2
    large = Heads(
        drawn.query * factor,
        drawn.key * factor * (spread if factor > 10 else spread.flip(0)),
        drawn.value,
        drawn.features,
        drawn.window,
        drawn.sinks,
        drawn.rules,
    )
    exact, plain = large.dense(), large.dense(large.plain_dtype)
    attended = large.pattern.attend(large.exact, large.value)
    assert_as_exact_as(
        attended,
        plain @ large.values.to(large.plain_dtype),
        exact @ large.values.double(),
        magnitude=large.magnitude,
        what="attend",
    )
    matrix = large.pattern.matrix(large.exact)
    assert_as_exact_as(matrix.to_dense(), plain, exact, magnitude=large.magnitude, what="entries")
