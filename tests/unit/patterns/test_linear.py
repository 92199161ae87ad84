"""Linear attention: what it costs, what it refuses, what it remembers."""

import json

import pytest
import torch

from attlas import ArgumentError, AttentionMatrix
from attlas.matrix.bias import ALiBi
from attlas.matrix.reference import dense_attention
from attlas.patterns import hybrid
from attlas.patterns.features import Elu, Favor, FeatureMap
from attlas.patterns.linear import Linear
from attlas.patterns.registry import from_settings
from attlas.testing import no_dense
from linear_truth import random_map


def heads(n=40, n_query=None, **rules):
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(1, 4, n_query or n, 8, generator=generator)
    key, value = (torch.randn(1, 2, n, width, generator=generator) for width in (8, 3))
    return AttentionMatrix(query, key, **rules), value


def test_a_window_over_everything_is_the_exact_matrix():
    exact, _ = heads(causal=True)
    dense = dense_attention(exact.query, exact.key, causal=True)
    for features in ("elu", "favor"):
        torch.testing.assert_close(
            Linear(features, window=40).matrix(exact).to_dense().double(), dense, rtol=0, atol=1e-6
        )
    torch.testing.assert_close(Linear("elu", sinks=99).matrix(exact).to_dense().double(), dense, rtol=0, atol=1e-6)


def test_near_scores_keep_their_proportions():
    exact, _ = heads(causal=True)
    entries = Linear("elu", window=6).matrix(exact).to_dense()[0, 0, 30]
    dense = dense_attention(exact.query, exact.key, causal=True)[0, 0, 30]
    torch.testing.assert_close((entries / entries[30])[25:31].double(), (dense / dense[30])[25:31], rtol=1e-5, atol=0)


def test_nothing_dense_is_made():
    n = 900
    exact, value = heads(n, causal=True)
    around, _ = heads(n)
    for matrix in (exact, around):
        for pattern in (
            Linear("elu"),
            Linear(Favor(16), window=20, sinks=2),
            Linear(random_map(4, 8, 12, torch.Generator())),
        ):
            with no_dense(n * n):
                pattern.attend(matrix, value)
                pattern.matrix(matrix).received()


def test_nothing_dense_is_made_on_the_way_back():
    n = 900
    exact, value = heads(n, causal=True)
    query = exact.query.requires_grad_()
    pattern = Linear(random_map(4, 8, 12, torch.Generator()), window=20)
    with no_dense(n * n):
        (gradient,) = torch.autograd.grad(pattern.attend(exact, value).sum(), query)
    assert bool(gradient.isfinite().all())


def test_the_state_does_not_grow():
    n = 300
    exact, value = heads(n, causal=True)
    pattern = Linear(Favor(16), window=10, sinks=2)
    sizes = []
    for end in (50, 150, 300):
        part = AttentionMatrix(exact.query[:, :, :end], exact.key[:, :, :end], causal=True)
        sizes.append(pattern.read(part, value[:, :, :end])[1].nbytes)
    assert len(set(sizes)) == 1


def test_one_step_costs_the_same_whatever_was_read(monkeypatch):
    counted = []
    scores = hybrid.Hybrid.scores
    monkeypatch.setattr(
        hybrid.Hybrid, "scores", lambda self, rows, keys: counted.append(len(keys)) or scores(self, rows, keys)
    )
    exact, value = heads(200, causal=True)
    pattern = Linear("elu", window=7, sinks=2)
    for end in (50, 199):
        part = AttentionMatrix(exact.query[:, :, :end], exact.key[:, :, :end], causal=True)
        _, state = pattern.read(part, value[:, :, :end])
        counted.clear()
        token = slice(end, end + 1)
        state.step(exact.query[:, :, token], exact.key[:, :, token], value[:, :, token])
        assert counted == [9]


def test_reading_needs_heads_that_read_from_left_to_right():
    exact, value = heads()
    with pytest.raises(ArgumentError, match=r"exact: wanted causal heads.*got heads that see what is to come"):
        Linear("elu").read(exact, value)


def test_steps_are_checked():
    exact, value = heads(causal=True)
    _, state = Linear("elu", window=3).read(exact, value)
    token = torch.zeros(1, 4, 1, 8)
    with pytest.raises(ArgumentError, match=r"key: wanted shape \(1, 2, tokens, 8\), got shape \(1, 4, 1, 8\)"):
        state.step(token, token, value[:, :, :1])
    with pytest.raises(ArgumentError, match="as many tokens each, got 1, 2 and 1"):
        state.step(token, torch.zeros(1, 2, 2, 8), value[:, :, :1])


@pytest.mark.parametrize(
    ("rules", "window", "message"),
    [
        ({"causal": True, "window": 5}, 0, "window: wanted heads without a window of their own, got 5; plan Full"),
        ({"mask": torch.ones(40, 40, dtype=torch.bool)}, 0, r"mask: wanted a mask that hides.*\(1, 1, 40, 40\)"),
        ({"mask": lambda b, h, q, k: q >= k}, 0, "mask: wanted a mask that hides.*got a formula"),
        ({"bias": ALiBi.for_heads(4), "causal": True}, 0, "bias: wanted no bias.*got ALiBi"),
        ({"bias": torch.zeros(1, 1, 40, 40)}, 0, r"bias: wanted no bias.*got shape \(1, 1, 40, 40\)"),
        ({"n_query": 50}, 4, "window: wanted 0 where there are more queries than keys, 50 and 40"),
    ],
)
def test_rules_that_sums_cannot_follow_are_refused(rules, window, message):
    exact, value = heads(**rules)
    pattern = Linear("elu", window=window)
    for ask in (pattern.check, pattern.matrix, lambda e: pattern.attend(e, value)):
        with pytest.raises(ArgumentError, match=message):
            ask(exact)


def test_a_window_that_hides_nothing_is_no_obstacle():
    exact, value = heads(causal=True, window=40)
    free, _ = heads(causal=True)
    torch.testing.assert_close(Linear("elu").attend(exact, value), Linear("elu").attend(free, value))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": "cosine"}, "features: wanted"),
        ({"window": -1}, "window: wanted a whole number of at least 0, got -1"),
        ({"sinks": 1.5}, "sinks: wanted a whole number of at least 0, got 1.5"),
        ({"window": True}, "window: wanted a whole number"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Linear(**arguments)


def test_values_that_do_not_fit_are_refused():
    exact, value = heads(causal=True)
    for wrong, message in (
        (value[:, :, 1:], r"value: wanted shape \(1, kv_head, 40, value_dim\)"),
        (value.repeat(1, 2, 1, 1)[:, :3], "value: wanted a number of heads that divides the matrix' 4, got 3"),
        (value.long(), "value: wanted a tensor of floats, got torch.int64"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Linear("elu").attend(exact, wrong)


def test_it_is_a_record():
    assert Linear("elu") == Linear(Elu())
    assert hash(Linear("elu", 4)) == hash(Linear(Elu(), 4))
    assert Linear("favor") != Linear("favor", 1)
    learned = random_map(2, 8, 6, torch.Generator())
    for pattern in (Linear("elu", 3), Linear(Favor(9, 2), sinks=4), Linear(learned, 64, 4)):
        assert Linear.from_settings(pattern.settings(), {learned.digest: learned}) == pattern
    for pattern in (Linear("elu", 3), Linear(Favor(9, 2), sinks=4)):
        assert from_settings("linear", json.loads(json.dumps(pattern.settings()))) == pattern
    with pytest.raises(ArgumentError, match="settings: wanted those of linear"):
        Linear.from_settings({"features": "elu", "width": 3})
    assert Linear(learned, 64).settings() == {"features": {"learned": learned.digest}, "window": 64, "sinks": 0}


def test_learned_heads_are_taken_apart_and_put_together():
    learned = random_map(4, 8, 6, torch.Generator().manual_seed(2))
    together = Linear(learned, window=5)
    exact, value = heads(causal=True)
    apart = [together.narrow(slice(h, h + 1)) for h in range(4)]
    outs = [
        one.attend(exact.narrow(slice(0, 1), slice(h, h + 1)), value[:, h // 2 : h // 2 + 1])
        for h, one in enumerate(apart)
    ]
    torch.testing.assert_close(torch.cat(outs, 1), together.attend(exact, value))
    assert Linear.joined(apart) == together
    assert Linear.joined([Linear("elu", 3), Linear("elu", 3)]) == Linear("elu", 3)
    assert isinstance(Linear.joined(apart).maps, FeatureMap)
    for unlike in ([Linear("elu"), Linear("favor")], [apart[0], Linear(apart[1].maps, window=6)], []):
        with pytest.raises(ArgumentError, match="patterns: wanted"):
            Linear.joined(unlike)


def test_work_grows_with_the_text_and_not_with_its_square():
    pattern = Linear(Favor(64), window=100, sinks=4)
    short, long = (pattern.work(n, n, causal=True) for n in (10_000, 20_000))
    assert long.pairs == 2 * short.pairs
    assert long.features == 2 * short.features == 2 * 20_000 * 64
    assert short.pairs < 10_000 * 800
    assert pattern.work(1, 10_000, causal=True).pairs == 105
    assert pattern.held(100_000) == 104 + 33
    assert pattern.held(50) == 50
