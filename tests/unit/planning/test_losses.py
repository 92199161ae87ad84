"""What a pattern loses of a layer, against dense float64 truth written from the definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
from attlas.capture.attended import Attended, Gradients
from attlas.matrix import ALiBi, AttentionMatrix, WithIdentity
from attlas.matrix.reference import dense_attention
from attlas.patterns import BlockSparse, Dilated, Full, Pattern, SlidingWindow, VerticalSlash, Work
from attlas.planning.losses import MEASURES, NAMES, Exact, diameter, dropped_mass, kept_by, losses, streamed
from attlas.testing import no_dense

HEADS, KV_HEADS, N, DIM, VALUE_DIM, TERMS = 4, 2, 37, 5, 6, 36

RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window of its own": {"window": 9},
    "soft cap": {"softcap": 1.5},
    "sinks": {"sinks": torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)},
}


def made(rules: dict[str, Any], dtype: torch.dtype = torch.float64, causal: bool = True) -> Exact:
    random = torch.Generator().manual_seed(3)

    def drawn(heads: int, width: int) -> Tensor:
        return torch.randn(1, heads, N, width, generator=random, dtype=torch.float64).to(dtype)

    query, key, value = 2 * drawn(HEADS, DIM), drawn(KV_HEADS, DIM), drawn(KV_HEADS, VALUE_DIM) + 1
    matrix = AttentionMatrix(query, key, causal=causal, **rules)
    gradients = Gradients(drawn(HEADS, VALUE_DIM), key, value)
    return Exact.of(Attended(0, "layer", matrix, value, matrix @ value, (gradients,)), TERMS)


def dense(exact: Exact, rules: dict[str, Any], mask: Tensor | None = None, causal: bool = True) -> Tensor:
    return dense_attention(exact.matrix.query, exact.matrix.key, causal=causal, mask=mask, **rules)


def window(width: int, sinks: int) -> Tensor:
    ahead = torch.arange(N).view(-1, 1) - torch.arange(N)
    kept = (ahead >= 0) & (ahead < width) | (torch.arange(N) < sinks).expand(N, N)
    return kept.expand(1, 1, N, N)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("width", "sinks"), [(1, 0), (5, 0), (6, 2), (36, 1), (64, 0)])
def test_a_keep_set_is_measured_exactly(rules: dict[str, Any], width: int, sinks: int) -> None:
    exact = made(rules)
    found = losses(exact, SlidingWindow(width, sinks))
    assert set(found) == set(NAMES)
    kept = window(width, sinks)
    whole, instead = dense(exact, rules), dense(exact, rules, kept)
    dropped = (whole * ~kept).sum(-1)[0]
    variation = (whole - instead).abs().sum(-1)[0] / 2
    if "sinks" in rules:
        # What the sink takes is part of the row, too.
        variation += (instead.sum(-1) - whole.sum(-1)).abs()[0] / 2
    torch.testing.assert_close(variation, dropped, rtol=0, atol=1e-12)
    for name in ("dropped", "variation"):
        torch.testing.assert_close(found[f"{name}_mean"], dropped.mean(-1))
        torch.testing.assert_close(found[f"{name}_p95"], dropped.quantile(0.95, dim=-1))
        torch.testing.assert_close(found[f"{name}_worst"], dropped.amax(-1))
    value = exact.value.repeat_interleave(HEADS // KV_HEADS, 1)
    change = ((instead - whole) @ value)[0]
    torch.testing.assert_close(
        found["error"], change.flatten(1).norm(dim=-1) / (whole @ value)[0].flatten(1).norm(dim=-1)
    )
    along = (exact.slope[0] * change).sum(-1)
    torch.testing.assert_close(found["first"], along.sum(-1))
    torch.testing.assert_close(found["second"], TERMS * along.square().sum(-1) / 2)
    # The certificate, row by row; the worst row's bound holds for all of them.
    assert bool((change.norm(dim=-1) <= found["bound"].unsqueeze(-1) + 1e-12).all())
    points = torch.cat([value[0], torch.zeros(HEADS, 1, VALUE_DIM)], 1) if "sinks" in rules else value[0]
    across = torch.cdist(points, points).flatten(1).amax(-1)
    assert bool((change.norm(dim=-1) <= dropped * across.unsqueeze(-1) + 1e-12).all())
    assert bool((found["bound"] >= found["dropped_worst"] * across - 1e-12).all())


CHOOSING = (SlidingWindow(5, sinks=1), BlockSparse(4, top=3), VerticalSlash(3, 4, band=1), Dilated(4, 3))
SPECIAL: dict[str, dict[str, Any]] = {
    **RULES,
    "padding": {"mask": (torch.arange(N) > 3).view(1, 1, 1, N)},
    "bias": {"bias": ALiBi(torch.tensor([0.5, 0.25, 0.125, 0.0], dtype=torch.float64))},
    "large scores": {"scale": 80.0},
}


@pytest.mark.parametrize("rules", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_run_says_the_same_as_the_streamed_sums(rules: dict[str, Any], dtype: torch.dtype) -> None:
    exact = made(rules, dtype)
    for pattern in CHOOSING:
        dropped, output = kept_by(exact, pattern)
        wanted_dropped, wanted_output = streamed(exact, pattern.matrix(exact.matrix))
        near = 1e-10 if dtype == torch.float64 else 2e-4 if "scale" in rules else 2e-5
        torch.testing.assert_close(dropped, wanted_dropped, rtol=near, atol=near)
        torch.testing.assert_close(output, wanted_output, rtol=near, atol=near)


def test_what_hides_nothing_loses_nothing() -> None:
    found = losses(made({}), SlidingWindow(N))
    for name in NAMES:
        assert bool((found[name].abs() < 1e-12).all()), name


def test_rows_of_which_nothing_is_kept() -> None:
    """A window of its own that lies wholly outside of what is kept leaves empty rows, whose output is 0."""
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, N, DIM, generator=random, dtype=torch.float64) for _ in range(3))
    mask = (torch.arange(N) % 7 == 0).view(1, 1, 1, N)  # only every seventh key may be seen at all
    matrix = AttentionMatrix(query, key, causal=True, mask=mask)
    gradients = Gradients(torch.ones_like(value), key, value + 100)
    exact = Exact.of(Attended(0, "layer", matrix, value + 100, matrix @ (value + 100), (gradients,)), 1)
    found = losses(exact, SlidingWindow(3))
    assert float(found["dropped_worst"]) == 1.0
    assert float(found["bound"]) >= float((matrix @ (value + 100)).norm(dim=-1).max())


@dataclass(frozen=True)
class Halfway(Pattern):
    """A stand-in that keeps no set of keys: half the exact matrix, half the identity."""

    kind = "halfway"

    def matrix(self, exact: AttentionMatrix) -> WithIdentity:
        return WithIdentity(exact, 0.5)

    def attend(self, exact: AttentionMatrix, value: Tensor) -> Tensor:
        return self.matrix(exact) @ value.repeat_interleave(exact.shape[1] // value.shape[1], 1)

    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        return Work(n_query * n_key)

    def settings(self) -> dict[str, Any]:
        return {}


def test_a_pattern_that_keeps_no_set_is_compared_row_by_row() -> None:
    exact = made({})
    found = losses(exact, Halfway())
    whole = dense(exact, {})
    instead = (whole + torch.eye(N)) / 2
    variation = (whole - instead).abs().sum(-1)[0] / 2
    torch.testing.assert_close(found["variation_mean"], variation.mean(-1))
    torch.testing.assert_close(found["variation_worst"], variation.amax(-1))
    for name in ("dropped_mean", "dropped_p95", "dropped_worst", "bound"):
        assert bool(found[name].isnan().all())
    change = ((instead - whole) @ exact.value.repeat_interleave(2, 1))[0]
    torch.testing.assert_close(found["first"], (exact.slope[0] * change).sum((1, 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_near(dtype: torch.dtype) -> None:
    exact = made({}, dtype)
    truth = made({}, torch.float64)
    for pattern in (SlidingWindow(5), Full()):
        found, wanted = losses(exact, pattern), losses(truth, pattern)
        near = 30 * torch.finfo(dtype).eps
        for name in ("dropped_mean", "dropped_worst", "error"):
            torch.testing.assert_close(found[name], wanted[name], rtol=near, atol=near)


def test_without_any_matrix_of_all_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    n = 1500
    query, key, value = (torch.randn(1, 1, n, 8, generator=random) for _ in range(3))
    matrix = AttentionMatrix(query, key, causal=True)
    exact = Exact.of(Attended(0, "layer", matrix, value, value, (Gradients(value, key, value),)), n)
    with no_dense(n * n):
        losses(exact, SlidingWindow(40, sinks=2))
        losses(exact, Halfway())


def test_dropped_mass_of_odd_rows() -> None:
    inf = float("inf")
    whole = torch.tensor([[[1.0, -inf, 0.0, 5.0, 5.0]]])
    kept = torch.tensor([[[1.0 + 1e-6, -inf, -inf, -995.0, 5.0 + torch.tensor(0.5).log().item()]]])
    torch.testing.assert_close(dropped_mass(whole, kept), torch.tensor([[[0.0, 0.0, 1.0, 1.0, 0.5]]]).double())


def test_the_diameter_is_bounded_from_both_sides() -> None:
    value = torch.randn(1, 3, 50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    across = torch.cdist(value[0], value[0]).flatten(1).amax(-1).repeat_interleave(2)
    bound = diameter(value, 6)
    assert bool((bound >= across).all())
    assert bool((bound <= 2 * across).all())
    assert bool((diameter(value, 6, origin=True) >= bound).all())


def test_a_gradient_that_is_not_finite_names_its_layer() -> None:
    exact = made({})
    slope = exact.slope.clone()
    slope[0, 0, 0, 0] = torch.nan
    given = Gradients(slope, exact.matrix.key, exact.value)
    with pytest.raises(attlas.NonFiniteError, match="layer: the gradient of its heads' outputs is not finite"):
        Exact.of(Attended(0, "layer", exact.matrix, exact.value, exact.output, (given,)), 1)


def test_every_measure_says_what_it_is() -> None:
    assert all(measure.meaning.endswith(".") for measure in MEASURES)
    assert len(set(NAMES)) == len(NAMES)
