"""Fitting feature maps: the loss is what its formula says, fitted maps are better, and nothing dense is made."""

from typing import Any

import pytest
import torch

from attlas import ArgumentError, AttentionMatrix
from attlas.matrix.reference import dense_attention
from attlas.patterns.features import FeatureMap
from attlas.patterns.fitting import Fitted, fit_features
from attlas.patterns.fitting_rows import FittedText, prototypes
from attlas.patterns.linear import Linear
from attlas.testing import no_dense
from linear_truth import Heads, random_map


def drawn(n=60, batch=1, seed=0, sharp=1.0, **rules):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, 4, n, 8, generator=generator) * sharp
    key, value = (torch.randn(batch, 2, n, width, generator=generator) for width in (8, 3))
    return AttentionMatrix(query, key, **rules), value


RULES = {
    "causal": ({"causal": True}, 0, 0),
    "a window and sinks": ({"causal": True}, 7, 2),
    "not causal": ({}, 5, 1),
    "a learned sink and a cap": ({"causal": True, "sinks": torch.linspace(-1, 2, 4), "softcap": 3.0}, 4, 0),
    "padding": (
        {"causal": True, "mask": torch.arange(60).view(1, 1, 1, -1) >= torch.tensor([0, 13]).view(2, 1, 1, 1)},
        4,
        2,
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_the_loss_is_the_divergence_between_the_rows(name):
    rules, window, sinks = RULES[name]
    exact, value = drawn(batch=2, **rules)
    maps = random_map(4, 8, 6, torch.Generator().manual_seed(3))
    text = FittedText(exact, None, Linear("elu", window, sinks), 8, torch.Generator().manual_seed(0))
    dense = dense_attention(exact.query, exact.key, **rules)
    stand_in = Heads(exact.query, exact.key, value, maps, window, sinks, rules).dense()
    for batch, rows in ((0, torch.tensor([20, 21, 40, 59])), (1, torch.tensor([30, 58]))):
        loss = text.loss(maps.query, maps.key, batch, rows)
        a, b = dense[batch][:, rows], stand_in[batch][:, rows]
        missing = (1 - a.sum(-1)).clamp(min=0), (1 - b.sum(-1)).clamp(min=0)
        wanted = torch.where(a > 0, a * (a / b).log(), 0.0).sum(-1)
        if "sinks" in rules:
            wanted = wanted + missing[0] * (missing[0] / missing[1]).log()
        torch.testing.assert_close(loss.double(), wanted.mean(-1), rtol=1e-4, atol=1e-5)


def test_values_add_the_error_of_the_output():
    exact, value = drawn(causal=True)
    maps = random_map(4, 8, 6, torch.Generator().manual_seed(3))
    rows = torch.tensor([20, 33, 59])
    with_values, without = (
        FittedText(exact, given, Linear("elu", 5, 1), 8, torch.Generator().manual_seed(0)).loss(
            maps.query, maps.key, 0, rows
        )
        for given in (value, None)
    )
    values = value.double().repeat_interleave(2, 1)
    outputs = (dense_attention(exact.query, exact.key, causal=True) @ values)[0, :, rows]
    stand_in = (Heads(exact.query, exact.key, value, maps, 5, 1, {"causal": True}).dense() @ values)[0, :, rows]
    error = (stand_in - outputs).square().sum(-1) / outputs.square().sum(-1).mean(-1, keepdim=True)
    torch.testing.assert_close((with_values - without).double(), error.mean(-1), rtol=1e-4, atol=1e-5)


def test_one_feature_for_each_query_is_nearly_exact_before_any_step():
    exact, _ = drawn(n=40, causal=True, sharp=6.0)
    maps = FeatureMap(*prototypes([exact], 40, torch.Generator().manual_seed(0)))
    entries = Linear(maps).matrix(exact).to_dense()
    dense = dense_attention(exact.query, exact.key, causal=True)
    assert (0.5 * (entries - dense).abs().sum(-1)).mean() < 0.02


def test_fitted_maps_are_better_and_the_record_says_by_how_much():
    # Queries along a line: few typical ones have much in common with all others.
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 160, 1, generator=generator) @ torch.randn(4, 1, 8, generator=generator) * 2
    exact = AttentionMatrix(query, drawn(n=160)[0].key, causal=True)
    value = drawn(n=160)[1]
    seen = []
    fitted = fit_features(
        exact, value, features=8, window=4, sinks=1, steps=40, rows=32, tested=24, progress=lambda *p: seen.append(p)
    )
    assert isinstance(fitted, Fitted)
    assert fitted.map.query.shape == fitted.map.key.shape == (4, 9, 8)
    assert set(fitted.variation) == set(fitted.output) == {"elu", "favor", "start", "fitted"}
    assert bool((fitted.loss["fitted"] <= fitted.loss["start"]).all())
    assert fitted.loss["fitted"].mean() < 0.9 * fitted.loss["start"].mean()
    assert fitted.variation["fitted"].mean() < min(fitted.variation[name].mean() for name in ("elu", "favor"))
    assert fitted.rows == 24
    assert seen[0] == (1, 40)
    assert len(seen) == fitted.steps
    assert fitted.pattern == Linear(fitted.map, 4, 1)
    # What the record says is what the pattern's own matrix has.
    text = FittedText(exact, value, fitted.pattern, 24, torch.Generator().manual_seed(0))
    dense = dense_attention(exact.query, exact.key, causal=True)[:, :, text.tested]
    stand_in = Heads(exact.query, exact.key, value, fitted.map, 4, 1, {"causal": True}).dense()[:, :, text.tested]
    variation = (0.5 * (dense - stand_in).abs().sum(-1)).mean((0, 2))
    torch.testing.assert_close(fitted.variation["fitted"].double(), variation, rtol=1e-4, atol=1e-5)
    values = value.double().repeat_interleave(2, 1)
    output = ((stand_in - dense) @ values).square().sum((0, 2, 3)).sqrt() / (dense @ values).square().sum(
        (0, 2, 3)
    ).sqrt()
    torch.testing.assert_close(fitted.output["fitted"].double(), output, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_maps():
    exact, _ = drawn(n=80, causal=True)
    options: dict[str, Any] = {"features": 6, "steps": 10, "rows": 16, "tested": 16}
    first, again = (fit_features(exact, seed=4, **options) for _ in range(2))
    other = fit_features(exact, seed=5, **options)
    assert first.map == again.map
    assert first.map != other.map


def test_several_texts_are_fitted_together():
    matrices, values = zip(*(drawn(n=n, causal=True, seed=n) for n in (80, 100)), strict=True)
    fitted = fit_features(matrices, values, features=6, steps=10, rows=16, tested=16)
    assert fitted.rows == 32
    with pytest.raises(ArgumentError, match="value: wanted values of 2 texts, got 1"):
        fit_features(matrices, values[0])
    with pytest.raises(ArgumentError, match="exact: wanted the same heads on every text, got 2 heads of dim 8 and 4"):
        fit_features([matrices[0], matrices[1][:, :2]])


def test_it_stops_when_no_head_gets_better():
    exact, _ = drawn(n=80, causal=True)
    fitted = fit_features(exact, features=6, steps=400, rows=16, tested=16, rate=1e-9, patience=2)
    assert fitted.steps == 40


def test_no_step_leaves_the_maps_where_they_start():
    exact, _ = drawn(n=80, causal=True)
    fitted = fit_features(exact, features=6, steps=0, tested=16)
    assert fitted.steps == 0
    assert torch.equal(fitted.loss["fitted"], fitted.loss["start"])


def test_under_a_cap_random_features_are_not_compared():
    exact, _ = drawn(n=80, causal=True, softcap=4.0)
    assert set(fit_features(exact, features=6, steps=1, tested=8).variation) == {"elu", "start", "fitted"}


def test_nothing_dense_is_made():
    n = 700
    exact, value = drawn(n=n, causal=True)
    exact.prepare()
    with no_dense(n * n):
        fit_features(exact, value, features=8, window=4, steps=3, rows=16, tested=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features: wanted a whole number of at least 1, got 0"),
        ({"steps": -1}, "steps: wanted a whole number of at least 0, got -1"),
        (
            {"tested": 40},
            "exact: wanted texts with at least 80 rows that see keys outside .* got 60 such rows of 60; give",
        ),
        ({"window": 50, "sinks": 4}, "exact: wanted texts with at least 128 rows .* got 6 such rows of 60"),
    ],
)
def test_arguments_are_checked(options, message):
    exact, _ = drawn(causal=True)
    with pytest.raises(ArgumentError, match=message):
        fit_features(exact, **options)


def test_what_is_no_matrix_is_refused():
    others: list[Any] = [[], [3], torch.zeros(3)]
    for wrong in others:
        with pytest.raises(ArgumentError, match="exact: wanted an AttentionMatrix, or several"):
            fit_features(wrong)
